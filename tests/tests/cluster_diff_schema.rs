//! `fork_diff_schema`, and the worker that looks into the fork and its base for it.

use pg_fork_tests::Cluster;
use postgres::error::SqlState;
use std::time::{Duration, Instant};

#[path = "diff_schema/changes.rs"]
mod changes;
use changes::{CHANGES, SET_UP};

const DIFF: &str =
    "SELECT string_agg(translate(left(change, 1), 'cda', '+-~') || object, ', ' ORDER BY object)
     FROM fork_diff_schema('f')";

fn sorted(list: &str) -> Vec<&str> {
    let mut items: Vec<_> = list.split(", ").filter(|item| !item.is_empty()).collect();
    items.sort();
    items
}

fn with_prod(settings: &str) -> Cluster {
    let cluster = Cluster::new(settings);
    cluster.sql("postgres", "CREATE DATABASE prod");
    let made = cluster.script("prod", SET_UP);
    assert!(made.stderr.is_empty(), "{made:?}");
    cluster
}

#[test]
fn each_change_has_its_rows_and_no_others() {
    let cluster = with_prod("");
    cluster.sql("prod", "CREATE EXTENSION pg_fork");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let mut inside = cluster.client("f");
    let mut wrong = Vec::new();
    for (n, (statement, expected)) in CHANGES.iter().enumerate() {
        let alone = ["VACUUM", "REINDEX", "TEMP"]
            .iter()
            .any(|it| statement.contains(it));
        // Most of them in a transaction, some from elsewhere, once they have committed.
        let found = if alone || n % 8 == 0 {
            cluster.sql("postgres", "SELECT fork_create('prod', 'g')");
            cluster.sql("g", &statement.replace("SYSTEM f", "SYSTEM g"));
            let found = cluster.sql("postgres", &DIFF.replace("'f'", "'g'"));
            cluster.sql("postgres", "SELECT fork_drop('g')");
            found
        } else {
            let begin = format!("BEGIN; {statement}");
            let row = inside.batch_execute(&begin);
            let row = row.and_then(|()| inside.query_one(DIFF, &[]));
            inside.batch_execute("ROLLBACK").expect("rolled back");
            match row {
                Ok(row) => row.get::<_, Option<String>>(0).unwrap_or_default(),
                Err(error) => format!("{error:?}"),
            }
        };
        if sorted(&found) != sorted(expected) {
            wrong.push(format!("{statement}: {found}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn texts_are_as_they_print_and_the_source_may_move_on() {
    let cluster = with_prod("");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    assert_eq!(
        cluster.sql("postgres", "SELECT * FROM fork_diff_schema('f')"),
        ""
    );
    // What the source does after the cut is no change of the fork's.
    cluster.sql(
        "prod",
        "ALTER TABLE t ADD later int; DROP TABLE gone; CREATE TABLE later (a int)",
    );
    assert_eq!(
        cluster.sql("postgres", "SELECT * FROM fork_diff_schema('f')"),
        ""
    );
    cluster.sql("f", "ALTER TABLE t ALTER name SET DEFAULT 'y'");
    let row = "table column public.t.name|altered|name text NOT NULL DEFAULT 'x'::text|name text NOT NULL DEFAULT 'y'::text";
    // From a database of its own, from the source, from the fork: wherever the extension is.
    assert_eq!(
        cluster.sql("postgres", "SELECT * FROM fork_diff_schema('f')"),
        row
    );
    cluster.sql("f", "CREATE EXTENSION pg_fork");
    let inside = cluster.sql("f", "SELECT * FROM fork_diff_schema('f')");
    assert!(
        inside.contains(row) && inside.contains("extension pg_fork|created|"),
        "{inside}"
    );
    // A fork of a fork is compared with the fork it was cut from.
    cluster.sql("postgres", "SELECT fork_create('f', 'g')");
    assert_eq!(
        cluster.sql("postgres", "SELECT * FROM fork_diff_schema('g')"),
        ""
    );
    cluster.sql("g", "DROP VIEW v");
    let diff = cluster.sql(
        "postgres",
        "SELECT object, change, after IS NULL FROM fork_diff_schema('g')",
    );
    assert_eq!(diff, "view public.v|dropped|t");
    // No worker and no memory is left, and the forks go.
    let left = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_fork reader'";
    assert_eq!(cluster.sql("postgres", left), "0");
    cluster.sql(
        "postgres",
        "SELECT fork_drop('g', false); SELECT fork_drop('f', false)",
    );
    cluster.wait_for_folders(0);
}

#[test]
fn an_ordinary_role_sees_what_a_login_sees() {
    let cluster = with_prod("");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql("f", "CREATE TABLE secret (a int)");
    let diff = "SELECT count(*) FROM fork_diff_schema('f')";
    let as_role = |role: &str, sql: &str| cluster.client_as(role, "postgres").query_one(sql, &[]);
    let count: i64 = as_role("someone", diff).expect("rows").get(0);
    assert_eq!(count, 2);
    // A role that may not log in, by SET ROLE.
    assert_eq!(
        cluster.sql("postgres", &format!("SET ROLE nobody_in; {diff}")),
        "2"
    );
    cluster.sql("postgres", "REVOKE CONNECT ON DATABASE f FROM PUBLIC");
    let error = as_role("someone", diff).expect_err("no rights");
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    cluster.sql("postgres", "GRANT CONNECT ON DATABASE f TO someone");
    let count: i64 = as_role("someone", diff).expect("rows").get(0);
    assert_eq!(count, 2);
    let refused = cluster.error("postgres", &format!("SET ROLE nobody_in; {diff}"));
    assert!(refused.contains("42501"), "{refused}");
    cluster.expect_error(
        "postgres",
        "SELECT * FROM fork_diff_schema('prod')",
        "42809",
    );
    cluster.expect_error(
        "postgres",
        "SELECT * FROM fork_diff_schema('nothing')",
        "3D000",
    );
    cluster.expect_error(
        "postgres",
        "BEGIN; SELECT fork_create('prod', 'h'); SELECT * FROM fork_diff_schema('h')",
        "55000",
    );
}

/// A worker that waits for a lock in the fork, with a session that waits for it.
fn held_up(cluster: &Cluster) -> (postgres::Client, std::process::Child, String) {
    let mut holder = cluster.client("f");
    holder
        .batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        .expect("locked");
    let waiting = cluster.spawn(
        "psql",
        &[
            "-XAtq",
            "-v",
            "VERBOSITY=verbose",
            "-d",
            "postgres",
            "-c",
            "SELECT count(*) FROM fork_diff_schema('f')",
        ],
    );
    let find = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_fork reader' AND wait_event_type = 'Lock'";
    let begun = Instant::now();
    let pid = loop {
        let pid = cluster.sql("postgres", find);
        if !pid.is_empty() {
            break pid;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "no worker waits");
    };
    (holder, waiting, pid)
}

fn no_worker_is_left(cluster: &Cluster) {
    let left = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_fork reader'";
    let begun = Instant::now();
    while cluster.sql("postgres", left) != "0" {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "a worker is left"
        );
    }
}

#[test]
fn however_a_call_ends_its_worker_ends() {
    let cluster = with_prod("");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let callers = "FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM fork_diff_schema%' AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    for (end, says) in [
        (format!("SELECT pg_cancel_backend(pid) {callers}"), "57014"),
        (format!("SELECT pg_terminate_backend(pid) {callers}"), "57P01"),
        ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_fork reader'".to_string(), "57000"),
        ("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_fork reader'".to_string(), "57014"),
    ] {
        let (holder, waiting, _) = held_up(&cluster);
        cluster.sql("postgres", &end);
        let out = waiting.wait_with_output().expect("psql ends");
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(error.contains(says), "{end}: {error}");
        if end.contains("reader") {
            assert!(error.contains("in database \"f\""), "{error}");
        }
        no_worker_is_left(&cluster);
        drop(holder);
    }
    assert_eq!(
        cluster.sql("postgres", "SELECT count(*) FROM fork_diff_schema('f')"),
        "0"
    );
    // fork_drop: refused without force, else it ends the worker.
    let (holder, waiting, _) = held_up(&cluster);
    drop(holder);
    let _ = waiting.wait_with_output();
    let (holder, waiting, _) = held_up(&cluster);
    cluster.expect_error("postgres", "SELECT fork_drop('f', false)", "55006");
    assert_eq!(cluster.sql("postgres", "SELECT fork_drop('f')"), "t");
    let out = waiting.wait_with_output().expect("psql ends");
    assert!(!out.status.success(), "{out:?}");
    drop(holder);
    no_worker_is_left(&cluster);
    cluster.wait_for_folders(0);
}

#[test]
fn roles_and_databases_may_change_meanwhile() {
    let cluster = with_prod("");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let pid = cluster.pid();
    let until = Instant::now() + Duration::from_secs(8);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = cluster.client("postgres");
            while Instant::now() < until {
                client
                    .batch_execute(
                        "REVOKE nobody_in FROM someone; GRANT nobody_in TO someone;
                         ALTER DATABASE f CONNECTION LIMIT 90; ALTER ROLE someone CREATEDB;
                         CREATE TABLE other (a int); DROP TABLE other; VACUUM pg_class, pg_authid, pg_database",
                    )
                    .or_else(|_| client.batch_execute("VACUUM FULL pg_auth_members"))
                    .expect("changed");
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = cluster.client_as("someone", "postgres");
                while Instant::now() < until {
                    let row = client.query_one("SELECT count(*) FROM fork_diff_schema('f')", &[]);
                    assert_eq!(row.expect("a row").get::<_, i64>(0), 0);
                }
            });
        }
    });
    assert!(pid == cluster.pid() && !cluster.log().contains("PANIC"));
    assert!(!cluster.log().contains("you don't own a lock"));
}

