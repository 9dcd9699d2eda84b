//! An agent's loop as agents write it: other languages' drivers against a server under load.

use pg_fork_tests::{sums, Cluster};
use std::process::Command;

/// Twenty loops of the program, each with a migration that works and one that does not, while others
/// write.
fn agent_loop(interpreter: &str, program: &str) {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "1", "prod"]);
    cluster.sql(
        "prod",
        "CREATE EXTENSION pg_fork; CREATE TABLE users (id int PRIMARY KEY, name text, address text); \
         INSERT INTO users SELECT i, 'user ' || i % 999, 'street ' || i FROM generate_series(1, 1000) i",
    );
    let users = "SELECT md5(string_agg(u::text, ',' ORDER BY id)) FROM users u";
    let before = cluster.sql("prod", users);
    // Ended below: it outlasts the loops however long they take.
    let mut load = cluster.client("prod");
    let writers = cluster.spawn(
        "pgbench",
        &["-n", "-c", "2", "-R", "300", "-T", "600", "prod"],
    );
    let written = || cluster.sql("prod", "SELECT count(*) FROM pgbench_history");
    let at_first = written();
    let path = format!("{}/clients/{program}", env!("CARGO_MANIFEST_DIR"));
    let host = cluster.data().trim_end_matches("/data").to_string();
    let out = Command::new(interpreter)
        .args([&path, &host, "20"])
        .output();
    let out = out.unwrap_or_else(|error| panic!("{interpreter}: {error}"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success() && text.trim() == "20 loops",
        "{text}{}\n{}",
        String::from_utf8_lossy(&out.stderr),
        cluster.log_tail()
    );
    assert_ne!(written(), at_first);
    load.batch_execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'",
    )
    .expect("ended");
    // Nothing but the end made them stop.
    let report = writers.wait_with_output().expect("pgbench ends");
    let report = String::from_utf8_lossy(&report.stderr).into_owned();
    assert!(!report.contains("ERROR"), "{report}");
    sums(&cluster, "prod");
    assert_eq!(cluster.sql("prod", users), before);
    let left = "SELECT count(*) FROM pg_forks";
    assert_eq!(cluster.sql("prod", left), "0");
    cluster.wait_for_folders(0);
    cluster.amcheck("prod");
}

#[test]
fn by_psycopg() {
    agent_loop("/usr/bin/python3", "agent_loop.py");
}

#[test]
fn by_node_postgres() {
    agent_loop("/usr/bin/node", "agent_loop.mjs");
}
