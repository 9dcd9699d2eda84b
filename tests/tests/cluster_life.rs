//! Forks over time: many short ones beside a long one, and what a start of the server makes of them.

use pg_fork_core::format::server::Server;
use pg_fork_tests::{sums, Cluster};
use std::fs;

#[test]
fn many_short_forks_beside_a_long_one_leave_nothing_behind() {
    let cluster = Cluster::new("pg_fork.max_forks = 4");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "1", "prod"]);
    cluster.sql("prod", "CREATE TABLE t AS SELECT g AS id, 0 AS v FROM generate_series(1, 20000) g; CREATE TABLE old AS SELECT * FROM t");
    cluster.sql("postgres", "SELECT fork_create('prod', 'long')");
    let seen = (
        sums(&cluster, "long"),
        cluster.sql("long", "SELECT sum(id), sum(v) FROM t"),
    );
    let load = cluster.spawn("pgbench", &["-n", "-c", "4", "-T", "12", "prod"]);
    for round in 0..40 {
        // Other pages each time, some of them again, a truncation, and a hand-over.
        cluster.sql(
            "prod",
            &format!(
                "UPDATE t SET v = v + 1 WHERE id BETWEEN {round} * 400 AND {round} * 400 + 700"
            ),
        );
        match round {
            10 => drop(cluster.sql("prod", "DELETE FROM t WHERE id > 15000; VACUUM t")),
            20 => drop(cluster.sql("prod", "VACUUM FULL t")),
            25 => drop(cluster.sql("prod", "DROP TABLE old")),
            _ => {}
        }
        cluster.sql("postgres", "SELECT fork_create('prod', 'short')");
        sums(&cluster, "short");
        cluster.sql("postgres", "SELECT fork_drop('short')");
    }
    assert!(load.wait_with_output().expect("ends").status.success());
    cluster.sql("prod", "CHECKPOINT");
    // The long one, its layer, and the newest.
    cluster.wait_for_folders(3);
    for _ in 0..2 {
        assert_eq!(sums(&cluster, "long"), seen.0);
        assert_eq!(cluster.sql("long", "SELECT sum(id), sum(v) FROM t"), seen.1);
        assert_eq!(cluster.sql("long", "SELECT count(*) FROM old"), "20000");
        cluster.amcheck("long");
        cluster.stop("immediate");
        cluster.start();
    }
    cluster.sql("postgres", "SELECT fork_drop('long')");
    cluster.wait_for_folders(0);
}

#[test]
fn a_start_without_the_library_is_noticed() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql("prod", "CREATE TABLE t AS SELECT 1 AS v");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    for mode in ["fast", "immediate"] {
        cluster.stop(mode);
        cluster.start();
        assert_eq!(cluster.sql("f", "SELECT v FROM t"), "1");
    }
    cluster.stop("fast");
    let conf = format!("{}/postgresql.conf", cluster.data());
    let with = fs::read_to_string(&conf).expect("the settings");
    let without = with.replace("shared_preload_libraries = 'pg_fork'", "");
    fs::write(&conf, without).expect("written");
    cluster.start();
    // PostgreSQL must not let anyone into what it cannot read.
    assert!(cluster.error("f", "SELECT 1").contains("FATAL"));
    cluster.sql("prod", "UPDATE t SET v = 2");
    cluster.stop("fast");
    fs::write(&conf, with).expect("written");
    cluster.start();
    assert_eq!(cluster.sql("prod", "SELECT v FROM t"), "2");
    let state = "SELECT state, reason LIKE '%without pg_fork%' FROM pg_forks WHERE name = 'f'";
    assert_eq!(cluster.sql("postgres", state), "invalid|t");
    cluster.sql("postgres", "SELECT fork_drop('f')");
    assert_eq!(
        cluster.sql("postgres", "SELECT count(*) FROM pg_forks"),
        "0"
    );
}

/// Makes the next start believe that the machine was started anew.
fn another_boot(cluster: &Cluster) {
    let path = format!("{}/pgsql_tmp_pg_fork/server", cluster.data());
    let mut server = Server::decode(&fs::read(&path).expect("the file")).expect("whole");
    server.boot[0] ^= 1;
    fs::write(&path, server.encode()).expect("written");
}

