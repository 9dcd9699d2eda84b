//! Pages that are dirty in memory at a cut: captured, for forks of that cut alone.

use pg_fork_tests::Cluster;
use std::fs;
use std::path::PathBuf;

/// A server with a table of some 1,000 pages, all on disk. Nothing but checkpoints and cuts writes out.
fn server() -> Cluster {
    let cluster =
        Cluster::new("autovacuum = off\nbgwriter_lru_maxpages = 0\ncheckpoint_timeout = 1h");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE TABLE t (id int PRIMARY KEY, v int, pad text) WITH (fillfactor = 50); \
         INSERT INTO t SELECT g, 0, repeat('x', 200) FROM generate_series(1, 18000) g; VACUUM t; CHECKPOINT",
    );
    cluster
}

const SUM: &str = "SELECT sum(v), sum(v::bigint * id), count(*) FROM t";

fn captured(cluster: &Cluster) -> u64 {
    let sql = "SELECT value::bigint FROM pg_fork_stats WHERE name = 'pages_captured'";
    cluster
        .sql("postgres", sql)
        .parse()
        .expect("a number of pages")
}

/// The files of captured pages.
fn captured_files(cluster: &Cluster) -> Vec<PathBuf> {
    let root = format!("{}/pgsql_tmp_pg_fork", cluster.data());
    let folders = fs::read_dir(root).expect("our folder").flatten();
    let files = folders.map(|entry| entry.path().join("pgsql_tmp_captured"));
    files.filter(|file| file.exists()).collect()
}

#[test]
fn each_cut_has_its_own_and_the_cuts_before_do_not_see_them() {
    let cluster = server();
    let mut wanted = Vec::new();
    let mut change_and_fork = |source: &str, change: &str, fork: &str| {
        // The worker keeps a source's pages clean for two seconds after each cut.
        std::thread::sleep(std::time::Duration::from_secs(3));
        cluster.sql(source, change);
        let before = captured(&cluster);
        cluster.sql(
            "postgres",
            &format!("SELECT fork_create('{source}', '{fork}')"),
        );
        let pages = captured(&cluster) - before;
        assert!(pages > 300, "{fork}: {pages} pages were captured");
        wanted.push((fork.to_string(), cluster.sql(source, SUM)));
    };
    change_and_fork("prod", "UPDATE t SET v = 1 WHERE id % 2 = 0", "a");
    // Some of them again, some others.
    change_and_fork("prod", "UPDATE t SET v = v + 10 WHERE id < 9000", "b");
    change_and_fork("b", "UPDATE t SET v = v + 100 WHERE id > 6000", "c");
    cluster.sql("b", "UPDATE t SET v = -1");
    cluster.sql("prod", "UPDATE t SET v = 7; CHECKPOINT; VACUUM FULL t");
    let changed = [("b", "UPDATE t SET v = -1 WHERE v <> -1")];
    let look = |when: &str| {
        for (fork, sum) in &wanted {
            if !changed.iter().any(|(db, _)| db == fork) {
                assert_eq!(&cluster.sql(fork, SUM), sum, "{fork}, {when}");
            }
            let check = format!("SELECT * FROM fork_check('{fork}')");
            assert_eq!(cluster.sql("postgres", &check), "", "{fork}, {when}");
            cluster.amcheck(fork);
        }
    };
    look("at once");
    // Those that the cut captured before have not.
    for (db, sql) in changed {
        cluster.sql(db, sql);
    }
    cluster.sql("postgres", "CHECKPOINT");
    look("later");
    cluster.stop("immediate");
    cluster.start();
    look("after a crash");
    cluster.stop("fast");
    cluster.start();
    look("after a restart");
    for fork in ["c", "a", "b"] {
        cluster.sql("postgres", &format!("SELECT fork_drop('{fork}')"));
    }
    cluster.wait_for_folders(0);
}

#[test]
fn what_was_captured_is_written_out_afterwards() {
    let cluster = server();
    cluster.sql("prod", "UPDATE t SET v = 1");
    cluster.sql("postgres", "SELECT fork_create('prod')");
    let first = captured(&cluster);
    assert!(first > 300, "{first} pages were captured");
    // The worker does it by itself.
    let dirty = "SELECT count(*) FROM pg_buffercache WHERE isdirty AND reldatabase = (SELECT oid FROM pg_database WHERE datname = 'prod')";
    cluster.sql("postgres", "CREATE EXTENSION pg_buffercache");
    let clean = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        cluster.sql("postgres", dirty) == "0"
    });
    assert!(clean, "pages stay dirty");
    cluster.sql("postgres", "SELECT fork_create('prod')");
    assert_eq!(captured(&cluster), first, "the next cut found none");
}

