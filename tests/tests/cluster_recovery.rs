//! What a fork's WAL does to standbys, and what a start of the server makes of what is on disk.

use pg_fork_tests::{sums, Cluster};
use std::fs;

#[test]
fn a_standby_skips_forks_and_takes_over_whole() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "1", "prod"]);
    let standby = cluster.standby("");
    let error = cluster.expect_error("postgres", "SELECT fork_create('prod', 'f')", "55000");
    assert!(error.contains("standbys_ready"), "{error}");
    cluster.sql(
        "postgres",
        "ALTER SYSTEM SET pg_fork.standbys_ready = on; SELECT pg_reload_conf()",
    );
    // Pages changed since the last checkpoint: the fork's first change to them has no full image.
    cluster.sql("prod", "UPDATE pgbench_accounts SET abalance = abalance");
    while cluster.sql("postgres", "SHOW pg_fork.standbys_ready") != "on" {}
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql(
        "f",
        "UPDATE pgbench_accounts SET abalance = 7 WHERE aid % 50 = 0; VACUUM pgbench_accounts",
    );
    cluster.sql("f", "VACUUM FULL pg_class; CREATE TABLE new (v int); DROP TABLE pgbench_tellers; TRUNCATE pgbench_history");
    cluster.must("pgbench", &["-n", "-c", "2", "-t", "100", "prod"]);
    cluster.sql(
        "postgres",
        "SELECT fork_create('f', 'g'); SELECT fork_drop('g'); CHECKPOINT",
    );
    let expected = sums(&cluster, "prod");
    let lsn = cluster.sql("postgres", "SELECT pg_current_wal_lsn()");
    let behind = format!("SELECT pg_last_wal_replay_lsn() < '{lsn}'");
    while standby.sql("postgres", &behind) == "t" {}
    assert_eq!(sums(&standby, "prod"), expected);
    // A restartpoint, and then the checkpoint after promotion, write out what the buffer pool has.
    standby.sql("postgres", "CHECKPOINT");
    cluster.stop("fast");
    standby.sql("postgres", "SELECT pg_promote()");
    standby.sql("postgres", "CHECKPOINT");
    assert_eq!(sums(&standby, "prod"), expected);
    standby.amcheck("prod");
    standby.must("pgbench", &["-n", "-c", "2", "-t", "100", "prod"]);
    sums(&standby, "prod");
    let rows = "SELECT count(*) FROM pg_database WHERE datname IN ('f', 'g')";
    while standby.sql("postgres", rows) != "0" {}
    standby.sql("postgres", "CHECKPOINT; SELECT fork_create('prod', 'f')");
    sums(&standby, "f");
}

#[test]
fn a_lower_limit_of_forks_loses_none() {
    let cluster = Cluster::new("pg_fork.max_forks = 20");
    cluster.sql("postgres", "CREATE DATABASE prod; CREATE TABLE t (v int)");
    for n in 0..8 {
        cluster.sql("postgres", &format!("SELECT fork_create('prod', 'f{n}')"));
        cluster.sql(&format!("f{n}"), "CREATE TABLE mine AS SELECT 1 AS v");
    }
    cluster.sql("postgres", "ALTER SYSTEM SET pg_fork.max_forks = 1");
    cluster.stop("immediate");
    cluster.start();
    for n in 0..8 {
        assert_eq!(cluster.sql(&format!("f{n}"), "SELECT v FROM mine"), "1");
    }
    cluster.expect_error("postgres", "SELECT fork_create('prod')", "53400");
}

#[test]
fn a_damaged_meta_file_costs_that_fork_only() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql("prod", "CREATE TABLE t AS SELECT 1 AS v");
    cluster.sql(
        "postgres",
        "SELECT fork_create('prod', 'f'); SELECT fork_create('prod', 'g')",
    );
    cluster.sql("f", "UPDATE t SET v = 2");
    let oid = cluster.sql("postgres", "SELECT oid FROM pg_forks WHERE name = 'f'");
    let meta = format!("{}/pgsql_tmp_pg_fork/{oid}/pgsql_tmp_meta", cluster.data());
    cluster.stop("immediate");
    let mut bytes = fs::read(&meta).expect("the file");
    bytes[20] ^= 1;
    fs::write(&meta, bytes).expect("written");
    cluster.start();
    assert_eq!(cluster.sql("prod", "SELECT v FROM t"), "1");
    assert_eq!(cluster.sql("g", "SELECT v FROM t"), "1");
    assert!(cluster.error("f", "SELECT v FROM t").contains("invalid"));
    let state = "SELECT state, reason LIKE '%meta%' FROM pg_forks WHERE name = 'f'";
    assert_eq!(cluster.sql("postgres", state), "invalid|t");
    cluster.sql("postgres", "SELECT fork_drop('f')");
}

