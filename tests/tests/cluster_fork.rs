//! Forks of a live database: what is in them, and what is not.

use pg_fork_tests::{sums, Cluster};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn forks_taken_under_load_are_consistent_then_and_later() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "2", "prod"]);
    let load = cluster.spawn("pgbench", &["-n", "-c", "8", "-j", "2", "-T", "15", "prod"]);
    let mut forks = Vec::new();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(300));
        let name = cluster.sql("postgres", "SELECT fork_create('prod')");
        let seen = sums(&cluster, &name);
        forks.push((name, seen));
    }
    let out = load.wait_with_output().expect("pgbench ends");
    let report =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success() && report.contains("failed transactions: 0 "),
        "{report}"
    );
    cluster.sql("prod", "CHECKPOINT");
    for (name, seen) in &forks {
        assert_eq!(&sums(&cluster, name), seen, "{name}");
        cluster.amcheck(name);
        assert_eq!(&sums(&cluster, name), seen, "{name}");
    }
    cluster.amcheck("prod");
    assert_eq!(
        cluster.sql(
            "postgres",
            "SELECT count(*) FROM pg_forks WHERE state = 'ready'"
        ),
        "20"
    );
    assert_ne!(
        cluster.sql(
            "postgres",
            "SELECT value > 0 FROM pg_fork_stats WHERE name = 'preimages_written'"
        ),
        "f"
    );
}

#[test]
fn what_was_in_flight_at_the_cut_stays_out_for_ever() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) i; \
         CREATE TABLE many (id int)",
    );
    // More subtransactions than a backend's cache holds.
    let script = "BEGIN; UPDATE t SET v = 1 WHERE id <= 10; DELETE FROM t WHERE id BETWEEN 11 AND 20; \
                  INSERT INTO t VALUES (101, 1); SELECT count(*) FROM (SELECT 1 FROM t WHERE id = 30 FOR UPDATE) x; \
                  SELECT count(*) FROM (SELECT 1 FROM t WHERE id = 40 FOR SHARE) x; \
                  DO $$ BEGIN FOR i IN 1..100 LOOP BEGIN INSERT INTO many VALUES (i); \
                  EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$; SELECT pg_sleep(4); COMMIT;";
    let writer = cluster.spawn("psql", &["-Xq", "-d", "prod", "-c", script]);
    let sharer = cluster.spawn(
        "psql",
        &["-Xq", "-d", "prod", "-c", "BEGIN; SELECT count(*) FROM (SELECT 1 FROM t WHERE id = 40 FOR SHARE) x; SELECT pg_sleep(4); COMMIT;"],
    );
    cluster.sql(
        "prod",
        "BEGIN; UPDATE t SET v = 2 WHERE id = 50; PREPARE TRANSACTION 'p'",
    );
    std::thread::sleep(Duration::from_millis(1500));
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let untouched = "100|0|0";
    let look = "SELECT count(*), sum(v), (SELECT count(*) FROM many) FROM t";
    assert_eq!(cluster.sql("f", look), untouched);
    assert!(writer.wait_with_output().expect("ends").status.success());
    assert!(sharer.wait_with_output().expect("ends").status.success());
    cluster.sql("prod", "COMMIT PREPARED 'p'");
    cluster.sql("prod", "VACUUM; CHECKPOINT");
    assert_eq!(cluster.sql("prod", look), "91|13|100");
    assert_eq!(cluster.sql("f", look), untouched);
    cluster.sql(
        "f",
        "SET lock_timeout = '1s'; UPDATE t SET v = 5; DELETE FROM t WHERE id = 40; VACUUM FREEZE t",
    );
    assert_eq!(cluster.sql("f", look), "99|495|0");
    cluster.amcheck("f");
}

