#!/usr/bin/env python3
"""An agent's loop by psycopg2: try a migration in a fork, look at it, drop the fork.

agent_loop.py HOST LOOPS
"""

import sys

import psycopg2

MIGRATION = (
    "CREATE TABLE addresses (user_id int PRIMARY KEY REFERENCES users, address text NOT NULL)",
    "INSERT INTO addresses SELECT id, address FROM users",
    "ALTER TABLE users DROP COLUMN address",
)
# Two users share a name.
BROKEN = ("ALTER TABLE users ADD UNIQUE (name)",)


def connect(host, name):
    return psycopg2.connect(host=host, user="postgres", dbname=name)


def value(cursor, sql, args=()):
    cursor.execute(sql, args)
    return cursor.fetchone()[0]


def attempt(host, prod, migration, check):
    """Runs the migration in a fork of its own; what the check returns, or the error."""
    fork = value(prod, "SELECT fork_create('prod')")
    try:
        session = connect(host, fork)
        try:
            with session, session.cursor() as cursor:
                for statement in migration:
                    cursor.execute(statement)
                return check(cursor)
        except psycopg2.Error as error:
            return error
        finally:
            session.close()
    finally:
        assert value(prod, "SELECT fork_drop(%s)", (fork,))


def moved(cursor):
    columns = value(
        cursor,
        "SELECT count(*) FROM information_schema.columns"
        " WHERE table_name = 'users' AND column_name = 'address'",
    )
    assert columns == 0, columns
    return value(cursor, "SELECT count(*) FROM addresses JOIN users ON id = user_id")


def main(host, loops):
    session = connect(host, "prod")
    session.autocommit = True
    prod = session.cursor()
    users = value(prod, "SELECT count(*) FROM users")
    for _ in range(loops):
        count = attempt(host, prod, MIGRATION, moved)
        assert count == users, count
        error = attempt(host, prod, BROKEN, lambda cursor: "not refused")
        assert isinstance(error, psycopg2.errors.UniqueViolation), error
    assert value(prod, "SELECT to_regclass('addresses') IS NULL")
    assert value(prod, "SELECT count(address) FROM users") == users
    print(f"{loops} loops")


main(sys.argv[1], int(sys.argv[2]))
