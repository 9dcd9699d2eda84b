//! PostgreSQL's own tools and modules beside forks and in them.

use pg_fork_tests::{sums, Cluster};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A server with a database `prod` of pgbench's tables and a table of its own.
fn prod(settings: &str) -> Cluster {
    let cluster = Cluster::new(settings);
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "1", "prod"]);
    cluster.sql(
        "prod",
        "CREATE TABLE t (id int PRIMARY KEY, v text, n serial); CREATE INDEX ON t (v); \
         INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 5000) i; CREATE VIEW w AS SELECT count(*) FROM t; \
         SELECT lo_from_bytea(0, 'large'); VACUUM ANALYZE",
    );
    cluster
}

/// A dump of everything in the database; the name is not in it.
fn dump(cluster: &Cluster, db: &str) -> String {
    // Some minors put a random key into the dump.
    let text = cluster.must("pg_dump", &["-d", db]);
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Waits until the statement's value is this.
fn wait_for(cluster: &Cluster, db: &str, sql: &str, value: &str) {
    let waited = (0..300).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        cluster.sql(db, sql) == value
    });
    assert!(waited, "{sql}: {}, not {value}", cluster.sql(db, sql));
}

#[test]
fn an_index_being_built_concurrently_at_the_cut() {
    let cluster = prod("");
    let mut holder = cluster.spawn("psql", &["-Xq", "-d", "prod"]);
    let stdin = holder.stdin.as_mut().expect("piped");
    writeln!(stdin, "BEGIN; INSERT INTO t VALUES (0, 'held');").expect("sent");
    let build = "CREATE INDEX CONCURRENTLY slow ON t (v, id)";
    let waiting = |what: &str| {
        format!("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '{what}' AND wait_event_type = 'Lock'")
    };
    wait_for(
        &cluster,
        "prod",
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'",
        "1",
    );
    let builder = cluster.spawn("psql", &["-Xq", "-d", "prod", "-c", build]);
    wait_for(&cluster, "prod", &waiting("CREATE INDEX CONC%"), "1");
    for name in ["f", "g"] {
        cluster.sql("postgres", &format!("SELECT fork_create('prod', '{name}')"));
        cluster.sql(
            name,
            "INSERT INTO t VALUES (6000, 'fork'); UPDATE t SET v = v || 'f' WHERE id <= 100",
        );
    }
    writeln!(holder.stdin.as_mut().expect("piped"), "COMMIT;").expect("sent");
    assert!(holder.wait_with_output().expect("ends").status.success());
    assert!(builder.wait_with_output().expect("ends").status.success());
    let state = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'slow'::regclass";
    assert_eq!(cluster.sql("prod", state), "t");
    for name in ["f", "g"] {
        assert_eq!(cluster.sql(name, state), "f");
    }
    cluster.sql("f", "REINDEX INDEX CONCURRENTLY slow");
    assert_eq!(cluster.sql("f", state), "t");
    cluster.sql("g", "DROP INDEX CONCURRENTLY slow");
    let rows = "SET enable_seqscan = off; SELECT count(*), count(*) FILTER (WHERE v LIKE '%f') FROM t WHERE v >= ''";
    assert_eq!(cluster.sql("prod", rows), "5001|0");
    for name in ["prod", "f", "g"] {
        cluster.amcheck(name);
        if name != "prod" {
            assert_eq!(cluster.sql(name, rows), "5001|100");
        }
    }
}

