//! Where files lie: tablespaces, and clusters without data checksums.

use pg_fork_tests::{sums, Cluster};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is in all tables and how they are reached.
const LOOK: &str = "SET enable_seqscan = off; SELECT (SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM there t), \
     (SELECT md5(string_agg(h::text, ',' ORDER BY id)) FROM here h), \
     (SELECT string_agg(id || v, ',' ORDER BY id) FROM there WHERE id BETWEEN 500 AND 503), \
     (SELECT string_agg(id || v, ',' ORDER BY id) FROM here WHERE id BETWEEN 500 AND 503), \
     (SELECT count(*) FROM emptied), (SELECT count(*) FROM dropped), (SELECT count(*) FROM big)";

/// A server whose database `prod` has tables and indexes in its own tablespace and in `other`.
fn with_tablespaces(prod_in: &str) -> (Cluster, [String; 2]) {
    let cluster = Cluster::new("");
    let folders = [cluster.folder("first"), cluster.folder("second")];
    cluster.sql(
        "postgres",
        &format!(
            "CREATE TABLESPACE own LOCATION '{}'; CREATE TABLESPACE other LOCATION '{}'; CREATE DATABASE prod TABLESPACE {prod_in}",
            folders[0], folders[1]
        ),
    );
    let rows = "SELECT i AS id, 'v' || i AS v FROM generate_series(1, 3000) i";
    cluster.sql(
        "prod",
        &format!(
            "CREATE TABLE there TABLESPACE other AS {rows}; CREATE INDEX ON there (id) TABLESPACE other; CREATE INDEX ON there (v); \
             CREATE TABLE here AS {rows}; CREATE INDEX ON here (id) TABLESPACE other; \
             CREATE TABLE emptied TABLESPACE other AS {rows}; CREATE TABLE dropped TABLESPACE other AS {rows}; \
             CREATE TABLE big TABLESPACE other AS SELECT i AS id, repeat(md5(i::text), 200) AS v FROM generate_series(1, 300) i"
        ),
    );
    (cluster, folders)
}

/// All paths below, links not followed.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

/// What a fork, a layer or a database with this OID has in the tablespace.
fn of(folder: &str, oid: &str) -> Vec<PathBuf> {
    let mut found = below(Path::new(folder));
    found.retain(|path| path.iter().any(|part| part == oid));
    found
}

fn oid(cluster: &Cluster, db: &str) -> String {
    cluster.sql(
        "postgres",
        &format!("SELECT oid FROM pg_database WHERE datname = '{db}'"),
    )
}

fn both_sides_work_in_tablespaces(prod_in: &str) {
    let (cluster, folders) = with_tablespaces(prod_in);
    let before = cluster.sql("prod", LOOK);
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let fork = oid(&cluster, "f");
    assert_eq!(cluster.sql("f", LOOK), before);
    // The source writes, truncates and drops there; what the fork saw stays.
    cluster.sql(
        "prod",
        "UPDATE there SET v = 'prod' WHERE id % 2 = 0; UPDATE here SET v = 'prod'; TRUNCATE emptied; DROP TABLE dropped; \
         VACUUM FULL big; CREATE TABLE dropped (id int) TABLESPACE other; ALTER TABLE here SET TABLESPACE other; CHECKPOINT",
    );
    assert_eq!(cluster.sql("f", LOOK), before);
    let prod = cluster.sql("prod", LOOK);
    assert_ne!(prod, before);
    // So does the fork, and makes a relation of its own there.
    cluster.sql(
        "f",
        "UPDATE there SET v = 'fork' WHERE id % 3 = 0; DELETE FROM here WHERE id > 2000; TRUNCATE emptied; \
         INSERT INTO emptied SELECT i FROM generate_series(1, 7) i; CREATE TABLE new TABLESPACE other AS SELECT 1 AS v; \
         CREATE INDEX ON new (v) TABLESPACE other; ALTER TABLE big SET TABLESPACE pg_default; REINDEX TABLE there; \
         DROP TABLE dropped; CREATE TABLE dropped (id int) TABLESPACE other; CHECKPOINT",
    );
    assert!(!of(&folders[1], &fork).is_empty());
    let forked = cluster.sql("f", LOOK);
    assert_ne!(forked, before);
    assert_eq!(cluster.sql("prod", LOOK), prod);
    cluster.sql("postgres", "SELECT fork_create('f', 'g')");
    for mode in ["immediate", "fast"] {
        // Not on disk yet, but in WAL.
        cluster.sql("f", "UPDATE new SET v = v + 1");
        cluster.sql(
            "prod",
            "UPDATE there SET v = v || '+' WHERE id = 500; VACUUM there",
        );
        let prod = cluster.sql("prod", LOOK);
        cluster.stop(mode);
        cluster.start();
        assert_eq!(cluster.sql("prod", LOOK), prod, "{mode}");
        for db in ["f", "g"] {
            assert_eq!(cluster.sql(db, LOOK), forked, "{mode} {db}");
        }
    }
    for db in ["f", "g", "prod"] {
        cluster.amcheck(db);
    }
    assert_eq!(
        cluster.sql("f", "SELECT v FROM new") + &cluster.sql("g", "SELECT v FROM new"),
        "31"
    );
    let other = oid(&cluster, "g");
    let layers = fs::read_dir(format!("{}/pgsql_tmp_pg_fork", cluster.data())).expect("the folder");
    let names = layers
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ours: Vec<_> = names
        .filter(|name| name.parse::<u32>().is_ok() && *name != fork && *name != other)
        .collect();
    assert!(!ours.is_empty(), "there were no layers");
    let prod = cluster.sql("prod", LOOK);
    cluster.sql(
        "postgres",
        "SELECT fork_drop('g'); SELECT fork_drop('f'); CHECKPOINT",
    );
    cluster.wait_for_folders(0);
    for folder in &folders {
        for oid in ours.iter().chain([&fork, &other]) {
            assert_eq!(of(folder, oid), [] as [PathBuf; 0]);
        }
    }
    assert_eq!(cluster.sql("prod", LOOK), prod);
    cluster.sql("postgres", "DROP DATABASE prod");
    cluster.sql("postgres", "DROP TABLESPACE other; DROP TABLESPACE own");
}