#[test]
fn ddl_in_either_place_stays_there() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE TABLE a AS SELECT i AS id, repeat('x', 3000) || i AS v FROM generate_series(1, 500) i; \
         CREATE INDEX ON a (id); CREATE TABLE b AS SELECT * FROM a; CREATE TABLE c AS SELECT * FROM a; \
         CREATE UNLOGGED TABLE u AS SELECT * FROM a; SELECT lo_from_bytea(0, 'hello'); VACUUM a",
    );
    let hash = "SELECT (SELECT md5(string_agg(a::text, ',' ORDER BY id)) FROM a), \
                (SELECT md5(string_agg(b::text, ',' ORDER BY id)) FROM b), \
                (SELECT md5(string_agg(c::text, ',' ORDER BY id)) FROM c), \
                (SELECT md5(string_agg(u::text, ',' ORDER BY id)) FROM u), \
                (SELECT string_agg(encode(data, 'escape'), '') FROM pg_largeobject)";
    let before = cluster.sql("prod", hash);
    let sizes = "SELECT pg_relation_size('a'), pg_total_relation_size('a'), pg_table_size('u'), pg_indexes_size('a')";
    let sizes_before = cluster.sql("prod", sizes);
    cluster.sql("postgres", "SELECT fork_create('prod', 'f1')");
    assert_eq!(cluster.sql("f1", sizes), sizes_before);
    let compiled = format!("SET jit_above_cost = 0; {sizes}");
    assert_eq!(cluster.sql("f1", &compiled), sizes_before);
    let bytes = |db: &str| {
        cluster
            .sql("postgres", &format!("SELECT pg_database_size('{db}')"))
            .parse::<f64>()
            .expect("a size")
    };
    assert!(
        (bytes("f1") / bytes("prod") - 1.0).abs() < 0.02,
        "{} {}",
        bytes("f1"),
        bytes("prod")
    );
    cluster.sql(
        "prod",
        "DROP TABLE a; TRUNCATE b; DELETE FROM c WHERE id > 20; VACUUM c; UPDATE u SET v = 'new'",
    );
    cluster.sql(
        "prod",
        "VACUUM FULL c; VACUUM FULL pg_class; CHECKPOINT; CREATE TABLE a (id int, v text)",
    );
    assert_eq!(cluster.sql("f1", hash), before);
    // A fork of the fork, and then the fork is torn apart.
    cluster.sql("postgres", "SELECT fork_create('f1', 'f2')");
    cluster.sql(
        "f1",
        "UPDATE a SET v = 'f1'; DELETE FROM b WHERE id > 5; DROP TABLE c; TRUNCATE u; ALTER TABLE a ADD w int DEFAULT 7",
    );
    cluster.sql(
        "f1",
        "VACUUM b; VACUUM FULL a; VACUUM FULL pg_class; REINDEX DATABASE f1; CHECKPOINT",
    );
    assert_eq!(
        cluster.sql("f1", "SELECT count(*), sum(w) FROM a"),
        "500|3500"
    );
    assert_eq!(cluster.sql("f1", "SELECT count(*) FROM b"), "5");
    assert_eq!(cluster.sql("f2", hash), before);
    cluster.amcheck("f1");
    cluster.amcheck("f2");
    for at in 3..=8 {
        cluster.sql(
            "postgres",
            &format!("SELECT fork_create('f{}', 'f{at}')", at - 1),
        );
    }
    assert_eq!(cluster.sql("f8", hash), before);
    assert_eq!(
        cluster.sql("postgres", "SELECT depth FROM pg_forks WHERE name = 'f8'"),
        "8"
    );
    cluster.sql(
        "postgres",
        "CREATE DATABASE copy TEMPLATE f8 STRATEGY wal_log",
    );
    cluster.expect_error(
        "postgres",
        "CREATE DATABASE copy2 TEMPLATE f8 STRATEGY file_copy",
        "0A000",
    );
    for at in (1..=8).rev() {
        cluster.sql("postgres", &format!("SELECT fork_drop('f{at}')"));
    }
    assert_eq!(cluster.sql("copy", hash), before);
}