#[test]
fn modules_that_look_at_pages() {
    let cluster = prod("");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let modules = ["pg_prewarm", "pageinspect", "pg_visibility", "pgstattuple"];
    for db in ["prod", "f"] {
        for module in modules {
            cluster.sql(db, &format!("CREATE EXTENSION {module}"));
        }
    }
    let looks = [
        "SELECT pg_prewarm('t', 'buffer') + pg_prewarm('t', 'read') + pg_prewarm('t_pkey', 'prefetch')",
        "SELECT md5(string_agg(t_ctid::text || t_data::text, ',')) FROM generate_series(0, 20) b, heap_page_items(get_raw_page('t', b))",
        "SELECT count(*), sum(live_items) FROM generate_series(1, 10) b, bt_page_stats('t_pkey', b)",
        "SELECT all_visible FROM pg_visibility_map_summary('t')",
        "SELECT count(*) FROM pg_check_visible('t')",
        "SELECT tuple_count, dead_tuple_count, free_space FROM pgstattuple('t')",
        "SELECT leaf_pages, internal_pages, avg_leaf_density FROM pgstatindex('t_v_idx')",
        "SELECT get_raw_page('t', 'vm', 0) IS NOT NULL, get_raw_page('t', 'fsm', 0) IS NOT NULL",
    ];
    let all = |db: &str| looks.map(|look| cluster.sql(db, look));
    let before = all("f");
    assert_eq!(before, all("prod"));
    // Rows that all see are read frozen in a fork, whatever they are in the source.
    let frozen = "SELECT all_visible > 0, all_frozen = all_visible, all_frozen FROM pg_visibility_map_summary('t')";
    assert_eq!(cluster.sql("f", frozen), format!("t|t|{}", before[3]));
    assert_eq!(cluster.sql("prod", frozen), "t|f|0");
    cluster.sql(
        "prod",
        "DELETE FROM t WHERE id % 2 = 0; UPDATE t SET v = 'x'; VACUUM t; CHECKPOINT",
    );
    assert_ne!(before, all("prod"));
    assert_eq!(before, all("f"));
    cluster.sql("f", "DELETE FROM t WHERE id > 2500; VACUUM (FREEZE) t");
    let tuples = "SELECT tuple_count, dead_tuple_count FROM pgstattuple('t')";
    assert_eq!(cluster.sql("f", tuples), "2500|0");
    let errors = "SELECT (SELECT count(*) FROM pg_check_visible('t')) + (SELECT count(*) FROM pg_check_frozen('t'))";
    assert_eq!(cluster.sql("f", errors), "0");
    assert_eq!(cluster.sql("prod", errors), "0");
}

#[test]
fn dumps_and_copies_of_a_fork() {
    let cluster = prod("");
    let before = dump(&cluster, "prod");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    assert_eq!(dump(&cluster, "f"), before);
    cluster.must("pgbench", &["-n", "-t", "200", "prod"]);
    cluster.sql(
        "prod",
        "DROP VIEW w; ALTER TABLE t ADD x int DEFAULT 7; UPDATE t SET v = 'x'; SELECT nextval('t_n_seq'); SELECT lo_unlink(oid) FROM pg_largeobject_metadata; VACUUM FULL; CHECKPOINT",
    );
    assert_ne!(dump(&cluster, "prod"), before);
    assert_eq!(dump(&cluster, "f"), before);
    // A full copy that is nobody's fork.
    cluster.sql("postgres", "CREATE DATABASE x TEMPLATE f");
    assert_eq!(dump(&cluster, "x"), before);
    cluster.expect_error(
        "postgres",
        "CREATE DATABASE y TEMPLATE f STRATEGY file_copy",
        "0A000",
    );
    let all = cluster.must("pg_dumpall", &[]);
    for name in ["prod", "f", "x"] {
        assert!(
            all.contains(&format!("\nCREATE DATABASE {name} ")),
            "{name}"
        );
    }
    cluster.sql("postgres", "SELECT fork_drop('f')");
    cluster.wait_for_folders(0);
    assert_eq!(dump(&cluster, "x"), before);
    cluster.amcheck("x");
}

#[test]
fn pages_of_forks_and_layers_have_their_checksums() {
    let cluster = prod("");
    // A fork that is older than what is overwritten and dropped, a newer one, and a fork of a fork.
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql(
        "prod",
        "CREATE TABLE gone AS SELECT * FROM t; CREATE UNLOGGED TABLE u AS SELECT * FROM t",
    );
    cluster.must("pgbench", &["-n", "-t", "300", "prod"]);
    cluster.sql("postgres", "SELECT fork_create('prod', 'g')");
    cluster.sql("postgres", "SELECT fork_create('f', 'h')");
    for db in ["prod", "f", "g", "h"] {
        cluster.must("pgbench", &["-n", "-t", "300", db]);
        cluster.sql(db, "UPDATE t SET v = v || 'x' WHERE id % 7 = 0; DELETE FROM t WHERE id > 4000; VACUUM t; INSERT INTO pgbench_history (delta) VALUES (0)");
    }
    cluster.sql("prod", "DROP TABLE gone; DROP TABLE u; TRUNCATE t");
    let look =
        |db: &str| sums(&cluster, db) + &cluster.sql(db, "SELECT count(*), sum(length(v)) FROM t");
    let seen = ["prod", "f", "g", "h"].map(look);
    cluster.stop("fast");
    let out = cluster.must("pg_checksums", &["--check", "-D", &cluster.data()]);
    assert!(out.contains("Bad checksums:  0"), "{out}");
    cluster.start();
    assert_eq!(["prod", "f", "g", "h"].map(look), seen);
}

