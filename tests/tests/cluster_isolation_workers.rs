//! Background workers of other extensions do not work in forks, and go on working elsewhere.

use pg_fork_tests::attach::{fails, get, prod};
use pg_fork_tests::Cluster;
use std::time::Duration;

/// pg_prewarm's leader starts a worker in each database whose pages were cached at the last stop.
const PREWARM: &str =
    "shared_preload_libraries = 'pg_prewarm, pg_fork'\npg_prewarm.autoprewarm_interval = 0\n\
                       log_line_prefix = '%b: '";

fn restart_until(cluster: &Cluster, done: impl Fn(&str) -> bool) -> String {
    let before = cluster.log().len();
    cluster.stop("fast");
    cluster.start();
    let said = (0..200).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let log = cluster.log()[before..].to_string();
        done(&log).then_some(log)
    });
    said.unwrap_or_else(|| panic!("{}", cluster.log_tail()))
}

#[test]
fn a_worker_ends_in_a_fork_and_others_go_on() {
    let cluster = prod(PREWARM);
    let mut client = cluster.client("prod");
    let extension = "CREATE EXTENSION pg_prewarm";
    client.batch_execute(extension).expect("made");
    get(&mut client, "SELECT fork_create('prod', 'f')");
    drop(client);
    for database in ["prod", "f"] {
        cluster.sql(database, "SELECT count(*) FROM users");
        cluster.sql(database, "SELECT pg_prewarm('users')");
    }
    cluster.sql("prod", "SELECT autoprewarm_dump_now()");
    let refusal = "does not work in fork \"f\"";
    let summary = |log: &str| log.contains("autoprewarm successfully prewarmed");
    let log = restart_until(&cluster, summary);
    let refusals: Vec<&str> = log.lines().filter(|line| line.contains(refusal)).collect();
    assert_eq!(refusals.len(), 1, "{log}");
    assert!(refusals[0].contains("autoprewarm"), "{log}");
    assert!(log.contains("of library pg_prewarm"), "{log}");
    assert!(log.contains("pg_fork.background_workers = on"), "{log}");
    // In the source it did its work, and in the fork it did not.
    let cached = |database: &str| {
        cluster.sql(database, "CREATE EXTENSION IF NOT EXISTS pg_buffercache");
        cluster.sql(
            database,
            "SELECT count(*) > 0 FROM pg_buffercache b WHERE b.relfilenode = pg_relation_filenode('users')
             AND b.reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
    };
    assert_eq!(cached("prod"), "t");
    assert_eq!(cached("f"), "f");
    // Parallel workers are the server's own.
    let plan = cluster.sql(
        "f",
        "SET force_parallel_mode = on; SET parallel_setup_cost = 0; EXPLAIN ANALYZE SELECT count(*) FROM users",
    );
    assert!(plan.contains("Workers Launched: 1"), "{plan}");

    // A superuser allows it.
    cluster.sql(
        "postgres",
        "ALTER DATABASE f SET pg_fork.background_workers = on",
    );
    cluster.sql("f", "SELECT pg_prewarm('users')");
    cluster.sql("prod", "SELECT autoprewarm_dump_now()");
    let log = restart_until(&cluster, summary);
    assert!(!log.contains(refusal), "{log}");
    assert_eq!(cached("f"), "t");
}

#[test]
fn only_a_superuser_lets_workers_in() {
    let cluster = prod("");
    cluster.sql("prod", "CREATE ROLE guest LOGIN");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    cluster.sql("prod", "ALTER DATABASE f OWNER TO guest");
    let mut guest = cluster.client_as("guest", "f");
    for sql in [
        "SET pg_fork.background_workers = on",
        "ALTER DATABASE f SET pg_fork.background_workers = on",
    ] {
        assert_eq!(fails(&mut guest, sql).0, "42501");
    }
}
