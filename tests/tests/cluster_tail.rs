//! A truncation of a source: the forks keep what it cuts off.
//!
//! Needs a library built with the feature `stop_points`.

use pg_fork_tests::Cluster;
use std::fs;

/// A table whose end VACUUM can cut off; some of its pages were changed since the cut.
fn prepare(settings: &str) -> (Cluster, String) {
    let cluster = Cluster::new(&format!("autovacuum = off\n{settings}"));
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE TABLE t (id int, pad text) WITH (fillfactor = 70); ALTER TABLE t ALTER pad SET STORAGE PLAIN; \
         INSERT INTO t SELECT g, repeat(md5(g::text), 40) FROM generate_series(1, 20000) g; VACUUM FREEZE t; CHECKPOINT",
    );
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let seen = look(&cluster);
    assert!(seen.starts_with("20000|"), "{seen}");
    cluster.sql(
        "prod",
        "UPDATE t SET pad = 'new' WHERE id % 1700 < 30; CHECKPOINT",
    );
    cluster.sql("prod", "DELETE FROM t WHERE id > 10");
    (cluster, seen)
}

fn look(cluster: &Cluster) -> String {
    cluster.sql(
        "f",
        "SELECT count(*), sum(id), sum(hashtext(pad)::bigint) FROM t",
    )
}

fn pages(cluster: &Cluster, db: &str) -> String {
    cluster.sql(db, "SELECT pg_relation_size('t') / 8192")
}

#[test]
fn forks_keep_what_vacuum_cuts_off() {
    let (cluster, seen) = prepare("");
    cluster.sql("prod", "VACUUM t");
    assert!(pages(&cluster, "prod").parse::<u32>().expect("a number") < 50);
    assert_eq!(look(&cluster), seen);
    // It grows again, over what was cut off, and is cut off once more.
    cluster.sql("prod", "INSERT INTO t SELECT g, repeat('z', 900) FROM generate_series(1, 20000) g; CHECKPOINT; DELETE FROM t; VACUUM t; CHECKPOINT");
    assert_eq!(look(&cluster), seen);
    for mode in ["immediate", "fast"] {
        cluster.stop(mode);
        cluster.start();
        assert_eq!(look(&cluster), seen);
    }
    cluster.amcheck("f");
    assert_eq!(
        cluster.sql("postgres", "SELECT count(*) FROM fork_check('f')"),
        "0"
    );
}

#[test]
fn a_crash_in_between_loses_nothing() {
    let (cluster, seen) = prepare("restart_after_crash = off");
    let out = cluster.run(
        "psql",
        &[
            "-X",
            "-d",
            "prod",
            "-c",
            "SET pg_fork.stop_point = 'save-tail-pages:crash'",
            "-c",
            "VACUUM t",
        ],
    );
    assert!(!out.status.success());
    assert!(cluster.is_gone());
    fs::write(format!("{}/postgresql.auto.conf", cluster.data()), "").expect("written");
    cluster.start();
    assert_eq!(look(&cluster), seen);
    assert_eq!(cluster.sql("prod", "SELECT count(*) FROM t"), "10");
    cluster.amcheck("f");
}

#[test]
fn where_it_cannot_be_kept_prod_goes_on() {
    let (cluster, _) = prepare("");
    cluster.sql(
        "prod",
        "SET pg_fork.stop_point = 'save-tail:fail'; VACUUM t",
    );
    assert!(pages(&cluster, "prod").parse::<u32>().expect("a number") < 50);
    assert_eq!(
        cluster.sql("postgres", "SELECT state FROM pg_forks"),
        "invalid"
    );
    assert!(!cluster.log().contains("PANIC"));
}
