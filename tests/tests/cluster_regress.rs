//! PostgreSQL's own regression suite: with pg_fork it says what it says on a stock server, in a plain
//! database and in a fork; and the fork's source stays as it was.

use pg_fork_tests::files::{assert_same, files};
use pg_fork_tests::regress::Suite;
use pg_fork_tests::Cluster;
use std::thread;

/// What the suite's expected files were made with: no locale, and settings that only save time.
const INITDB: [&str; 5] = ["-k", "-E", "UTF8", "--locale", "C"];
const QUICK: &str = "fsync = off\nmax_wal_size = '4GB'";

fn server(settings: &str) -> Cluster {
    Cluster::bare(&format!("{QUICK}\n{settings}"), &INITDB)
}

fn preloaded() -> Cluster {
    let cluster = server("shared_preload_libraries = 'pg_fork'");
    cluster.sql("postgres", "CREATE EXTENSION pg_fork");
    cluster
}

fn stock() -> Suite {
    let cluster = server("");
    cluster.sql("postgres", "CREATE DATABASE regression TEMPLATE template0");
    Suite::run(&cluster)
}

fn plain() -> Suite {
    let cluster = preloaded();
    cluster.sql("postgres", "CREATE DATABASE regression TEMPLATE template0");
    Suite::run(&cluster)
}

fn fork() -> Suite {
    let cluster = preloaded();
    cluster.sql(
        "postgres",
        "CREATE DATABASE origin TEMPLATE template0; ALTER DATABASE origin SET pg_fork.isolation = off",
    );
    // Nobody ever connects to it: autovacuum passes by databases that have no statistics.
    let oid = cluster.sql(
        "postgres",
        "SELECT oid FROM pg_database WHERE datname = 'origin'",
    );
    let folder = format!("{}/base/{oid}", cluster.data());
    cluster.sql("postgres", "CHECKPOINT");
    let before = files(&folder);
    cluster.sql("postgres", "SELECT fork_create('origin', 'regression')");
    let suite = Suite::run(&cluster);
    cluster.sql("postgres", "CHECKPOINT");
    assert!(before.len() > 200, "{folder} has too few files");
    assert_same(&before, &files(&folder));
    cluster.amcheck("regression");
    suite
}

#[test]
fn the_regression_suite_says_with_pg_fork_what_it_says_without() {
    let (stock, plain, fork) = thread::scope(|scope| {
        let (stock, plain) = (scope.spawn(stock), scope.spawn(plain));
        let fork = fork();
        (stock.join().expect("ran"), plain.join().expect("ran"), fork)
    });
    println!("fails on a stock server: {:?}", stock.failed());
    println!(
        "with pg_fork: {:?}, in a fork: {:?}",
        plain.failed(),
        fork.failed()
    );
    let complaints = [plain.against(&stock), fork.against(&stock)].concat();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