#[test]
fn a_file_that_is_damaged_or_gone_is_an_error() {
    let cluster = server();
    cluster.sql("prod", "UPDATE t SET v = 1");
    cluster.sql("postgres", "SELECT fork_create('prod', 'a')");
    let file = captured_files(&cluster).pop().expect("a file");
    let whole = fs::read(&file).expect("read");
    let mut hurt = whole.clone();
    hurt[40] ^= 1;
    fs::write(&file, &hurt).expect("written");
    // A session's first look at the catalogs may meet it already.
    let told = |message: &str| {
        let error = cluster.error("a", "SELECT sum(v) FROM t");
        assert!(error.contains(message), "{error}");
    };
    told("could not read in a fork");
    // The pages, past the index.
    let mut hurt = whole.clone();
    let pages = hurt.chunks_exact_mut(8192).rev().take(300);
    pages.for_each(|page| page[8000] ^= 1);
    fs::write(&file, &hurt).expect("written");
    told("invalid page in block");
    let away = file.with_extension("away");
    fs::rename(&file, &away).expect("moved");
    told("could not read in a fork");
    // The source is not concerned.
    cluster.sql("prod", "UPDATE t SET v = 2; CHECKPOINT");
    cluster.amcheck("prod");
    fs::rename(&away, &file).expect("moved back");
    fs::write(&file, &whole).expect("written");
    assert_eq!(cluster.sql("a", "SELECT sum(v) FROM t"), "18000");
}

/// Needs a library built with the feature `stop_points`.
#[test]
fn where_they_cannot_be_written_there_is_no_fork() {
    let cluster = server();
    cluster.sql("postgres", "SELECT fork_create('prod', 'old')");
    cluster.sql("prod", "UPDATE t SET v = 1");
    let failing =
        "SET pg_fork.stop_point = 'write-captured:fail'; SELECT fork_create('prod', 'new')";
    cluster.expect_error("postgres", failing, "58030");
    cluster.sql("prod", "UPDATE t SET v = 2; CHECKPOINT");
    assert_eq!(cluster.sql("old", "SELECT sum(v) FROM t"), "0");
    // Nobody shares a cut that failed.
    cluster.sql("postgres", "SELECT fork_create('prod', 'new')");
    assert_eq!(cluster.sql("new", "SELECT sum(v) FROM t"), "36000");
    cluster.stop("immediate");
    cluster.start();
    assert_eq!(cluster.sql("old", "SELECT sum(v) FROM t"), "0");
    assert_eq!(cluster.sql("new", "SELECT sum(v) FROM t"), "36000");
    cluster.amcheck("old");
    cluster.amcheck("new");
}

#[test]
fn more_than_a_pause_has_time_for_are_written_out_first() {
    let cluster = server();
    cluster.sql(
        "postgres",
        "ALTER SYSTEM SET pg_fork.max_pause = '1ms'; SELECT pg_reload_conf()",
    );
    for round in 1..=3 {
        cluster.sql("prod", &format!("UPDATE t SET v = {round}"));
        let name = cluster.sql("postgres", "SELECT fork_create('prod')");
        let sum = (round * 18000).to_string();
        assert_eq!(cluster.sql(&name, "SELECT sum(v) FROM t"), sum);
    }
}

#[test]
fn what_is_written_out_first_takes_no_time_from_the_cut() {
    let cluster = server();
    // This cut finds nothing dirty, so the next one does not look before its first try.
    cluster.sql(
        "postgres",
        "SELECT fork_create('prod'); SELECT fork_create('prod')",
    );
    cluster.sql(
        "postgres",
        "ALTER SYSTEM SET pg_fork.max_pause = '1ms'; ALTER SYSTEM SET pg_fork.cut_timeout = '50ms'; SELECT pg_reload_conf()",
    );
    std::thread::sleep(std::time::Duration::from_secs(3));
    cluster.sql("prod", "UPDATE t SET v = 1");
    // Of a session that has looked through the pool before.
    let twice = "SELECT fork_create('template1', 'x'); SELECT fork_create('prod', 'f')";
    cluster.sql("postgres", twice);
    assert_eq!(cluster.sql("f", "SELECT sum(v) FROM t"), "18000");
}

/// What the postmaster has read of the forks of one life of the server is nothing to those of the next.
#[test]
fn a_crash_after_a_crash_mixes_nothing_up() {
    let cluster = server();
    cluster.sql(
        "prod",
        "CREATE UNLOGGED TABLE u (v int PRIMARY KEY); INSERT INTO u VALUES (1); CHECKPOINT",
    );
    let make = |names: [&'static str; 3], rows: &str| {
        names.map(|name| {
            // The worker keeps a source's pages clean for two seconds after each cut.
            std::thread::sleep(std::time::Duration::from_secs(3));
            let before = captured(&cluster);
            cluster.sql("prod", &format!("UPDATE t SET v = v + 1 WHERE {rows}"));
            cluster.sql("postgres", &format!("SELECT fork_create('prod', '{name}')"));
            assert!(
                captured(&cluster) > before,
                "nothing was captured for {name}"
            );
            (name, cluster.sql("prod", SUM))
        })
    };
    make(["a1", "a2", "a3"], "id < 9000");
    cluster.stop("immediate");
    cluster.start();
    cluster.sql("postgres", "SELECT fork_drop(name) FROM pg_forks");
    cluster.wait_for_folders(0);
    let made = make(["b1", "b2", "b3"], "id > 9000");
    let mut victim = cluster.client("postgres");
    let pid: i32 = victim
        .query_one("SELECT pg_backend_pid()", &[])
        .expect("a pid")
        .get(0);
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.is_ok_and(|status| status.success()));
    cluster.wait_until_up();
    for (fork, sum) in made {
        assert_eq!(cluster.sql(fork, SUM), sum, "{fork}");
    }
}