#[test]
fn errors_in_a_block_leave_nothing_behind() {
    let cluster = with_prod("max_worker_processes = 4");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    // More errors in one transaction than there are workers: each gives its worker back.
    let script = "
        DO $$ BEGIN
            SET LOCAL statement_timeout = 0;
            FOR n IN 1..20 LOOP
                BEGIN
                    PERFORM 1 / (count(*) - count(*)) FROM fork_diff_schema('f');
                EXCEPTION WHEN division_by_zero THEN NULL;
                END;
            END LOOP;
        END $$;
        SELECT count(*) FROM fork_diff_schema('f');";
    let out = cluster.script("postgres", script);
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "0", "{out:?}");
}

#[test]
fn without_a_free_worker_it_says_so() {
    let cluster = with_prod("max_worker_processes = 2");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql("postgres", "SELECT fork_create('prod', 'other')");
    // pg_fork's own worker and the launcher of logical replication take both.
    let error = cluster.expect_error("postgres", "SELECT * FROM fork_diff_schema('f')", "53400");
    assert!(error.contains("max_worker_processes"), "{error}");
}

#[test]
fn blocks_and_the_tree_tell_what_a_fork_has_of_its_own() {
    let cluster = with_prod("autovacuum = off");
    cluster.sql("prod", "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 700) n; VACUUM t; CHECKPOINT");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let blocks = "SELECT total, inherited, private, preimages FROM fork_blocks('f') WHERE relation = 't' AND fork_number = 'main'";
    assert_eq!(cluster.sql("postgres", blocks), "100|100|0|0");
    // Seven rows a page; the new version of the row goes to a new page.
    cluster.sql("f", "UPDATE t SET name = 'y' WHERE id = 1; CHECKPOINT");
    cluster.sql(
        "prod",
        "UPDATE t SET name = 'y' WHERE id IN (1, 100, 200); CHECKPOINT",
    );
    let counts = cluster.sql("postgres", blocks);
    let [total, inherited, private, preimages] = counts
        .split('|')
        .map(|n| n.parse::<i64>().expect("a number"))
        .collect::<Vec<_>>()[..]
    else {
        panic!("{counts}")
    };
    assert_eq!(total, inherited + private, "{counts}");
    assert!(
        (1..=3).contains(&private) && (2..=5).contains(&preimages),
        "{counts}"
    );
    cluster.sql("f", "CREATE TABLE mine AS SELECT 1; CHECKPOINT");
    let mine = blocks.replace("'t'", "'mine'");
    assert_eq!(cluster.sql("postgres", &mine), "1|0|1|0");
    cluster.sql(
        "postgres",
        "SELECT fork_create('f', 'g'); SELECT fork_create('prod', 'e')",
    );
    let tree = cluster.sql("postgres", "SELECT tree FROM fork_tree()");
    assert_eq!(tree, "prod\n└─ e\n└─ f\n   └─ g");
}