#[test]
fn what_was_dropped_before_a_crash_stays_in_forks() {
    // Few buffers: replay's pages are written out while it goes on, by the background writer too.
    let cluster = Cluster::new("shared_buffers = 512kB\nbgwriter_delay = 10ms");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE TABLE a AS SELECT i AS id FROM generate_series(1, 5000) i; CREATE TABLE b AS SELECT * FROM a; \
         CREATE TABLE c AS SELECT * FROM a; CREATE SEQUENCE s START 5",
    );
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql("f", "UPDATE c SET id = id + 1");
    cluster.sql("postgres", "SELECT fork_create('f', 'g'); CHECKPOINT");
    // Replay meets changes of relations that are the layers' by now: a in prod, b and c in the fork.
    for db in ["prod", "f"] {
        cluster.sql(
            db,
            "DELETE FROM a WHERE id > 4990; DELETE FROM b WHERE id < 10; DELETE FROM c WHERE id < 20; SELECT nextval('s')",
        );
    }
    for db in ["prod", "f"] {
        let much = "CREATE TABLE d AS SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i";
        cluster.sql(db, much);
    }
    cluster.sql("prod", "DROP TABLE a; DROP SEQUENCE s");
    cluster.sql("f", "TRUNCATE b; DROP TABLE c");
    for _ in 0..2 {
        cluster.stop("immediate");
        cluster.start();
        let look = |table: &str| format!("SELECT count(*), sum(id) FROM {table}");
        assert_eq!(cluster.sql("f", &look("a")), "4990|12452545");
        assert_eq!(cluster.sql("f", &look("b")), "0|");
        assert_eq!(cluster.sql("g", &look("a")), "5000|12502500");
        assert_eq!(cluster.sql("g", &look("b")), "5000|12502500");
        assert_eq!(cluster.sql("g", &look("c")), "5000|12507500");
        assert_eq!(cluster.sql("g", "SELECT last_value FROM s"), "5");
    }
}

#[test]
fn a_crash_before_a_dropped_file_was_handed_over_loses_nothing() {
    let cluster = Cluster::new("bgwriter_delay = 10ms");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE TABLE a AS SELECT i AS id FROM generate_series(1, 5000) i; CHECKPOINT",
    );
    let file = cluster.sql("prod", "SELECT pg_relation_filepath('a')");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql(
        "prod",
        "DELETE FROM a WHERE id % 2 = 0; CREATE TABLE d AS SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i; \
         DROP TABLE a",
    );
    // Nothing of this was written out yet; replay has fewer buffers, and must.
    cluster.sql("postgres", "ALTER SYSTEM SET shared_buffers = '512kB'");
    cluster.stop("immediate");
    // As if the crash had come after the layer noted the hand-over, before the rename.
    let number = file.rsplit('/').next().expect("a number");
    let folders = fs::read_dir(format!("{}/pgsql_tmp_pg_fork", cluster.data())).expect("a folder");
    let handed = folders
        .flatten()
        .map(|folder| folder.path().join(format!("{number}.1073741824")))
        .find(|path| path.exists())
        .expect("it was handed over");
    fs::rename(handed, format!("{}/{file}", cluster.data())).expect("it moves back");
    cluster.start();
    assert_eq!(
        cluster.sql("f", "SELECT count(*), sum(id) FROM a"),
        "5000|12502500"
    );
}

