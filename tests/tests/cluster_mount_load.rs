//! Mounted tables read while their fork's sessions write, vacuum and rewrite them, and while cuts are made.

use pg_fork_tests::Cluster;
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const ROWS: i64 = 400;
/// Rows and their sum, which transfers do not change; and whether each TOASTed value is whole and its row's.
const INVARIANT: &str = "SELECT count(*), sum(v)::bigint, count(*) FILTER (WHERE md5(big) <> sum OR length(big) <> 3200) FROM @";

fn prod() -> Cluster {
    let cluster = Cluster::new("autovacuum_naptime = 1s\nmax_parallel_workers = 8");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE EXTENSION pg_fork; CREATE TABLE t (id int PRIMARY KEY, v int, big text, sum text); \
         ALTER TABLE t ALTER big SET STORAGE external; \
         INSERT INTO t SELECT i, 100, b, md5(b) FROM generate_series(1, 400) i, LATERAL (SELECT repeat(md5(i::text), 100) AS b) x; \
         SELECT fork_create('prod', 'f'); SELECT fork_mount('f'); SELECT fork_mount('f', 'cut')",
    );
    cluster
}

/// Runs statements over and over until it is told to stop; returns how often.
fn worker(
    cluster: &Cluster,
    db: &str,
    stop: &Arc<AtomicBool>,
    mut what: impl FnMut(&mut Client, u64) + Send + 'static,
) -> JoinHandle<u64> {
    let (mut client, stop) = (cluster.client(db), stop.clone());
    thread::spawn(move || {
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            what(&mut client, rounds);
            rounds += 1;
        }
        rounds
    })
}

/// Statements that may meet a deadlock, or rows that another has changed.
fn attempt(client: &mut Client, sql: &str) {
    if let Err(error) = client.batch_execute(sql) {
        let code = error.code().map(|code| code.code().to_string());
        assert!(
            code.as_deref()
                .is_some_and(|code| ["40001", "40P01", "55P03"].contains(&code)),
            "{sql}: {error:?}"
        );
        client.batch_execute("ROLLBACK").expect("rolls back");
    }
}

