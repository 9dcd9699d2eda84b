//! Who only reads a fork leaves nothing to be written in it.

use pg_fork_tests::Cluster;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

const SETTINGS: &str =
    "autovacuum = off\nbgwriter_lru_maxpages = 0\ncheckpoint_timeout = 1h\nmax_parallel_workers_per_gather = 0";

/// A source whose rows bear no hint bits yet, some of them deleted, moved, locked or never committed.
fn server() -> Cluster {
    let cluster = Cluster::made(SETTINGS, &["-k"]);
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE TABLE t (id int PRIMARY KEY, v int, pad text); CHECKPOINT; \
         INSERT INTO t SELECT g, g % 10, repeat('x', 100) FROM generate_series(1, 20000) g",
    );
    for ended in ["COMMIT", "ROLLBACK"] {
        let range = if ended == "COMMIT" { 0 } else { 5 };
        cluster.script(
            "prod",
            &format!(
                "BEGIN; DELETE FROM t WHERE id % 50 = {range}; UPDATE t SET v = -v WHERE id % 50 = {range} + 1;\n\
                 SAVEPOINT a; UPDATE t SET v = 77 WHERE id % 50 = {range} + 2; ROLLBACK TO a;\n\
                 SAVEPOINT b; UPDATE t SET v = 78 WHERE id % 50 = {range} + 3; RELEASE b;\n\
                 INSERT INTO t SELECT 100000 + {range} + g, 1 FROM generate_series(1, 3) g;\n\
                 SELECT count(*) FROM (SELECT FROM t WHERE id % 50 = {range} + 4 FOR UPDATE) l; {ended};"
            ),
        );
    }
    cluster.sql("postgres", "CHECKPOINT");
    cluster
}

const LOOK: &str = "SELECT count(*), sum(v), sum(id::bigint * v) FROM t";

/// How many pages a query dirtied, and how many went to the WAL.
fn left_by(cluster: &Cluster, db: &str, query: &str) -> (u64, u64) {
    let mut client = cluster.client(db);
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, WAL, FORMAT YAML) {query}");
    let row = client.query_one(&explain, &[]).expect("explained");
    let text: String = row.get(0);
    let of = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        let number = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        number.trim().parse().expect("a number")
    };
    (of("Shared Dirtied Blocks:"), of("WAL Records:"))
}

fn own_blocks(cluster: &Cluster, fork: &str) -> String {
    let sql = format!(
        "SELECT coalesce(sum(private), 0) FROM fork_blocks('{fork}') WHERE relation = 't' AND fork_number = 'main'"
    );
    cluster.sql("prod", &sql)
}

#[test]
fn reading_dirties_nothing_and_copies_nothing() {
    let cluster = server();
    cluster.sql("prod", "CREATE EXTENSION IF NOT EXISTS pg_fork");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql("postgres", "SELECT fork_create('f', 'g')");
    for fork in ["f", "g"] {
        assert_eq!(left_by(&cluster, fork, LOOK), (0, 0), "{fork}");
        cluster.sql("postgres", "CHECKPOINT");
        assert_eq!(own_blocks(&cluster, fork), "0", "{fork}");
    }
    let seen = cluster.sql("f", LOOK);
    // The same query in the source has much to write.
    let (dirtied, records) = left_by(&cluster, "prod", LOOK);
    assert!(dirtied > 300 && records > 300, "{dirtied}, {records}");
    assert_eq!(cluster.sql("prod", LOOK), seen);
    assert_eq!(cluster.sql("g", LOOK), seen);
    // What was inherited is what the other visibility rules see, too.
    cluster.sql("f", "VACUUM (FREEZE) t");
    cluster.amcheck("f");
    assert_eq!(cluster.sql("f", LOOK), seen);
    let check = "SELECT * FROM fork_check('f') UNION ALL SELECT * FROM fork_check('g')";
    assert_eq!(cluster.sql("postgres", check), "");
}

#[test]
fn an_update_in_a_fork_finds_the_room_of_what_is_dead() {
    let cluster = Cluster::new(SETTINGS);
    cluster.sql("postgres", "CREATE DATABASE prod");
    // Full pages: without pruning there is no room on them.
    cluster.sql(
        "prod",
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, g FROM generate_series(1, 5000) g; \
         DELETE FROM t WHERE id % 10 = 0; CHECKPOINT",
    );
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let update = "BEGIN; UPDATE t SET v = -v WHERE id % 10 = 5; \
                  SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_xact_user_tables WHERE relname = 't'";
    let found = cluster.sql("f", update);
    assert_eq!(found, cluster.sql("prod", update));
    assert_ne!(found, "0|500");
}

#[test]
fn a_page_that_is_not_what_was_written_is_told_of() {
    let cluster = Cluster::made(SETTINGS, &["-k"]);
    cluster.sql("postgres", "CREATE DATABASE prod");
    let tables = "CREATE TABLE ended (v text); CREATE TABLE running (v text)";
    cluster.sql("prod", tables);
    let rows = |table: &str| {
        format!("INSERT INTO {table} SELECT repeat('x', 100) FROM generate_series(1, 5)")
    };
    cluster.sql("prod", &rows("ended"));
    let mut client = cluster.client("prod");
    let mut running = client.transaction().expect("begun");
    running.batch_execute(&rows("running")).expect("inserted");
    cluster.sql("postgres", "CHECKPOINT");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    for table in ["ended", "running"] {
        let path = cluster.sql("prod", &format!("SELECT pg_relation_filepath('{table}')"));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true);
        let file = file.open(format!("{}/{path}", cluster.data()));
        let file = file.expect("the table's file");
        // In the first row's text.
        file.write_all_at(b"y", 8190).expect("written");
        cluster.expect_error("f", &format!("SELECT count(*) FROM {table}"), "XX001");
    }
    running.rollback().expect("rolled back");
}
