//! Forks do not age (D18): whatever becomes of them, and however many transaction numbers go by, the server's own
//! databases are vacuumed as ever, and nothing is kept back.

use pg_fork_tests::Cluster;
use std::time::{Duration, Instant};

/// The least that the server takes, and a launcher that looks each second.
const YOUNG: &str =
    "autovacuum_freeze_max_age = 100000\nautovacuum_multixact_freeze_max_age = 30000\n\
                     autovacuum_naptime = 1s\npg_fork.min_free_disk = 0";

/// Uses up so many transaction numbers, each a subtransaction's.
fn burn(cluster: &Cluster, numbers: u32) {
    let mut client = cluster.client("postgres");
    let mut run = |sql: &str| client.batch_execute(sql).expect("burnt");
    run("CREATE UNLOGGED TABLE IF NOT EXISTS ash (i int)");
    for _ in 0..numbers.div_ceil(10_000) {
        run("DO $$ BEGIN FOR i IN 1..10000 LOOP
               BEGIN INSERT INTO ash VALUES (i); EXCEPTION WHEN division_by_zero THEN END;
             END LOOP; END $$");
    }
    run("TRUNCATE ash");
}

fn wait_for(cluster: &Cluster, what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        let tail = || cluster.log_tail();
        let late = began.elapsed() > Duration::from_secs(60);
        assert!(!late, "{what}\n{}", tail());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until autovacuum has been at the table once more.
fn is_vacuumed(cluster: &Cluster, db: &str, table: &str) {
    let count =
        format!("SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = '{table}'");
    let before = cluster.sql(db, &count);
    cluster.sql(db, &format!("UPDATE {table} SET v = v + 1"));
    wait_for(cluster, "no autovacuum", || {
        cluster.sql(db, &count) != before
    });
}

/// Makes all forks invalid.
fn end_all(cluster: &Cluster) {
    let floor = |megabytes: &str| {
        let set = format!("ALTER SYSTEM SET pg_fork.min_free_disk = '{megabytes}'");
        cluster.sql("postgres", &format!("{set}; SELECT pg_reload_conf()"));
    };
    floor("1000000000");
    let live = "SELECT count(*) FROM pg_forks WHERE state <> 'invalid'";
    wait_for(cluster, "forks live on", || {
        cluster.sql("postgres", live) == "0"
    });
    floor("0");
}

const LIMIT: &str = "SELECT datconnlimit FROM pg_database WHERE datname = 'lost'";

#[test]
fn an_invalid_fork_is_not_counted_by_the_server() {
    let cluster = Cluster::new(YOUNG);
    cluster.sql("postgres", "CREATE DATABASE shop");
    let rows = "CREATE TABLE stock AS SELECT n, 0 AS v FROM generate_series(1, 3000) n";
    cluster.sql("shop", rows);
    cluster.sql("postgres", "SELECT fork_create('shop', 'lost')");
    is_vacuumed(&cluster, "shop", "stock");
    // Whoever changes the row at that moment is not waited for by the worker, and neither is he in its way.
    let mut owner = cluster.client("postgres");
    let own = "BEGIN; ALTER DATABASE lost CONNECTION LIMIT 7";
    owner.batch_execute(own).expect("changed");
    end_all(&cluster);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(cluster.sql("postgres", LIMIT), "-1");
    cluster.sql(
        "postgres",
        "SELECT fork_create('shop', 'other'); SELECT fork_drop('other')",
    );
    cluster.wait_for_folders(1);
    owner.batch_execute("COMMIT").expect("committed");
    wait_for(&cluster, "still counted", || {
        cluster.sql("postgres", LIMIT) == "-2"
    });
    burn(&cluster, 120_000);
    for db in ["postgres", "shop", "template1"] {
        cluster.sql(db, "VACUUM FREEZE");
    }
    is_vacuumed(&cluster, "shop", "stock");
    // No one can go there, and hears why.
    for (db, sql) in [
        ("postgres", "SELECT fork_attach('lost')"),
        ("postgres", "SELECT fork_create('lost', 'more')"),
        ("postgres", "SELECT * FROM fork_diff('lost')"),
        ("postgres", "SELECT fork_mount('lost')"),
    ] {
        let error = cluster.expect_error(db, sql, "55000");
        let says = error.contains("invalid") && error.contains("disk was about to be full");
        assert!(says, "{db}: {sql}: {error}");
    }
    let error = cluster.error("lost", "SELECT 1");
    assert!(error.contains("disk was about to be full"), "{error}");
    // A crash changes nothing of it.
    cluster.stop("immediate");
    cluster.start();
    let state = "SELECT state FROM pg_forks WHERE name = 'lost'";
    assert_eq!(cluster.sql("postgres", state), "invalid");
    assert_eq!(cluster.sql("postgres", LIMIT), "-2");
    cluster.sql("postgres", "SELECT fork_drop('lost')");
    cluster.wait_for_folders(0);
}

/// A fork that turns out to be invalid when the server starts.
#[test]
fn nor_is_one_that_a_start_finds_invalid() {
    let cluster = Cluster::new(YOUNG);
    cluster.sql("postgres", "CREATE DATABASE shop");
    cluster.sql("postgres", "SELECT fork_create('shop', 'lost'); CHECKPOINT");
    let oid = cluster.sql("postgres", "SELECT oid FROM pg_forks");
    cluster.stop("immediate");
    let meta = format!("{}/pgsql_tmp_pg_fork/{oid}/pgsql_tmp_meta", cluster.data());
    std::fs::write(meta, "not what it was").expect("written");
    cluster.start();
    wait_for(&cluster, "still counted", || {
        cluster.sql("postgres", LIMIT) == "-2"
    });
    cluster.sql("postgres", "DROP DATABASE lost");
    assert_eq!(
        cluster.sql("postgres", "SELECT count(*) FROM pg_forks"),
        "0"
    );
}

const HAS_STATISTICS: &str = "SELECT string_agg(name, ',') FROM pg_forks, pg_stat_have_stats('database', oid, 0) has WHERE has";

/// The launcher takes turns between all databases that have statistics.
#[test]
fn forks_that_were_only_read_take_no_turn_of_autovacuum() {
    let cluster = Cluster::new(&format!("{YOUNG}\nmax_worker_processes = 20"));
    cluster.sql("postgres", "CREATE DATABASE shop");
    let rows = "CREATE TABLE stock AS SELECT n, 0 AS v FROM generate_series(1, 3000) n";
    cluster.sql("shop", rows);
    // How often the source's table is vacuumed while it is written to all the time.
    let rounds = || {
        let count = "SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'stock'";
        let rounds = || -> u32 { cluster.sql("shop", count).parse().expect("a number") };
        is_vacuumed(&cluster, "shop", "stock");
        let (before, began) = (rounds(), Instant::now());
        while began.elapsed() < Duration::from_secs(15) {
            cluster.sql("shop", "UPDATE stock SET v = v + 1");
            std::thread::sleep(Duration::from_millis(100));
        }
        rounds() - before
    };
    let alone = rounds();
    for n in 0..80 {
        cluster.sql(
            "postgres",
            &format!("SELECT fork_create('shop', 'copy_{n}')"),
        );
        cluster.sql(&format!("copy_{n}"), "SELECT count(*) FROM stock");
    }
    cluster.sql("copy_7", "DELETE FROM stock WHERE n < 2000");
    wait_for(&cluster, "statistics stay", || {
        let have = cluster.sql("postgres", HAS_STATISTICS);
        have == "copy_7"
    });
    let beside = rounds();
    println!("{alone} rounds with no fork, {beside} with 80");
    assert!(
        alone >= 4 && beside * 4 >= alone * 3,
        "{alone} rounds, then {beside}"
    );
    // The one that was written to is vacuumed.
    let count = "SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'stock'";
    wait_for(&cluster, "no autovacuum", || {
        cluster.sql("copy_7", count) != "0"
    });
}

#[test]
fn a_fork_takes_the_statistics_of_its_base_along() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE shop");
    cluster.sql("shop", "CREATE TABLE stock AS SELECT 1 AS v");
    cluster.sql("postgres", "SELECT fork_create('shop', 'copy')");
    cluster.sql("copy", "ALTER TABLE stock ADD w int");
    cluster.sql("postgres", "SELECT * FROM fork_diff_schema('copy')");
    // Numbers of databases that are in no catalog: the base's.
    let left = || {
        let oid = cluster.sql(
            "postgres",
            "SELECT oid FROM pg_database WHERE datname = 'shop'",
        );
        let of = format!(
            "SELECT count(*) FROM generate_series({oid} + 1, {oid} + 1000) n WHERE (pg_stat_have_stats('database', n::oid, 0) \
             OR pg_stat_have_stats('relation', n::oid, 1259)) AND n NOT IN (SELECT oid::bigint FROM pg_database)"
        );
        cluster.sql("postgres", &of)
    };
    wait_for(&cluster, "no base", || left() == "1");
    cluster.sql("postgres", "SELECT fork_drop('copy')");
    cluster.wait_for_folders(0);
    wait_for(&cluster, "statistics stay", || left() == "0");
}

/// All rows of all tables, as they are seen.
fn content(cluster: &Cluster, db: &str) -> String {
    let rows = "SELECT 'rows', count(*), md5(string_agg(t::text, ',' ORDER BY t::text)) FROM rows t \
                UNION ALL SELECT 'held', count(*), md5(string_agg(t::text, ',' ORDER BY t::text)) FROM held t";
    // By the index too.
    let by_key = "SET enable_seqscan = off; SELECT count(*), sum(v) FROM rows WHERE id > 0; \
                  SELECT count(*), sum(v) FROM held WHERE id > 0";
    cluster.sql(db, &format!("{rows}; {by_key}"))
}

/// Tables with all that a page can say of transactions: versions in chains and elsewhere, what was deleted or taken
/// back, lockers, multixacts with updaters; with hints and without.
fn all_kinds_of_rows(cluster: &Cluster, db: &str) {
    let mut client = cluster.client(db);
    let mut run = |sql: &str| client.batch_execute(sql).expect(sql);
    run("CREATE TABLE rows (id int PRIMARY KEY, v int, pad text) WITH (fillfactor = 60, autovacuum_enabled = off);
         CREATE TABLE held (id int PRIMARY KEY, v int) WITH (autovacuum_enabled = off);
         INSERT INTO rows SELECT i, 0, repeat('x', i % 90) FROM generate_series(1, 6000) i;
         INSERT INTO held SELECT i, 0 FROM generate_series(1, 3000) i");
    for n in 1..5 {
        run(&format!(
            "UPDATE rows SET v = v + {n} WHERE id % 3 = {n} % 3"
        ));
        run(&format!("BEGIN; UPDATE rows SET v = -1 WHERE id % 5 = {n}; INSERT INTO rows VALUES (-{n}, 1, ''); ROLLBACK"));
    }
    run("DELETE FROM rows WHERE id % 11 = 0");
    run("UPDATE rows SET id = id + 100000 WHERE id % 13 = 0");
    // One transaction with its subtransactions is enough for a multixact of two.
    run(
        "BEGIN; SELECT count(*) FROM (SELECT 1 FROM held FOR KEY SHARE) t; SAVEPOINT a;
         UPDATE held SET v = v + 1 WHERE id % 3 = 0; RELEASE a; COMMIT",
    );
    run(
        "BEGIN; SELECT count(*) FROM (SELECT 1 FROM held FOR KEY SHARE) t; SAVEPOINT a;
         UPDATE held SET v = v + 100 WHERE id % 3 = 1; ROLLBACK TO a; COMMIT",
    );
    run("BEGIN; SELECT count(*) FROM (SELECT 1 FROM held WHERE id % 2 = 0 FOR KEY SHARE) t; SAVEPOINT a;
         SELECT count(*) FROM (SELECT 1 FROM held WHERE id % 2 = 0 FOR NO KEY UPDATE) t; COMMIT");
}

/// Uses up so many multixacts: each of a transaction and one of its subtransactions.
fn burn_multis(cluster: &Cluster, numbers: u32) {
    let mut client = cluster.client("postgres");
    let mut run = |sql: &str| client.batch_execute(sql).expect("burnt");
    run(
        "CREATE UNLOGGED TABLE IF NOT EXISTS locks (i int PRIMARY KEY); TRUNCATE locks;
         INSERT INTO locks SELECT generate_series(1, 10000)",
    );
    for _ in 0..numbers.div_ceil(10_000) {
        run("DO $$ BEGIN
               PERFORM 1 FROM locks FOR KEY SHARE;
               FOR n IN 1..10000 LOOP
                 BEGIN PERFORM 1 FROM locks WHERE i = n FOR NO KEY UPDATE;
                 EXCEPTION WHEN division_by_zero THEN END;
               END LOOP; END $$");
    }
    run("TRUNCATE locks");
}

/// Lets the server's own databases be as young as they can be, and waits until the commit log and the multixacts of
/// before are gone.
fn let_go(cluster: &Cluster, first: &str) {
    for db in ["postgres", "template1", "shop"] {
        cluster.sql(db, "VACUUM FREEZE");
    }
    let gone = format!(
        "SELECT NOT EXISTS (SELECT FROM pg_ls_dir('pg_xact') f WHERE f <= '{first}')
            AND NOT EXISTS (SELECT FROM pg_ls_dir('pg_multixact/offsets') f WHERE f <= '{first}')"
    );
    // What counts is the oldest of all databases, forks among them; template0 is autovacuum's.
    wait_for(cluster, "something is held back", || {
        // It is cut off by a vacuum that makes a database younger.
        cluster.sql("postgres", "SELECT pg_current_xact_id()");
        cluster.sql("postgres", "VACUUM FREEZE");
        cluster.sql("postgres", &gone) == "t"
    });
}

#[test]
fn a_fork_of_any_age_reads_what_was_there_at_its_cut_and_holds_nothing_back() {
    let cluster = Cluster::new(YOUNG);
    cluster.sql("postgres", "CREATE DATABASE shop");
    all_kinds_of_rows(&cluster, "shop");
    // In flight at the cut, and committed after it.
    let mut flight = cluster.client("shop");
    let change =
        "BEGIN; UPDATE rows SET v = 7777 WHERE id < 900; UPDATE held SET v = 7777 WHERE id < 500";
    flight.batch_execute(change).expect("changed");
    let at_cut = content(&cluster, "shop");
    for fork in ["unread", "read", "written"] {
        cluster.sql("postgres", &format!("SELECT fork_create('shop', '{fork}')"));
    }
    flight.batch_execute("COMMIT").expect("committed");
    assert_ne!(content(&cluster, "shop"), at_cut);
    assert_eq!(content(&cluster, "read"), at_cut);
    // A fork of a fork that has rows of its own.
    cluster.sql("written", "UPDATE rows SET v = v - 1 WHERE id % 7 = 0");
    let mut flight = cluster.client("written");
    flight
        .batch_execute("BEGIN; UPDATE rows SET v = 5555 WHERE id % 4 = 0")
        .expect("changed");
    let written = content(&cluster, "written");
    cluster.sql("postgres", "SELECT fork_create('written', 'of_it')");
    flight.batch_execute("COMMIT").expect("committed");
    let later = content(&cluster, "written");
    let private = "SELECT string_agg(name || private_bytes, ',' ORDER BY name) FROM pg_forks \
                   WHERE name IN ('unread', 'read', 'of_it')";
    let before = cluster.sql("postgres", private);
    for _ in 0..3 {
        burn(&cluster, 370_000);
        burn_multis(&cluster, 40_000);
    }
    let_go(&cluster, "0000");
    let old = "SELECT count(*) FROM pg_database WHERE age(datfrozenxid) > 120000 OR mxid_age(datminmxid) > 36000";
    wait_for(&cluster, "databases are old", || {
        cluster.sql("postgres", old) == "0"
    });
    // Nothing was copied, by nobody.
    assert_eq!(cluster.sql("postgres", private), before);
    for restart in [false, true] {
        if restart {
            cluster.stop("immediate");
            cluster.start();
        }
        for fork in ["unread", "read"] {
            assert_eq!(content(&cluster, fork), at_cut, "{fork}, {restart}");
        }
        assert_eq!(content(&cluster, "of_it"), written, "{restart}");
        assert_eq!(content(&cluster, "written"), later, "{restart}");
    }
    assert_eq!(
        cluster.sql(
            "postgres",
            "SELECT count(*) FROM pg_forks WHERE state <> 'ready'"
        ),
        "0"
    );
    // The cut itself, and what differs from it.
    let cut =
        "SELECT fork_mount('written', 'cut', 'before'); SELECT count(*), sum(v) FROM before.rows";
    let there = cluster.sql("read", "SELECT count(*), sum(v) FROM rows");
    assert!(cluster.sql("postgres", cut).ends_with(&there));
    let diff = "SELECT rows_updated > 800 FROM fork_diff('written') WHERE \"table\" = 'rows'";
    assert_eq!(cluster.sql("postgres", diff), "t");
    // They are databases like any others: vacuumed, checked, written to, dumped.
    for fork in ["read", "of_it"] {
        cluster.amcheck(fork);
        cluster.sql(fork, "VACUUM; VACUUM FREEZE");
        cluster.amcheck(fork);
        let vacuumed = if fork == "read" { &at_cut } else { &written };
        assert_eq!(&content(&cluster, fork), vacuumed, "{fork}");
        cluster.sql(fork, "UPDATE rows SET v = v + 1; DELETE FROM held WHERE id % 2 = 0; VACUUM FULL; REINDEX TABLE rows");
        cluster.amcheck(fork);
    }
    assert_eq!(content(&cluster, "unread"), at_cut);
    for fork in ["of_it", "written", "read", "unread"] {
        cluster.sql("postgres", &format!("SELECT fork_drop('{fork}')"));
    }
    cluster.sql("postgres", "DROP SCHEMA before CASCADE");
    cluster.wait_for_folders(0);
    // Nobody needs what was kept any more.
    let kept = format!("{}/pgsql_tmp_pg_fork/kept", cluster.data());
    wait_for(&cluster, "outcomes are kept", || {
        !std::path::Path::new(&kept).exists()
    });
    assert!(!cluster.log().contains("PANIC"));
}
