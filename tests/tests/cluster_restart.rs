//! A process of the server crashes: prod is back as soon as without forks, and forks are all there (I8, D14).

use pg_fork_core::format::server::Server;
use pg_fork_tests::Cluster;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn note(cluster: &Cluster) -> PathBuf {
    Path::new(&cluster.data()).join("pgsql_tmp_pg_fork/unsynced")
}

/// Ends a session as the kernel does that is out of memory.
fn crash(cluster: &Cluster) {
    let mut client = cluster.client("postgres");
    let pid: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .expect("a number")
        .get(0);
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.expect("kill runs").success());
    // Until the others have been ended.
    while client.simple_query("SELECT 1").is_ok() {}
    let log = "reinitializing";
    while !cluster.log().contains(log) {
        std::thread::sleep(Duration::from_millis(5));
    }
    cluster.wait_until_up();
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let came = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        done()
    });
    assert!(came, "{what}");
}

fn forks(cluster: &Cluster) {
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE TABLE t AS SELECT g AS id, 0 AS v FROM generate_series(1, 5000) g; CREATE UNLOGGED TABLE u AS SELECT 1 AS v; VACUUM FREEZE; CHECKPOINT",
    );
    for name in ["idle", "writes", "unlogged", "source"] {
        cluster.sql("postgres", &format!("SELECT fork_create('prod', '{name}')"));
    }
    cluster.sql("source", "UPDATE t SET v = 7 WHERE id = 1");
    cluster.sql("postgres", "SELECT fork_create('source', 'below')");
    cluster.sql("unlogged", "CREATE UNLOGGED TABLE mine AS SELECT 1 AS v");
    cluster.sql("postgres", "CHECKPOINT");
    cluster.sql(
        "writes",
        "UPDATE t SET v = 1; CREATE UNLOGGED TABLE later AS SELECT 1 AS v",
    );
    cluster.sql("prod", "UPDATE t SET v = 2");
}

fn look(cluster: &Cluster) {
    for (db, sum) in [
        ("idle", 0),
        ("writes", 5000),
        ("unlogged", 0),
        ("source", 7),
        ("below", 7),
        ("prod", 10000),
    ] {
        let seen = cluster.sql(db, "SELECT sum(v) FROM t; SELECT count(*) FROM u");
        assert_eq!(seen, format!("{sum}\n0"), "{db}");
    }
    assert_eq!(cluster.sql("unlogged", "SELECT count(*) FROM mine"), "0");
    assert_eq!(cluster.sql("writes", "SELECT count(*) FROM later"), "0");
    let states = "SELECT string_agg(DISTINCT state, ',') FROM pg_forks";
    assert_eq!(cluster.sql("postgres", states), "ready");
}

#[test]
fn after_a_crash_all_forks_are_there_and_nobody_has_waited_for_them() {
    let cluster = Cluster::new("autovacuum = off");
    forks(&cluster);
    crash(&cluster);
    // Straight into a fork: the worker need not have run.
    look(&cluster);
    let log = cluster.log();
    assert!(
        log.contains("could not open directory \"./pgsql_tmp_pg_fork\""),
        "the start has looked through our folders: {}",
        cluster.log_tail()
    );
    // The worker does later what the start has left out.
    wait_for("the worker does not sync", || !note(&cluster).exists());
    // So it is after the server itself was killed, and twice in a row.
    for _ in 0..2 {
        cluster.stop("immediate");
        cluster.start();
    }
    look(&cluster);
    cluster.sql(
        "postgres",
        "SELECT fork_drop('below'); SELECT fork_drop('source'); SELECT fork_create('prod', 'more')",
    );
    assert_eq!(cluster.sql("more", "SELECT sum(v) FROM t"), "10000");
    cluster.stop("fast");
    assert!(!note(&cluster).exists());
}

/// As long as not all is synced a crash of the machine costs the forks, and says so.
#[test]
fn what_is_not_synced_yet_is_not_trusted_after_the_machine_crashed() {
    let cluster = Cluster::new("autovacuum = off");
    forks(&cluster);
    cluster.sql("postgres", "CHECKPOINT");
    let root = Path::new(&cluster.data()).join("pgsql_tmp_pg_fork");
    let marked = || {
        let folders = fs::read_dir(&root).expect("our folder").flatten();
        let mut marks = folders.map(|entry| entry.path().join("pgsql_tmp_unsynced"));
        marks.any(|mark| mark.exists())
    };
    wait_for("a folder still bears a mark", || {
        cluster.sql("postgres", "CHECKPOINT");
        !marked()
    });
    let reboot = |noted: bool| {
        cluster.stop("immediate");
        let path = root.join("server");
        let mut server = Server::decode(&fs::read(&path).expect("read")).expect("valid");
        server.boot = [9; 16];
        fs::write(&path, server.encode()).expect("written");
        if noted {
            fs::write(note(&cluster), "").expect("written");
        }
        cluster.start();
        cluster.sql(
            "postgres",
            "SELECT string_agg(DISTINCT state, ',') FROM pg_forks",
        )
    };
    assert_eq!(reboot(false), "ready");
    wait_for("the worker does not sync", || !note(&cluster).exists());
    assert_eq!(reboot(true), "invalid");
    assert_eq!(cluster.sql("prod", "SELECT sum(v) FROM t"), "10000");
}

#[test]
fn while_there_is_no_fork_nothing_of_ours_is_among_the_temporary_files() {
    let cluster = Cluster::new("");
    let files =
        || fs::read_dir(format!("{}/base/pgsql_tmp", cluster.data())).map_or(0, Iterator::count);
    assert_eq!(files(), 0);
    cluster.sql(
        "postgres",
        "CREATE DATABASE prod; SELECT fork_create('prod', 'f')",
    );
    assert_eq!(files(), 1);
    cluster.sql("f", "CREATE TABLE mine AS SELECT 1 AS v");
    crash(&cluster);
    assert_eq!(cluster.sql("f", "SELECT v FROM mine"), "1");
    cluster.sql("postgres", "SELECT fork_drop('f')");
    wait_for("the file stays", || files() == 0);
    crash(&cluster);
    assert_eq!(files(), 0);
    cluster.sql("postgres", "SELECT fork_create('prod', 'g')");
    cluster.stop("fast");
    cluster.start();
    assert_eq!(
        cluster.sql("postgres", "SELECT state FROM pg_forks"),
        "ready"
    );
}
