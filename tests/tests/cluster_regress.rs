//! PostgreSQL's own regression suite: with pg_fork it says what it says on a stock server, in a plain
//! database, in a fork, and in sessions that have attached to one; and the fork's source stays as it was.

use pg_fork_tests::files::{assert_same, files};
use pg_fork_tests::regress::Suite;
use pg_fork_tests::Cluster;
use std::thread;

/// What the suite's expected files were made with: no locale, and settings that only save time.
const INITDB: [&str; 5] = ["-k", "-E", "UTF8", "--locale", "C"];
const QUICK: &str = "fsync = off\nmax_wal_size = '4GB'";

/// The tests that may say something else in an attached session. They reconnect, which leads to the source
/// (prepared_xacts, privileges, stats, stats_ext, tablespace, and after it type_sanity); or psql, when it reads
/// them by -f, takes what follows a COPY FROM for its data (copyselect) or names itself in messages (psql,
/// psql_crosstab); or they list what the extension has made (create_am).
const ATTACHED_ELSE: [&str; 10] = [
    "copyselect",
    "create_am",
    "prepared_xacts",
    "privileges",
    "psql",
    "psql_crosstab",
    "stats",
    "stats_ext",
    "tablespace",
    "type_sanity",
];

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
    cluster.sql("postgres", "CREATE DATABASE origin TEMPLATE template0");
    // Nobody ever connects to it: autovacuum passes by databases that have no statistics.
    let oid = cluster.sql(
        "postgres",
        "SELECT oid FROM pg_database WHERE datname = 'origin'",
    );
    let folder = format!("{}/base/{oid}", cluster.data());
    cluster.sql("postgres", "CHECKPOINT");
    let before = files(&folder);
    cluster.sql(
        "postgres",
        "SELECT fork_create('origin', 'regression'); ALTER DATABASE regression SET pg_fork.isolation = off",
    );
    let suite = Suite::run(&cluster);
    cluster.sql("postgres", "CHECKPOINT");
    assert!(before.len() > 200, "{folder} has too few files");
    assert_same(&before, &files(&folder));
    cluster.amcheck("regression");
    suite
}

/// In sessions that log in to the source and attach to a fork of it.
fn attached() -> Suite {
    // None prepared: prepared_xacts reconnects and then looks for its own in the source, and one that is
    // serializable and never ends keeps `transactions` waiting.
    let cluster = server(
        "shared_preload_libraries = 'pg_fork'\npg_fork.isolation = off\nmax_prepared_transactions = 0",
    );
    cluster.sql("postgres", "CREATE DATABASE origin TEMPLATE template0");
    // What pg_regress sets for a database that it makes itself.
    for setting in [
        "lc_messages = 'C'",
        "lc_monetary = 'C'",
        "lc_numeric = 'C'",
        "lc_time = 'C'",
        "bytea_output = hex",
        "timezone_abbreviations = 'Default'",
    ] {
        cluster.sql("postgres", &format!("ALTER DATABASE origin SET {setting}"));
    }
    cluster.sql(
        "origin",
        "CREATE SCHEMA pgf; CREATE EXTENSION pg_fork SCHEMA pgf; GRANT USAGE ON SCHEMA pgf TO PUBLIC",
    );
    cluster.sql("origin", "SELECT pgf.fork_create('origin', 'regression')");
    let suite = Suite::run_attached(&cluster);
    let log = cluster.log();
    let bad = |line: &&str| line.contains("PANIC") || line.contains("terminated by signal");
    assert_eq!(log.lines().find(bad), None);
    // The sessions did move: the suite's first tables are in the fork, and not in its source.
    let tables = "SELECT count(*) FROM pg_class WHERE relname IN ('tenk1', 'onek', 'person')";
    assert_eq!(cluster.sql("regression", tables), "3");
    assert_eq!(cluster.sql("origin", tables), "0");
    cluster.amcheck("regression");
    suite
}

#[test]
fn the_regression_suite_says_with_pg_fork_what_it_says_without() {
    let (stock, plain, fork, attached) = thread::scope(|scope| {
        let (stock, plain, fork) = (scope.spawn(stock), scope.spawn(plain), scope.spawn(fork));
        let attached = attached();
        let [stock, plain, fork] = [stock, plain, fork].map(|suite| suite.join().expect("ran"));
        (stock, plain, fork, attached)
    });
    println!("fails on a stock server: {:?}", stock.failed());
    println!(
        "with pg_fork: {:?}, in a fork: {:?}",
        plain.failed(),
        fork.failed()
    );
    let complaints = [plain.against(&stock), fork.against(&stock)].concat();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let mut differs = attached.differences(&stock);
    differs.retain(|name, _| !ATTACHED_ELSE.contains(&name.as_str()));
    let how: Vec<String> = differs.into_values().collect();
    assert!(how.is_empty(), "attached: {}", how.join("\n"));
}