/// Moves amounts between rows, gives rows other large values, and moves the table.
fn writers(cluster: &Cluster, db: &str, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<u64>> {
    let transfer = |client: &mut Client, round: u64| {
        let (a, b) = (round * 7 % 400 + 1, round * 13 % 400 + 1);
        attempt(
            client,
            &format!(
                "BEGIN; UPDATE t SET v = v - 5 WHERE id = {a}; UPDATE t SET v = v + 5 WHERE id = {b}; \
                 UPDATE t SET big = x.b, sum = md5(x.b) FROM (SELECT repeat(md5({round}::text), 100) AS b) x WHERE id = {a}; {}",
                if round.is_multiple_of(5) { "ROLLBACK" } else { "COMMIT" }
            ),
        );
    };
    // Each VACUUM is sent by itself, and TRUNCATE with what it is undone by: it is not MVCC-safe.
    let empty = "BEGIN; CREATE TEMP TABLE IF NOT EXISTS kept (LIKE t); TRUNCATE kept; LOCK t; \
                 INSERT INTO kept SELECT * FROM t; TRUNCATE t; INSERT INTO t SELECT * FROM kept; COMMIT";
    let steps = [
        "VACUUM t",
        "VACUUM FULL t",
        empty,
        "REINDEX TABLE t",
        "VACUUM FULL pg_class",
        "VACUUM FULL pg_attribute",
        "VACUUM FULL pg_index",
        "VACUUM pg_class",
    ];
    let maintain = move |client: &mut Client, round: u64| {
        attempt(client, steps[round as usize % steps.len()]);
        thread::sleep(Duration::from_millis(10));
    };
    vec![
        worker(cluster, db, stop, transfer),
        worker(cluster, db, stop, maintain),
    ]
}

fn check(row: &postgres::Row) {
    let (count, sum, bad): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!((count, sum, bad), (ROWS, 100 * ROWS, 0));
}

#[test]
fn each_statement_sees_one_state() {
    let cluster = prod();
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = writers(&cluster, "f", &stop);
    let sql = INVARIANT.replace('@', "f.t");
    let read = sql.clone();
    workers.push(worker(&cluster, "prod", &stop, move |client, _| {
        check(&client.query_one(&read, &[]).expect("reads"));
    }));
    let cut = INVARIANT.replace('@', "f_cut.t");
    workers.push(worker(&cluster, "prod", &stop, move |client, _| {
        check(&client.query_one(&cut, &[]).expect("reads"));
    }));
    // One snapshot for two looks, and for a session that begins with it.
    let repeated = sql.clone();
    let mut lost = 0;
    let until = Instant::now() + Duration::from_secs(12);
    let mut rounds = 0;
    while Instant::now() < until {
        let mut client = cluster.client("prod");
        for _ in 0..4 {
            let begun = client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
            begun.expect("begins");
            // A TRUNCATE may have emptied the table for this snapshot. From the first look on it waits.
            let first = client.query_one("SELECT sum(v)::bigint FROM f.t", &[]);
            match first {
                Ok(first) => {
                    let first: Option<i64> = first.get(0);
                    let again = client.query_one(&repeated, &[]).expect("reads again");
                    assert_eq!(again.get::<_, Option<i64>>(1), first);
                    assert!(first.is_none_or(|sum| sum == 100 * ROWS), "{first:?}");
                    rounds += 1;
                    client.batch_execute("COMMIT").expect("ends");
                }
                Err(error) => {
                    let code = error.code().map(|code| code.code().to_string());
                    assert_eq!(code.as_deref(), Some("40001"), "{error:?}");
                    lost += 1;
                    client.batch_execute("ROLLBACK").expect("ends");
                }
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let done: Vec<_> = workers
        .into_iter()
        .map(|it| it.join().expect("no failure"))
        .collect();
    println!("{done:?} rounds of the workers, {rounds} of one snapshot, {lost} lost");
    assert!(
        rounds > 0 && done.iter().all(|rounds| *rounds > 0),
        "{done:?}"
    );
    cluster.amcheck("f");
    assert_eq!(cluster.sql("prod", "SELECT * FROM fork_check('f')"), "");
}

#[test]
fn cuts_and_reads_hurt_neither() {
    let cluster = prod();
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for db in ["prod", "f"] {
        let transfer = |client: &mut Client, round: u64| {
            let (a, b) = (round * 7 % 400 + 1, round * 13 % 400 + 1);
            attempt(client, &format!("BEGIN; UPDATE t SET v = v - 5 WHERE id = {a}; UPDATE t SET v = v + 5 WHERE id = {b}; COMMIT"));
        };
        workers.push(worker(&cluster, db, &stop, transfer));
    }
    cluster.sql("f", "SELECT fork_mount('prod', into_schema => 'p')");
    for (db, table) in [("prod", "f.t"), ("f", "p.t"), ("prod", "f_cut.t")] {
        let sql = INVARIANT.replace('@', table);
        workers.push(worker(&cluster, db, &stop, move |client, _| {
            check(&client.query_one(&sql, &[]).expect("reads"));
        }));
    }
    let mut control = cluster.client("postgres");
    for round in 0..12 {
        for source in ["prod", "f"] {
            control
                .batch_execute(&format!(
                    "SELECT fork_create('{source}', '{source}_{round}')"
                ))
                .expect("a cut");
            assert_eq!(
                cluster.sql(
                    "postgres",
                    &format!("SELECT * FROM fork_check('{source}_{round}')")
                ),
                ""
            );
            let sums = cluster.sql(&format!("{source}_{round}"), &INVARIANT.replace('@', "t"));
            assert_eq!(sums, format!("{ROWS}|{}|0", 100 * ROWS));
            if round > 3 {
                control
                    .batch_execute(&format!("SELECT fork_drop('{source}_{}')", round - 3))
                    .expect("dropped");
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        assert!(worker.join().expect("no failure") > 0);
    }
    assert_eq!(
        cluster.sql("postgres", "SELECT * FROM pg_forks f, fork_check(f.name)"),
        ""
    );
    cluster.amcheck("prod");
}

#[test]
fn reading_dirties_nothing() {
    let cluster = Cluster::new("autovacuum = off\nshared_buffers = '4MB'");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE EXTENSION pg_fork; CREATE TABLE t (id int, v text); \
         INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i; SELECT fork_create('prod', 'f')",
    );
    cluster.sql(
        "prod",
        "SELECT fork_mount('f'); SELECT fork_mount('f', 'cut'); CHECKPOINT",
    );
    let before = cluster.sql("prod", "SELECT private_bytes FROM pg_forks");
    for table in ["f.t", "f_cut.t"] {
        assert_eq!(
            cluster.sql("prod", &format!("SELECT count(*) FROM {table}")),
            "20000"
        );
    }
    cluster.sql("prod", "CHECKPOINT");
    assert_eq!(
        cluster.sql("prod", "SELECT private_bytes FROM pg_forks"),
        before
    );
    assert_eq!(cluster.sql("prod", "SELECT fork_unmount('f_cut')"), "");
}

/// A local row that is changed while it is updated by a mounted one: the mounted row is asked for again.
#[test]
fn an_update_that_waited_finds_its_mounted_row() {
    let cluster = prod();
    cluster.sql("prod", "CREATE TABLE local (id int PRIMARY KEY, n int, v text); INSERT INTO local SELECT i, 0, '' FROM generate_series(1, 10) i");
    let mut first = cluster.client("prod");
    first
        .batch_execute("BEGIN; UPDATE local SET n = n + 1 WHERE id = 3")
        .expect("locks");
    let mut second = cluster.client("prod");
    let waits = thread::spawn(move || {
        second.execute(
            "UPDATE local SET n = n + 10, v = left(m.big, 8) FROM f.t m WHERE m.id = local.id",
            &[],
        )
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while cluster.sql("prod", waiting) != "1" {
        thread::sleep(Duration::from_millis(20));
    }
    cluster.sql("f", "UPDATE t SET big = reverse(big) WHERE id = 3");
    cluster.sql("f", "VACUUM t");
    first.batch_execute("COMMIT").expect("lets go");
    assert_eq!(waits.join().expect("joined").expect("updated"), 10);
    assert_eq!(
        cluster.sql(
            "prod",
            "SELECT n, v = left(md5('3'), 8) FROM local WHERE id = 3"
        ),
        "11|t"
    );
}