#[test]
fn after_a_crash_of_the_machine_only_what_was_on_disk_is_trusted() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE calm; CREATE DATABASE busy");
    for db in ["calm", "busy"] {
        cluster.sql(
            db,
            "CREATE TABLE t AS SELECT g AS v FROM generate_series(1, 1000) g",
        );
        cluster.sql(
            "postgres",
            &format!("SELECT fork_create('{db}', 'of_{db}')"),
        );
        cluster.sql(&format!("of_{db}"), "UPDATE t SET v = v + 1");
    }
    // All of it reaches the disk, and the marks go.
    cluster.sql("postgres", "CHECKPOINT");
    let oid = cluster.sql(
        "postgres",
        "SELECT oid FROM pg_forks WHERE name = 'of_busy'",
    );
    let root = format!("{}/pgsql_tmp_pg_fork", cluster.data());
    let marks = || {
        let entries = fs::read_dir(&root).expect("the folder").flatten();
        entries
            .filter(|e| e.path().join("pgsql_tmp_unsynced").exists())
            .count()
    };
    // The worker writes out the sources' pages for two seconds after their cuts: a pre-image that it saves
    // meanwhile is for the next checkpoint.
    let waited = (0..300).any(|n| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        if n % 40 == 39 {
            cluster.sql("postgres", "CHECKPOINT");
        }
        marks() == 0
    });
    assert!(waited, "{} marks are left, {oid}", marks());
    // A pre-image after the checkpoint.
    cluster.sql(
        "busy",
        "UPDATE t SET v = 0; CHECKPOINT; UPDATE t SET v = 1; CHECKPOINT",
    );
    cluster.stop("immediate");
    another_boot(&cluster);
    cluster.start();
    assert_eq!(cluster.sql("of_calm", "SELECT sum(v) FROM t"), "501500");
    assert!(cluster
        .error("of_busy", "SELECT 1 FROM t")
        .contains("invalid"));
    let why = "SELECT reason LIKE '%machine%' FROM pg_forks WHERE name = 'of_busy'";
    assert_eq!(cluster.sql("postgres", why), "t");
    assert_eq!(cluster.sql("busy", "SELECT sum(v) FROM t"), "1000");
    // A clean stop has synced all of it.
    cluster.sql(
        "postgres",
        "SELECT fork_drop('of_busy'); SELECT fork_create('busy', 'of_busy')",
    );
    cluster.sql("busy", "UPDATE t SET v = 7");
    cluster.stop("fast");
    another_boot(&cluster);
    cluster.start();
    assert_eq!(cluster.sql("of_busy", "SELECT sum(v) FROM t"), "1000");
}

#[test]
fn a_fork_of_which_only_the_row_is_left_can_be_dropped() {
    let cluster = Cluster::new("");
    cluster.sql(
        "postgres",
        "CREATE DATABASE prod; SELECT fork_create('prod', 'f')",
    );
    let oid = cluster.sql("postgres", "SELECT oid FROM pg_forks WHERE name = 'f'");
    cluster.stop("fast");
    let root = format!("{}/pgsql_tmp_pg_fork/{oid}", cluster.data());
    fs::remove_dir_all(root).expect("removed");
    cluster.start();
    let state = "SELECT state FROM pg_forks WHERE name = 'f'";
    while cluster.sql("postgres", state) != "invalid" {}
    cluster.sql("postgres", "SELECT fork_drop('f')");
}

