//! `fork_diff_schema`, and the functions for people: `fork_blocks`, `fork_tree`.

use crate::diff::{blocks, schema};
use crate::remote::{call, Failure};
use pgrx::prelude::*;

/// The value, or the failure raised. Nothing of the caller's may be left to drop.
fn get<T>(result: Result<T, Failure>) -> T {
    match result {
        Ok(value) => value,
        Err(failure) => failure.raise(),
    }
}

/// `fork_diff_schema(fork name)`: the objects whose definitions are not as they were at the fork's cut.
///
/// Raises 3D000 (no such database), 42809 (not a fork), 42501 (no CONNECT), 55000 (invalid), 53400 (no
/// background worker is free), and what happens in the fork.
#[pg_extern(volatile, parallel_unsafe)]
fn fork_diff_schema_named(
    fork: &str,
) -> TableIterator<
    'static,
    (
        name!(object, String),
        name!(change, String),
        name!(before, Option<String>),
        name!(after, Option<String>),
    ),
> {
    let fork = call::fork_named(fork);
    let changes = get(schema::changes(&fork));
    TableIterator::new(changes.into_iter().map(|change| {
        let kind = change.kind().to_string();
        (change.object, kind, change.before, change.after)
    }))
}

/// `fork_blocks(fork name)`: the blocks of each relation, by where they are read from. Errors as above.
#[pg_extern(volatile, parallel_unsafe)]
fn fork_blocks_named(
    fork: &str,
) -> TableIterator<
    'static,
    (
        name!(schema, String),
        name!(relation, String),
        name!(fork, String),
        name!(total, i64),
        name!(inherited, i64),
        name!(private, i64),
        name!(preimages, i64),
    ),
> {
    let fork = call::fork_named(fork);
    let found = get(blocks::blocks(&fork));
    TableIterator::new(found.into_iter().map(|found| {
        let count = found.count;
        let [total, inherited, private, preimages] =
            [count.total, count.inherited, count.private, count.preimages].map(i64::from);
        let fork = found.fork.to_string();
        (
            found.schema,
            found.relation,
            fork,
            total,
            inherited,
            private,
            preimages,
        )
    }))
}

extension_sql!(
    r#"
CREATE FUNCTION fork_diff_schema(fork name)
    RETURNS TABLE (object text, change text, before text, after text)
    VOLATILE PARALLEL UNSAFE LANGUAGE sql
    AS 'SELECT * FROM @extschema@.fork_diff_schema_named(fork::pg_catalog.text)';
COMMENT ON FUNCTION fork_diff_schema(name) IS 'the objects whose definitions a fork changed';

CREATE FUNCTION fork_blocks(fork name)
    RETURNS TABLE (schema name, relation name, fork_number text, total bigint, inherited bigint, private bigint,
                   preimages bigint)
    VOLATILE PARALLEL UNSAFE LANGUAGE sql
    AS 'SELECT b.schema::pg_catalog.name, b.relation::pg_catalog.name, b.fork, b.total, b.inherited, b.private, b.preimages
        FROM @extschema@.fork_blocks_named($1::pg_catalog.text) b';
COMMENT ON FUNCTION fork_blocks(name) IS 'how much of each relation a fork has inherited, and how much is its own';

CREATE FUNCTION fork_tree() RETURNS TABLE (tree text, age interval, size text, sessions int)
    STABLE PARALLEL RESTRICTED LANGUAGE sql
BEGIN ATOMIC
    WITH RECURSIVE fork AS MATERIALIZED (
        SELECT f.*, d.datname FROM fork_list() f JOIN pg_database d ON d.oid = f.oid
    ), node AS (
        SELECT d.oid, d.datname::text AS tree, ARRAY[d.datname::text] AS path, NULL::interval AS age,
               NULL::text AS size, pg_stat_get_db_numbackends(d.oid) AS sessions
        FROM pg_database d
        WHERE d.oid IN (SELECT source FROM fork) AND d.oid NOT IN (SELECT oid FROM fork)
      UNION ALL
        SELECT f.oid, told.tree, n.path || f.datname::text,
               date_trunc('second', now() - f.cut_time), pg_size_pretty(f.private_bytes), f.sessions
        FROM node n JOIN fork f ON f.source = n.oid
        CROSS JOIN LATERAL (SELECT repeat('   ', cardinality(n.path) - 1) || '└─ ' || f.datname
                                   || CASE f.state WHEN 'ready' THEN '' ELSE ' (' || f.state || ')' END AS tree) told
    )
    SELECT tree, age, size, sessions FROM (
        SELECT tree, age, size, sessions, path FROM node
      UNION ALL -- one whose source is not known, as it is invalid since the start, stands by itself
        SELECT f.datname || ' (' || f.state || ')', date_trunc('second', now() - f.cut_time), pg_size_pretty(f.private_bytes),
               f.sessions, ARRAY[f.datname::text]
        FROM fork f WHERE NOT EXISTS (SELECT FROM node WHERE node.oid = f.oid)
    ) AS line ORDER BY path;
END;
COMMENT ON FUNCTION fork_tree() IS 'the forks of this server as a tree, for people';
"#,
    name = "diff_functions",
    requires = [fork_diff_schema_named, fork_blocks_named, "fork_views"]
);