/// A checkpoint between the commit of a DROP TABLE and the hand-over: replay begins after the commit, and
/// nobody goes on with what the crash cut short. Needs a library built with the feature `stop_points`.
#[test]
fn a_hand_over_that_nobody_goes_on_with_hides_nothing() {
    let cluster = Cluster::new("autovacuum = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE TABLE a AS SELECT g AS id, 0 AS v FROM generate_series(1, 5000) g",
    );
    // All hint bits are there: else forks that read it have their own pages.
    cluster.sql("prod", "VACUUM FREEZE a");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql(
        "f",
        "UPDATE a SET v = 1 WHERE id < 50; CREATE TABLE b AS TABLE a",
    );
    cluster.sql("f", "VACUUM FREEZE");
    cluster.sql("postgres", "SELECT fork_create('f', 'g'); CHECKPOINT");
    let look = "SELECT count(*), sum(id), sum(v) FROM a";
    let seen = ["f", "g"].map(|db| cluster.sql(db, look));
    for (db, drop) in [("prod", "DROP TABLE a"), ("f", "DROP TABLE a, b")] {
        let mut session = cluster.client(db);
        let dropping = std::thread::spawn(move || {
            session
                .batch_execute("SET pg_fork.stop_point = 'unlink-state:wait'")
                .unwrap();
            // The server goes down before it answers.
            session.batch_execute(drop).unwrap_err();
        });
        // Visible means committed; then it waits.
        let begun = std::time::Instant::now();
        while cluster.sql(db, "SELECT count(*) FROM pg_class WHERE relname = 'a'") != "0" {
            assert!(begun.elapsed().as_secs() < 20, "no commit");
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        cluster.sql("postgres", "CHECKPOINT");
        cluster.stop("immediate");
        dropping.join().unwrap();
        cluster.start();
        let folders = fs::read_dir(format!("{}/pgsql_tmp_pg_fork", cluster.data())).unwrap();
        let handed = folders
            .flatten()
            .filter_map(|folder| fs::read_dir(folder.path()).ok())
            .flat_map(|files| files.flatten())
            .find(|file| file.file_name().to_string_lossy().ends_with(".1073741824"));
        assert!(handed.is_none(), "it was handed over after all: {handed:?}");
        if db == "prod" {
            assert_eq!(cluster.sql("f", look), seen[0]);
        }
        assert_eq!(cluster.sql("g", look), seen[1]);
        assert_eq!(
            cluster.sql("g", "SELECT sum(v) FROM b"),
            "49",
            "made in the fork"
        );
        for fork in ["f", "g"] {
            let problems = format!("SELECT count(*) FROM fork_check('{fork}')");
            assert_eq!(cluster.sql("postgres", &problems), "0", "{fork}");
            cluster.amcheck(fork);
        }
    }
    cluster.amcheck("prod");
}

/// Replay writes to free space maps whatever the page says (freespace.c, `XLogRecordPageWithFreeSpace`), for
/// good where there are no checksums; those of a fork that is gone must not keep the checkpoint at the end
/// of recovery from writing them out.
#[test]
fn pages_pruned_in_a_fork_that_is_gone_do_not_keep_the_server_down() {
    for initdb in [&[][..], &["-k"]] {
        let settings = "shared_preload_libraries = 'pg_fork'\nautovacuum = off";
        let cluster = Cluster::bare(settings, initdb);
        cluster.sql("postgres", "CREATE EXTENSION pg_fork; CREATE DATABASE prod");
        cluster.sql(
            "prod",
            "CREATE TABLE t WITH (fillfactor = 40) AS SELECT g AS id, repeat('x', 100) AS v FROM generate_series(1, 5000) g",
        );
        cluster.sql("prod", "VACUUM t");
        cluster.sql("postgres", "SELECT fork_create('prod', 'f'); CHECKPOINT");
        // Each prunes what the one before has left.
        for _ in 0..6 {
            cluster.sql("f", "UPDATE t SET id = id WHERE id < 3000");
        }
        cluster.sql("f", "VACUUM t");
        cluster.sql("f", "DELETE FROM t WHERE id > 4000");
        cluster.sql("f", "VACUUM t");
        cluster.sql("postgres", "SELECT fork_drop('f')");
        cluster.sql("prod", "INSERT INTO t VALUES (0, '')");
        cluster.stop("immediate");
        cluster.start();
        assert_eq!(cluster.sql("prod", "SELECT count(*) FROM t"), "5001");
        cluster.sql("postgres", "CHECKPOINT");
    }
}

/// A stock server does not start after this in a plain database ("could not create file": reinit.c); what
/// somebody tries in a fork must not do that to prod.
#[test]
fn an_unlogged_table_that_was_rolled_back_does_not_keep_the_server_down() {
    let cluster = Cluster::new("wal_writer_delay = 10s\nbgwriter_delay = 10s\nautovacuum = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql("prod", "CREATE TABLE t (a int)");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f'); CHECKPOINT");
    let mut session = cluster.client("f");
    session
        .batch_execute("BEGIN; CREATE UNLOGGED TABLE u (a int PRIMARY KEY); CREATE TABLE p (a int)")
        .unwrap();
    // What is in the WAL so far gets to disk; the rollback does not.
    cluster.sql("prod", "INSERT INTO t VALUES (1)");
    session.batch_execute("ROLLBACK").unwrap();
    cluster.stop("immediate");
    cluster.start();
    assert_eq!(cluster.sql("prod", "SELECT count(*) FROM t"), "1");
    cluster.sql(
        "f",
        "CREATE UNLOGGED TABLE u (a int PRIMARY KEY); INSERT INTO u VALUES (1)",
    );
    cluster.amcheck("f");
}