#[test]
fn unlogged_tables_are_empty_in_forks_after_a_crash() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE UNLOGGED TABLE u (id int PRIMARY KEY, t text); INSERT INTO u SELECT g, repeat('x', 100) FROM generate_series(1, 5000) g; \
         CREATE UNLOGGED TABLE gone (id int PRIMARY KEY); INSERT INTO gone SELECT generate_series(1, 1000); CREATE TABLE logged AS SELECT 1 AS v",
    );
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql("f", "UPDATE u SET t = 'y' WHERE id < 100; CREATE UNLOGGED TABLE own AS SELECT generate_series(1, 100) AS v; INSERT INTO logged VALUES (2)");
    cluster.sql("prod", "DROP TABLE gone; INSERT INTO u VALUES (0)");
    cluster.sql("postgres", "SELECT fork_create('f', 'g')");
    let all = "SELECT (SELECT count(*) FROM u), (SELECT count(*) FROM gone), (SELECT count(*) FROM own), (SELECT count(*) FROM logged)";
    assert_eq!(cluster.sql("g", all), "5000|1000|100|2");
    cluster.stop("immediate");
    cluster.start();
    for db in ["f", "g"] {
        assert_eq!(cluster.sql(db, all), "0|0|0|2", "{db}");
        cluster.sql(db, "INSERT INTO u SELECT g FROM generate_series(1, 3000) g; INSERT INTO gone SELECT generate_series(1, 3000); INSERT INTO own SELECT generate_series(1, 3000)");
        assert_eq!(cluster.sql(db, all), "3000|3000|3000|2", "{db}");
        cluster.amcheck(db);
    }
    assert_eq!(cluster.sql("prod", "SELECT count(*) FROM u"), "0");
    cluster.stop("fast");
    cluster.start();
    assert_eq!(cluster.sql("f", all), "3000|3000|3000|2");
    assert_eq!(cluster.sql("g", all), "3000|3000|3000|2");
}

#[test]
fn a_crash_of_a_backend_loses_no_fork_made_since_the_start() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql("prod", "CREATE TABLE t AS SELECT 1 AS v");
    cluster.sql("postgres", "SELECT fork_create('prod', 'before')");
    // The postmaster looks at forks when it starts after a crash.
    cluster.stop("immediate");
    cluster.start();
    cluster.sql("prod", "UPDATE t SET v = 2");
    cluster.sql("postgres", "SELECT fork_create('prod', 'since')");
    cluster.sql("prod", "UPDATE t SET v = 3; CHECKPOINT");
    let victim = cluster.spawn("psql", &["-X", "-d", "prod", "-c", "SELECT pg_sleep(60)"]);
    let pid = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let pid = (0..200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        Some(cluster.sql("postgres", pid)).filter(|pid| !pid.is_empty())
    });
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.expect("a sleeping session")])
        .status();
    assert!(killed.expect("kill runs").success());
    let _ = victim.wait_with_output();
    cluster.wait_until_up();
    for (db, v) in [("before", "1"), ("since", "2"), ("prod", "3")] {
        assert_eq!(cluster.sql(db, "SELECT v FROM t"), v, "{db}");
    }
}

/// Makes all forks of the server invalid.
fn invalidate_all(cluster: &Cluster, fork: &str) {
    let set = |what: &str| {
        cluster.sql(
            "postgres",
            &format!("ALTER SYSTEM {what}; SELECT pg_reload_conf()"),
        )
    };
    set("SET pg_fork.min_free_disk = '1000000000'");
    let state = format!("SELECT state FROM pg_forks WHERE name = '{fork}'");
    let invalid = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        cluster.sql("postgres", &state) == "invalid"
    });
    assert!(invalid, "{}", cluster.log_tail());
    set("RESET pg_fork.min_free_disk");
}

