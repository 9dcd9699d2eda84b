//! Forks and tablespaces other than the default one.

use pg_fork_tests::attach::prod;
use pg_fork_tests::Cluster;

/// A server with a tablespace `space`.
fn with_space() -> Cluster {
    let cluster = prod("");
    let folder = cluster.folder("space");
    let sql = format!("CREATE TABLESPACE space LOCATION '{folder}'");
    cluster.sql("postgres", &sql);
    cluster
}

fn entries(cluster: &Cluster) -> String {
    let ls =
        "SELECT string_agg(name, ' ') FROM pg_tablespace, pg_tablespace_location(oid) AS place, \
              pg_ls_dir(place) AS version, pg_ls_dir(place || '/' || version) AS name \
              WHERE spcname = 'space' AND name NOT LIKE 'pgsql\\_tmp%'";
    cluster.sql("postgres", ls)
}

#[test]
fn a_fork_that_left_a_tablespace_does_not_hold_it() {
    let cluster = with_space();
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    cluster.sql("f", "CREATE TABLE x TABLESPACE space AS SELECT 1 AS a");
    cluster.expect_error("postgres", "DROP TABLESPACE space", "55000");
    // What was in the way still works, and the fork can come back.
    assert_eq!(cluster.sql("f", "SELECT a FROM x"), "1");
    cluster.sql(
        "f",
        "DROP TABLE x; CREATE TABLE x TABLESPACE space AS SELECT 2 AS a",
    );
    assert_eq!(cluster.sql("f", "SELECT a FROM x"), "2");
    cluster.sql("f", "ALTER TABLE x SET TABLESPACE pg_default");
    assert_ne!(entries(&cluster), "", "the fork's link is there");
    cluster.sql("postgres", "DROP TABLESPACE space");
    cluster.stop("immediate");
    cluster.start();
    assert_eq!(cluster.sql("f", "SELECT a FROM x"), "2");
    let left = cluster.sql("postgres", "SELECT count(*) FROM pg_ls_dir('pg_tblspc')");
    assert_eq!(left, "0", "recovery made the tablespace again");
}

#[test]
fn forks_of_a_database_that_left_a_tablespace_do_not_hold_it() {
    let cluster = with_space();
    cluster.sql("postgres", "CREATE DATABASE d TABLESPACE space");
    cluster.sql("d", "CREATE TABLE t AS SELECT 1 AS a");
    cluster.sql("postgres", "SELECT fork_create('d', 'e')");
    cluster.sql("d", "UPDATE t SET a = 2");
    cluster.expect_error("postgres", "DROP TABLESPACE space", "55000");
    assert_eq!(cluster.sql("e", "SELECT a FROM t"), "1");
    cluster.sql("postgres", "SELECT fork_drop('e')");
    cluster.sql("postgres", "DROP DATABASE d");
    // The worker removes their files in its own time, and their folders later.
    cluster.wait_for_folders(0);
    cluster.sql("postgres", "DROP TABLESPACE space");
}
