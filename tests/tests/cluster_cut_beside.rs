//! What other sessions do between a cut and the commit of its fork.
//!
//! Needs a library built with the feature `stop_points`.

use pg_fork_tests::Cluster;
use std::thread::{self, JoinHandle};
use std::time::Duration;

fn create(cluster: &Cluster, stop: &str) -> JoinHandle<Result<(), postgres::Error>> {
    let mut client = cluster.client("postgres");
    client
        .batch_execute(&format!("SET pg_fork.stop_point = '{stop}:nap'"))
        .expect("set");
    let cut = move || client.batch_execute("SELECT fork_create('prod', 'f')");
    let cutter = thread::spawn(cut);
    // It holds its source, and has cut it if that comes first.
    let there = match stop {
        "create-cut" => "SELECT value::int FROM pg_fork_stats WHERE name = 'cuts'",
        _ => "SELECT count(DISTINCT pid) FROM pg_locks l JOIN pg_database d ON l.objid = d.oid WHERE classid = 1262 AND datname = 'prod'",
    };
    while cluster.sql("postgres", there) != "1" {
        thread::sleep(Duration::from_millis(5));
    }
    cutter
}

fn source() -> Cluster {
    let cluster = Cluster::new("");
    cluster.sql(
        "postgres",
        "CREATE DATABASE prod; CREATE ROLE ann; CREATE ROLE bob",
    );
    cluster.sql(
        "prod",
        "CREATE TABLE hers (i int); ALTER TABLE hers OWNER TO ann; CREATE TABLE his (i int); ALTER TABLE his OWNER TO bob; \
         CREATE TABLE read (i int); GRANT SELECT ON read TO ann",
    );
    cluster
}

/// Rows for objects that are not there, and owners and grantees without a row.
const ASTRAY: &str = "SELECT count(*) FROM pg_class c FULL JOIN \
    (SELECT * FROM pg_shdepend WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = 'pg_class'::regclass) d \
    ON d.objid = c.oid WHERE c.oid IS NULL OR (d.objid IS NULL AND (c.relowner <> 10 OR c.relacl::text LIKE '%ann=%'))";

#[test]
fn a_fork_depends_on_what_its_source_did_at_the_cut() {
    let cluster = source();
    let cutter = create(&cluster, "create-cut");
    cluster.sql(
        "prod",
        "DROP TABLE hers; CREATE TABLE new (i int); ALTER TABLE new OWNER TO ann; REVOKE ALL ON read FROM ann; \
         ALTER TABLE his OWNER TO ann",
    );
    cutter.join().expect("ended").expect("a fork");
    assert_eq!(cluster.sql("f", ASTRAY), "0");
    assert_eq!(cluster.sql("prod", ASTRAY), "0");
    let owners = "SELECT string_agg(relname || ' ' || relowner::regrole, ', ' ORDER BY relname) FROM pg_class WHERE relname IN ('hers', 'his', 'new')";
    assert_eq!(cluster.sql("f", owners), "hers ann, his bob");
    // In prod nothing is his any more.
    let error = cluster.expect_error("postgres", "DROP ROLE bob", "2BP01");
    assert!(error.contains("database f"), "{error}");
}

/// Whose owner is gone for good when the rows are made: then there is no such fork.
#[test]
fn a_role_that_was_dropped_since_the_cut_ends_the_creation() {
    let cluster = source();
    let cutter = create(&cluster, "create-cut");
    cluster.sql("prod", "DROP TABLE his; DROP ROLE bob");
    let error = cutter.join().expect("ended").expect_err("no fork");
    assert_eq!(
        error.code().map(|code| code.code()),
        Some("42704"),
        "{error}"
    );
    cluster.wait_for_folders(0);
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    assert_eq!(cluster.sql("f", ASTRAY), "0");
}

#[test]
fn a_source_is_not_moved_while_a_fork_of_it_is_being_made() {
    let cluster = source();
    let folder = cluster.folder("elsewhere");
    cluster.sql(
        "postgres",
        &format!("CREATE TABLESPACE elsewhere LOCATION '{folder}'"),
    );
    let cutter = create(&cluster, "create-locked");
    let moves = "ALTER DATABASE prod SET TABLESPACE elsewhere";
    cluster.expect_error("postgres", moves, "0A000");
    cutter.join().expect("ended").expect("a fork");
    assert_eq!(cluster.sql("f", "SELECT count(*) FROM hers"), "0");
    cluster.sql("postgres", "SELECT fork_drop('f')");
    cluster.sql("postgres", moves);
    assert_eq!(cluster.sql("prod", "SELECT count(*) FROM hers"), "0");
}