#[test]
fn what_was_prepared_in_an_invalid_fork_ends_with_it() {
    let cluster = Cluster::new("");
    let sql = |db: &str, sql: &str| cluster.sql(db, sql);
    let gids = || {
        sql(
            "postgres",
            "SELECT string_agg(gid, ' ' ORDER BY gid) FROM pg_prepared_xacts",
        )
    };
    sql(
        "postgres",
        "CREATE ROLE keeper LOGIN; CREATE ROLE writer LOGIN; CREATE DATABASE shop; CREATE DATABASE hall",
    );
    sql("shop", "CREATE EXTENSION pg_fork; CREATE TABLE t AS SELECT generate_series(1, 9) AS i; CREATE TABLE u (i int); GRANT ALL ON t TO writer; GRANT ALL ON SCHEMA public TO writer");
    sql("hall", "CREATE EXTENSION pg_fork");
    sql("postgres", "SELECT fork_create('shop', 'try'); ALTER DATABASE try OWNER TO keeper; SELECT fork_create('shop', 'fine'); REVOKE EXECUTE ON FUNCTION pg_prepared_xact FROM PUBLIC");
    // One makes a relation, whose file has to go; one holds locks and has a subtransaction.
    cluster
        .client_as("writer", "try")
        .batch_execute("BEGIN; CREATE TABLE own AS SELECT * FROM t; INSERT INTO t VALUES (10); PREPARE TRANSACTION 'wrote ''it'''")
        .expect("prepared");
    cluster
        .client("try")
        .batch_execute("BEGIN; SAVEPOINT s; LOCK u; INSERT INTO u VALUES (1); RELEASE s; PREPARE TRANSACTION 'locked'")
        .expect("prepared");
    sql("shop", "SELECT fork_drop('fine')");
    cluster
        .client("shop")
        .batch_execute("BEGIN; INSERT INTO t VALUES (11); PREPARE TRANSACTION 'of shop'")
        .expect("prepared");
    // Of a fork that works they are someone's still.
    for force in [true, false] {
        let call = format!("SELECT fork_drop('try', {force})");
        let error = cluster.expect_error("postgres", &call, "55006");
        assert!(
            error.contains("HINT:") && error.contains("'locked'"),
            "{error}"
        );
    }
    // A transaction that is under way when the fork becomes invalid can still be undone, with what it made.
    let mut under_way = cluster.client("try");
    under_way
        .batch_execute("BEGIN; CREATE TABLE undone AS SELECT * FROM t")
        .expect("made");
    invalidate_all(&cluster, "try");
    // The settings are read anew first, which may need a catalog.
    let _ = under_way.batch_execute("SELECT 1");
    under_way.batch_execute("ROLLBACK").expect("rolled back");
    drop(under_way);
    cluster.stop("fast");
    cluster.start();
    assert_eq!(gids(), "locked of shop wrote 'it'");
    assert!(cluster.try_client("try").is_none());
    let mut keeper = cluster.client_as("keeper", "hall");
    let error = keeper
        .batch_execute("DO $$ BEGIN PERFORM public.fork_drop('try'); EXCEPTION WHEN division_by_zero THEN NULL; END $$")
        .expect_err("in a subtransaction");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(
        (error.code().code(), error.hint().is_some()),
        ("25001", true)
    );
    assert_eq!(gids(), "locked of shop wrote 'it'");
    // With other things in the same transaction, which goes on as it was; what was prepared is gone at once.
    for step in [
        "CREATE TEMP TABLE notes (v text)",
        "BEGIN",
        "INSERT INTO notes VALUES ('before')",
        "SAVEPOINT a",
        "INSERT INTO notes VALUES ('within')",
        "RELEASE a",
        "SELECT fork_drop('try')",
    ] {
        keeper.batch_execute(step).expect(step);
    }
    assert_eq!(gids(), "of shop");
    for step in [
        "INSERT INTO notes VALUES ('after')",
        "SAVEPOINT b",
        "INSERT INTO notes VALUES ('undone')",
        "ROLLBACK TO b",
        "ROLLBACK",
        "INSERT INTO notes VALUES ('kept')",
    ] {
        keeper.batch_execute(step).expect(step);
    }
    let kept = "SELECT v, current_user::text, current_database()::text FROM notes";
    let kept = keeper.query_one(kept, &[]).expect("read");
    let kept: [String; 3] = [0, 1, 2].map(|n| kept.get(n));
    assert_eq!(kept, ["kept", "keeper", "hall"]);
    let state = "SELECT state FROM pg_forks WHERE name = 'try'";
    assert_eq!(sql("postgres", state), "invalid");
    keeper
        .batch_execute("SELECT fork_drop('try')")
        .expect("dropped");
    sql("shop", "ROLLBACK PREPARED 'of shop'; VACUUM");
    cluster.wait_for_folders(0);
    cluster.stop("immediate");
    cluster.start();
    assert_eq!(gids(), "");
    assert_eq!(sql("shop", "SELECT count(*) FROM t"), "9");
}