#[test]
fn forks_survive_restarts_and_crashes() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "2", "prod"]);
    cluster.sql("postgres", "SELECT fork_create('prod', 'kept')");
    let mut kept = sums(&cluster, "kept");
    for (round, mode) in ["fast", "immediate", "immediate", "immediate"]
        .into_iter()
        .enumerate()
    {
        let load = cluster.spawn("pgbench", &["-n", "-c", "4", "-T", "60", "prod"]);
        let in_fork = cluster.spawn("pgbench", &["-n", "-c", "2", "-T", "60", "kept"]);
        cluster.sql(
            "postgres",
            &format!("SELECT fork_create('prod', 'f{round}')"),
        );
        let seen = sums(&cluster, &format!("f{round}"));
        cluster.sql("postgres", "SELECT fork_create('prod', 'short')");
        cluster.sql(
            "short",
            "DELETE FROM pgbench_accounts WHERE aid < 1000; VACUUM FULL pgbench_tellers",
        );
        cluster.sql("postgres", "SELECT fork_drop('short')");
        std::thread::sleep(Duration::from_millis(1000));
        cluster.stop(mode);
        cluster.start();
        for child in [load, in_fork] {
            child.wait_with_output().expect("pgbench ends");
        }
        sums(&cluster, "prod");
        assert_eq!(sums(&cluster, &format!("f{round}")), seen);
        let now = sums(&cluster, "kept");
        assert_ne!(now, kept, "the fork's own writes");
        kept = now;
        for db in ["prod", "kept"] {
            cluster.amcheck(db);
        }
    }
    assert_eq!(
        cluster.sql(
            "postgres",
            "SELECT count(*) FROM pg_forks WHERE state = 'ready'"
        ),
        "5"
    );
}

#[test]
fn reads_of_a_fork_go_on_while_the_source_drops_what_they_read() {
    const TABLES: usize = 60;
    let cluster = Cluster::new("shared_buffers = 1MB\nautovacuum = off\nfsync = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    let mut prod = cluster.client("prod");
    for n in 0..TABLES {
        let rows = "SELECT i, repeat('x', 500) FROM generate_series(1, 2000) i";
        prod.batch_execute(&format!("CREATE TABLE t{n} AS {rows}"))
            .expect("a table");
    }
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let dropped = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut fork = cluster.client("f");
                // The table that is dropped meanwhile.
                while let at @ 0..TABLES = dropped.load(Ordering::SeqCst) {
                    let sql = format!("SELECT count(*), sum(length(repeat)) FROM t{at}");
                    let row = fork.query_one(&sql, &[]).expect("the fork reads");
                    assert_eq!((row.get(0), row.get(1)), (2000i64, 1_000_000i64));
                }
            });
        }
        for n in 0..TABLES {
            std::thread::sleep(Duration::from_millis(20));
            prod.batch_execute(&format!("DROP TABLE t{n}"))
                .expect("it drops");
            dropped.store(n + 1, Ordering::SeqCst);
        }
    });
}

/// A transaction that has committed and waits for a standby is whole in a fork, also where another's
/// subtransactions are too many to be listed.
#[test]
fn who_waits_for_a_standby_has_committed() {
    let cluster = Cluster::new("synchronous_commit = local");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql("prod", "CREATE TABLE t (v int); INSERT INTO t VALUES (0)");
    let standbys = |names: &str| {
        let sql = format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{names}'; SELECT pg_reload_conf()"
        );
        cluster.sql("postgres", &sql);
    };
    standbys("nobody");
    let mut overflowed = cluster.client("postgres");
    let savepoints = (0..70).map(|n| format!("SAVEPOINT s{n}; CREATE TEMP TABLE t{n} (v int);"));
    let text = savepoints.collect::<String>();
    overflowed
        .batch_execute(&format!("BEGIN; {text}"))
        .expect("begun");
    let mut waits = cluster.spawn(
        "psql",
        &[
            "-Xqd",
            "prod",
            "-c",
            "SET synchronous_commit = on",
            "-c",
            "BEGIN",
            "-c",
            "INSERT INTO t VALUES (1)",
            "-c",
            "SAVEPOINT a",
            "-c",
            "INSERT INTO t VALUES (2)",
            "-c",
            "DELETE FROM t WHERE v = 0",
            "-c",
            "COMMIT",
        ],
    );
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    while cluster.sql("postgres", waiting) != "1" {}
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    // In the source no one's snapshot sees it until it says so. In the fork it is what it would be after a crash
    // at the cut, from the beginning on.
    let rows = "SELECT string_agg(v::text, ',' ORDER BY v) FROM t";
    assert_eq!(cluster.sql("prod", rows), "0");
    assert_eq!(cluster.sql("f", rows), "1,2");
    cluster.sql("f", "VACUUM t");
    assert_eq!(cluster.sql("f", rows), "1,2");
    standbys("");
    waits.wait().expect("psql ends");
    assert_eq!(cluster.sql("f", rows), "1,2");
    overflowed.batch_execute("ROLLBACK").expect("rolled back");
}