#[test]
fn a_base_backup_has_no_forks_in_it() {
    let cluster = prod("pg_fork.standbys_ready = on");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let loads: Vec<_> = ["prod", "f"]
        .into_iter()
        .map(|db| cluster.spawn("pgbench", &["-n", "-c", "2", "-T", "6", db]))
        .collect();
    let restored = cluster.folder("restored");
    cluster.must(
        "pg_basebackup",
        &["-D", &restored, "-c", "fast", "-X", "stream"],
    );
    for load in loads {
        let out = load.wait_with_output().expect("ends");
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    sums(&cluster, "f");
    let out = cluster.must("pg_verifybackup", &[&restored]);
    assert!(out.contains("successfully verified"), "{out}");
    cluster.stop("fast");
    let data = cluster.data();
    fs::remove_dir_all(&data).expect("removed");
    let moved = Command::new("mv").args([&restored, &data]).status();
    assert!(moved.expect("mv runs").success());
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("private");
    cluster.start();
    sums(&cluster, "prod");
    cluster.amcheck("prod");
    let rows = "SELECT (SELECT count(*) FROM pg_database WHERE datname = 'f') + (SELECT count(*) FROM pg_forks)";
    wait_for(&cluster, "postgres", rows, "0");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    assert_eq!(sums(&cluster, "f"), sums(&cluster, "prod"));
}

#[test]
fn maintenance_of_all_databases() {
    let cluster = prod("");
    cluster.sql(
        "postgres",
        "SELECT fork_create('prod', 'f'); SELECT fork_create('f', 'g')",
    );
    let seen = sums(&cluster, "f");
    cluster.must("pgbench", &["-n", "-t", "200", "prod"]);
    cluster.must("vacuumdb", &["--all", "--analyze"]);
    cluster.must("vacuumdb", &["--full", "g"]);
    cluster.must("reindexdb", &["f"]);
    cluster.sql("g", "REINDEX DATABASE CONCURRENTLY g; REINDEX SYSTEM g");
    cluster.sql(
        "f",
        "CLUSTER t USING t_v_idx; CLUSTER; CLUSTER pg_class USING pg_class_oid_index",
    );
    cluster.must("clusterdb", &["f"]);
    for db in ["f", "g"] {
        assert_eq!(sums(&cluster, db), seen);
        assert_eq!(
            cluster.sql(db, "SELECT count(*), count(DISTINCT v) FROM t"),
            "5000|5000"
        );
    }
    cluster.must(
        "pg_amcheck",
        &[
            "--all",
            "--install-missing",
            "--heapallindexed",
            "--parent-check",
        ],
    );
    sums(&cluster, "prod");
}

#[test]
fn sessions_of_a_fork_have_all_that_a_database_has() {
    let cluster = prod("");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let parallel = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2";
    let plan = cluster.sql(
        "f",
        &format!(
            "{parallel}; EXPLAIN (ANALYZE, COSTS OFF) SELECT sum(abalance) FROM pgbench_accounts"
        ),
    );
    assert!(plan.contains("Workers Launched: 2"), "{plan}");
    cluster.sql("f", &format!("{parallel}; SET min_parallel_index_scan_size = 0; CREATE TABLE made AS SELECT * FROM pgbench_accounts; CREATE INDEX ON made (abalance, aid)"));
    assert_eq!(cluster.sql("f", "SELECT count(*) FROM made"), "100000");
    assert_eq!(
        cluster.sql("f", "CREATE TEMP TABLE x AS SELECT * FROM t; UPDATE x SET v = 'x'; CREATE INDEX ON x (id); SELECT count(*) FROM x JOIN t USING (id) WHERE x.v <> t.v"),
        "5000"
    );
    // A message of one database is not heard in another, whose session listens to the same channel.
    let hears = |db: &str, from: &str| {
        let mut listener = cluster.client(db);
        listener.batch_execute("LISTEN c").expect("listens");
        cluster.sql(from, "NOTIFY c, 'hello'");
        listener.batch_execute("SELECT 1").expect("answers");
        use postgres::fallible_iterator::FallibleIterator;
        let mut heard = listener.notifications();
        let heard = heard
            .timeout_iter(std::time::Duration::from_millis(300))
            .count();
        heard.expect("a count")
    };
    assert_eq!(
        (hears("f", "f"), hears("f", "prod"), hears("prod", "f")),
        (1, 0, 0)
    );
    cluster.sql(
        "f",
        "BEGIN; UPDATE t SET v = 'two' WHERE id = 1; PREPARE TRANSACTION 'kept'",
    );
    cluster.sql(
        "f",
        "BEGIN; DELETE FROM t WHERE id > 10; PREPARE TRANSACTION 'undone'",
    );
    let error = cluster.error("prod", "COMMIT PREPARED 'kept'");
    assert!(error.contains("another database"), "{error}");
    let error = cluster.expect_error("postgres", "SELECT fork_drop('f')", "55006");
    assert!(error.contains("prepared"), "{error}");
    cluster.stop("immediate");
    cluster.start();
    cluster.sql("f", "COMMIT PREPARED 'kept'; ROLLBACK PREPARED 'undone'");
    assert_eq!(
        cluster.sql("f", "SELECT count(*), max(v) FILTER (WHERE id = 1) FROM t"),
        "5000|two"
    );
    assert_eq!(cluster.sql("prod", "SELECT v FROM t WHERE id = 1"), "v1");
    cluster.amcheck("f");
    cluster.sql("postgres", "SELECT fork_drop('f')");
}

#[test]
fn logical_decoding_of_the_source_shows_nothing_of_forks() {
    let cluster = prod("wal_level = logical");
    cluster.sql("prod", "CREATE TABLE log (id int PRIMARY KEY, v text)");
    let slot = |name: &str| {
        format!("SET pg_fork.isolation = off; SELECT slot_name FROM pg_create_logical_replication_slot('{name}', 'test_decoding')")
    };
    let changes = |db: &str, slot: &str| {
        cluster.sql(
            db,
            &format!("SET pg_fork.isolation = off; SELECT string_agg(data, '/') FROM pg_logical_slot_get_changes('{slot}', NULL, NULL, 'include-xids', 'off') WHERE data LIKE 'table%'"),
        )
    };
    let inserted =
        |id: i32, v: &str| format!("table public.log: INSERT: id[integer]:{id} v[text]:'{v}'");
    let insert = |id: i32, v: &str| format!("INSERT INTO log VALUES ({id}, '{v}')");
    cluster.sql("prod", &slot("s"));
    for round in 0..3 {
        let (id, other) = (round * 10, round * 10 + 1);
        // A transaction that the cut is in the middle of.
        let mut open = cluster.client("prod");
        let begun = format!("BEGIN; {}", insert(id, "across"));
        open.batch_execute(&begun).expect("inserted");
        cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
        // The slot is not the fork's; the fork may have one of its own, which the open transaction
        // would hold up.
        open.batch_execute("COMMIT").expect("committed");
        assert_eq!(cluster.sql("f", &slot("own")), "own");
        cluster.sql(
            "f",
            &format!(
                "{}; ALTER TABLE log ADD x int; UPDATE log SET x = 1; DROP TABLE t CASCADE; TRUNCATE pgbench_history",
                insert(id, "fork")
            ),
        );
        cluster.sql("prod", &insert(other, "after"));
        if round == 1 {
            cluster.stop("immediate");
            cluster.start();
        }
        let seen = changes("f", "own");
        assert!(seen.starts_with(&inserted(id, "fork")), "{seen}");
        assert_eq!(seen.matches("INSERT").count(), 1, "{seen}");
        let active = format!("{}; SELECT 1", insert(other, "fork"));
        cluster.sql("f", &active);
        cluster.sql("postgres", "SELECT fork_drop('f')");
        wait_for(
            &cluster,
            "postgres",
            "SELECT string_agg(slot_name, ',') FROM pg_replication_slots",
            "s",
        );
        let expected = format!("{}/{}", inserted(id, "across"), inserted(other, "after"));
        assert_eq!(changes("prod", "s"), expected);
    }
}

#[test]
fn a_point_in_time_while_forks_were_in_use_can_be_recovered() {
    let cluster = prod("pg_fork.standbys_ready = on\narchive_mode = on\narchive_command = '/bin/true'\nwal_keep_size = 1GB");
    let archive = cluster.folder("archive");
    let command = format!("cp %p {archive}/%f");
    cluster.sql(
        "postgres",
        &format!("ALTER SYSTEM SET archive_command = '{command}'; SELECT pg_reload_conf()"),
    );
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let restored = cluster.folder("restored");
    cluster.must(
        "pg_basebackup",
        &["-D", &restored, "-c", "fast", "-X", "none"],
    );
    for db in ["prod", "f"] {
        cluster.must("pgbench", &["-n", "-t", "200", db]);
        cluster.sql(
            db,
            "VACUUM FULL t; CREATE TABLE later AS SELECT 1 AS v; VACUUM FULL pg_class",
        );
    }
    cluster.sql(
        "postgres",
        "SELECT fork_create('f', 'g'); SELECT fork_drop('g')",
    );
    let wanted = sums(&cluster, "prod");
    cluster.sql("postgres", "SELECT pg_create_restore_point('here')");
    for db in ["prod", "f"] {
        cluster.must("pgbench", &["-n", "-t", "100", db]);
        cluster.sql(db, "DROP TABLE t CASCADE");
    }
    cluster.sql("postgres", "SELECT fork_drop('f'); SELECT pg_switch_wal()");
    cluster.stop("fast");
    let data = cluster.data();
    fs::remove_dir_all(&data).expect("removed");
    let moved = Command::new("mv").args([&restored, &data]).status();
    assert!(moved.expect("mv runs").success());
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("private");
    fs::write(format!("{data}/recovery.signal"), "").expect("written");
    let settings = format!("restore_command = 'cp {archive}/%f %p'\nrecovery_target_name = 'here'\nrecovery_target_action = 'promote'\narchive_mode = off\n");
    fs::write(format!("{data}/postgresql.auto.conf"), settings).expect("written");
    cluster.start();
    wait_for(&cluster, "postgres", "SELECT pg_is_in_recovery()", "f");
    assert_eq!(sums(&cluster, "prod"), wanted);
    assert_eq!(cluster.sql("prod", "SELECT v FROM later"), "1");
    cluster.amcheck("prod");
    let rows = "SELECT count(*) FROM pg_database WHERE datname IN ('f', 'g')";
    wait_for(&cluster, "postgres", rows, "0");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    assert_eq!(sums(&cluster, "f"), wanted);
}

#[test]
fn a_subscription_into_the_source_goes_on() {
    let cluster = prod("wal_level = logical");
    cluster.sql("postgres", "CREATE DATABASE upstream");
    cluster.sql("upstream", "CREATE TABLE r (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE r; SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    let host = cluster.data().trim_end_matches("/data").to_string();
    let subscribe = format!("CREATE SUBSCRIPTION s CONNECTION 'host={host} dbname=upstream user=postgres' PUBLICATION p WITH (create_slot = false)");
    cluster.sql(
        "prod",
        &format!("CREATE TABLE r (id int PRIMARY KEY); {subscribe}"),
    );
    for n in 1..=5 {
        cluster.sql("upstream", &format!("INSERT INTO r VALUES ({n})"));
        wait_for(&cluster, "prod", "SELECT max(id) FROM r", &n.to_string());
        cluster.sql("postgres", &format!("SELECT fork_create('prod', 'f{n}')"));
        assert_eq!(
            cluster.sql(&format!("f{n}"), "SELECT count(*) FROM r"),
            n.to_string()
        );
        cluster.sql(&format!("f{n}"), "DROP TABLE r");
    }
    cluster.sql("upstream", "INSERT INTO r VALUES (6)");
    wait_for(&cluster, "prod", "SELECT max(id) FROM r", "6");
    for n in 1..=5 {
        cluster.sql("postgres", &format!("SELECT fork_drop('f{n}')"));
    }
    cluster.sql("upstream", "INSERT INTO r VALUES (7)");
    wait_for(&cluster, "prod", "SELECT max(id) FROM r", "7");
    cluster.sql("prod", "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s");
}