#[test]
fn tables_in_a_second_tablespace() {
    both_sides_work_in_tablespaces("pg_default");
}

#[test]
fn a_source_whose_own_tablespace_is_another() {
    both_sides_work_in_tablespaces("own");
}

#[test]
fn a_tablespace_is_not_dropped_under_a_fork() {
    let (cluster, _) = with_tablespaces("pg_default");
    let before = cluster.sql("prod", LOOK);
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    // The last that the source has there is what the fork reads.
    for table in ["there", "emptied", "dropped", "big"] {
        cluster.sql("prod", &format!("DROP TABLE {table}"));
    }
    cluster.sql("prod", "DROP TABLE here; CHECKPOINT");
    cluster.expect_error("postgres", "DROP TABLESPACE other", "55000");
    assert_eq!(cluster.sql("f", LOOK), before);
    cluster.stop("immediate");
    cluster.start();
    cluster.expect_error("postgres", "DROP TABLESPACE other", "55000");
    assert_eq!(cluster.sql("f", LOOK), before);
    // Nobody used this one, but the fork does now.
    cluster.sql("f", "CREATE TABLE mine TABLESPACE own AS SELECT 1 AS v");
    cluster.expect_error("postgres", "DROP TABLESPACE own", "55000");
    assert_eq!(cluster.sql("f", "SELECT v FROM mine"), "1");
    cluster.sql("postgres", "SELECT fork_drop('f')");
    cluster.wait_for_folders(0);
    cluster.sql("postgres", "DROP TABLESPACE other; DROP TABLESPACE own");
}

#[test]
fn tablespaces_inside_the_data_directory() {
    let cluster = Cluster::new("allow_in_place_tablespaces = on");
    cluster.sql(
        "postgres",
        "CREATE TABLESPACE inside LOCATION ''; CREATE DATABASE prod TABLESPACE inside",
    );
    cluster.sql("prod", "CREATE TABLE t AS SELECT 1 AS v");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql("prod", "UPDATE t SET v = 2; CHECKPOINT");
    cluster.sql("f", "CREATE TABLE own AS SELECT v + 2 AS v FROM t");
    cluster.stop("immediate");
    cluster.start();
    assert_eq!(cluster.sql("f", "SELECT * FROM t, own"), "1|3");
    cluster.sql("postgres", "SELECT fork_drop('f')");
    cluster.wait_for_folders(0);
    cluster.sql("postgres", "DROP DATABASE prod; DROP TABLESPACE inside");
}

#[test]
fn forks_under_load_without_data_checksums() {
    let cluster = Cluster::bare("shared_preload_libraries = 'pg_fork'", &[]);
    cluster.sql("postgres", "CREATE EXTENSION pg_fork; CREATE DATABASE prod");
    assert_eq!(cluster.sql("postgres", "SHOW data_checksums"), "off");
    cluster.must("pgbench", &["-qi", "-s", "2", "prod"]);
    let load = cluster.spawn("pgbench", &["-n", "-c", "8", "-j", "2", "-T", "8", "prod"]);
    let mut forks = Vec::new();
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(300));
        let name = cluster.sql("postgres", "SELECT fork_create('prod')");
        let seen = sums(&cluster, &name);
        forks.push((name, seen));
    }
    let out = load.wait_with_output().expect("pgbench ends");
    let report = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && report.contains("failed transactions: 0 "),
        "{report}"
    );
    cluster.sql("prod", "CHECKPOINT");
    for _ in 0..2 {
        for (name, seen) in &forks {
            assert_eq!(&sums(&cluster, name), seen, "{name}");
        }
        cluster.stop("immediate");
        cluster.start();
    }
    for (name, _) in forks.iter().step_by(3) {
        cluster.must("pgbench", &["-n", "-t", "100", name]);
        sums(&cluster, name);
        cluster.amcheck(name);
    }
    cluster.amcheck("prod");
}
