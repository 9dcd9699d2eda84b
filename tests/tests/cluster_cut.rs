//! Who comes, goes or sleeps while a database is being cut: stopped, kept out, or seen.
//!
//! Needs a library built with the feature `stop_points`.

use pg_fork_tests::{sums, Cluster};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A source whose table `calm` is on disk, and `busy` dirty in more pages than are written out before a cut.
fn source(cluster: &Cluster) {
    cluster.sql("postgres", "CREATE DATABASE prod");
    let table = |name| {
        format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, v int, pad char(900) DEFAULT '') WITH (fillfactor = 20, autovacuum_enabled = off); \
             INSERT INTO {name} SELECT g, 0 FROM generate_series(1, 900) g; SELECT count(*) FROM {name}"
        )
    };
    cluster.sql("prod", &table("calm"));
    cluster.sql("prod", &table("busy"));
    cluster.sql("prod", "VACUUM; CHECKPOINT; UPDATE busy SET v = v + 1");
}

/// What both tables come to since [`source`].
const BOTH: &str = "SELECT (SELECT sum(v) FROM calm), (SELECT sum(v) FROM busy) - 900";
/// A transaction that changes both.
const ONE: &str =
    "BEGIN; UPDATE calm SET v = v + 1 WHERE id = 450; UPDATE busy SET v = v + 1 WHERE id = 450; COMMIT";

fn fork(cluster: &Cluster, name: &str, stop: &str) -> JoinHandle<Result<(), postgres::Error>> {
    let mut client = cluster.client("postgres");
    let prepare =
        format!("SET pg_fork.stop_point = '{stop}'; SET pg_fork.max_pause = '5s'; SET pg_fork.cut_timeout = '20s'");
    client.batch_execute(&prepare).expect("set");
    let create = format!("SELECT fork_create('prod', '{name}')");
    thread::spawn(move || client.batch_execute(&create))
}

/// As [`fork`], once the cutter is where it naps: at the gate, or with everyone stopped.
fn napping(cluster: &Cluster, name: &str, stop: &str) -> JoinHandle<Result<(), postgres::Error>> {
    let _witness = cluster.client("prod");
    let cutter = fork(cluster, name, &format!("{stop}:nap"));
    let there = match stop {
        "cut-gate" => "SELECT count(*) > 0 FROM pg_locks WHERE classid = 1262 AND mode = 'ShareLock' AND granted",
        _ => "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'pg_fork' AND datname = 'prod'",
    };
    while cluster.sql("postgres", there) != "t" {
        assert!(!cutter.is_finished(), "it did not nap");
    }
    thread::sleep(Duration::from_millis(50));
    cutter
}

fn counted(cluster: &Cluster, what: &str) -> u64 {
    let sql = format!("SELECT value::bigint FROM pg_fork_stats WHERE name = '{what}'");
    cluster.sql("postgres", &sql).parse().expect("a number")
}

/// It writes both tables, has their pages flushed by others, and is gone before the cut is done.
#[test]
fn who_logs_in_during_the_pause_waits_outside() {
    let cluster = Cluster::new("checkpoint_timeout = 1h");
    source(&cluster);
    let cut = napping(&cluster, "f", "cut-captured");
    let began = Instant::now();
    cluster.sql("prod", ONE);
    assert!(
        began.elapsed() > Duration::from_millis(200),
        "was not kept out"
    );
    cut.join().expect("ended").expect("a fork");
    // On a busy machine someone may have woken up before the nap was over: then it was cut anew, afterwards.
    let expected = match counted(&cluster, "cut_retries") {
        0 => "0|0",
        _ => "1|1",
    };
    assert_eq!(cluster.sql("f", BOTH), expected);
    assert_eq!(cluster.sql("prod", BOTH), "1|1");
}

/// Where something else stands in the gate, whoever came and went is noticed.
#[test]
fn who_cannot_be_kept_out_is_seen() {
    let cluster = Cluster::new("checkpoint_timeout = 1h");
    source(&cluster);
    let mut owner = cluster.client("postgres");
    let comment = "BEGIN; COMMENT ON DATABASE prod IS 'shop'";
    owner.batch_execute(comment).expect("a comment");
    let cut = napping(&cluster, "f", "cut-captured");
    cluster.sql("prod", ONE);
    cluster.sql("postgres", "CHECKPOINT");
    cut.join().expect("ended").expect("a fork");
    assert!(counted(&cluster, "cut_retries") >= 1);
    assert_eq!(cluster.sql("f", BOTH), "1|1");
    owner.batch_execute("COMMIT").expect("committed");
    cluster.amcheck("f");
    assert!(!cluster.log().contains("WARNING"), "{}", cluster.log_tail());
}

/// Blocked in a send it counts as stopped; but then it wakes up and leaves.
#[test]
fn who_leaves_during_the_pause_is_seen() {
    let cluster = Cluster::new("");
    source(&cluster);
    let copy = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT";
    let mut reader = cluster.spawn("psql", &["-X", "-d", "prod", "-c", copy]);
    // A signal has it try again, which goes well until the socket is really full.
    let blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    let nudge = "SELECT count(pg_log_backend_memory_contexts(pid)) FROM pg_stat_activity WHERE query LIKE 'COPY%'";
    let mut looks = 0;
    while looks < 5 {
        cluster.sql("postgres", nudge);
        thread::sleep(Duration::from_millis(100));
        looks = match cluster.sql("postgres", blocked).as_str() {
            "1" => looks + 1,
            _ => 0,
        };
    }
    let cut = napping(&cluster, "f", "cut-captured");
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    assert_eq!(cluster.sql("postgres", end), "1");
    cut.join().expect("ended").expect("a fork");
    assert!(counted(&cluster, "cut_retries") >= 1);
    assert_eq!(cluster.sql("f", BOTH), "0|0");
    let _ = reader.kill();
    let _ = reader.wait();
}

/// Transactions with more subtransactions than the server lists, some of which end between the look at them and
/// the stop.
#[test]
fn subtransactions_without_number_are_all_in_flight_or_none() {
    let cluster = Cluster::new("");
    source(&cluster);
    cluster.sql("prod", "CREATE TABLE parts (who text, n int)");
    let many = |who: &str, from: u32| {
        format!(
            "DO $$ BEGIN FOR i IN {from}..{from} + 299 LOOP BEGIN INSERT INTO parts VALUES ('{who}', i); IF i % 3 = 0 THEN RAISE division_by_zero; \
             END IF; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$"
        )
    };
    let mut later = cluster.client("prod");
    let begin = |who: &str| {
        let mut client = cluster.client("prod");
        client.batch_execute("BEGIN").expect("begun");
        client.batch_execute(&many(who, 1)).expect("written");
        client
    };
    let (mut open, mut commits, mut aborts) = (begin("open"), begin("commits"), begin("aborts"));
    let cut = napping(&cluster, "f", "cut-gate");
    open.batch_execute(&many("open", 301)).expect("written");
    commits
        .batch_execute(&many("commits", 301))
        .expect("written");
    commits.batch_execute("COMMIT").expect("committed");
    aborts.batch_execute("ROLLBACK").expect("undone");
    later.batch_execute("BEGIN").expect("begun");
    later.batch_execute(&many("new", 1)).expect("written");
    later.batch_execute("COMMIT").expect("committed");
    cut.join().expect("ended").expect("a fork");
    open.batch_execute("COMMIT").expect("committed");
    let look = "SELECT string_agg(who || ' ' || n, ', ' ORDER BY who) FROM (SELECT who, count(*) AS n FROM parts GROUP BY who) w";
    assert_eq!(cluster.sql("f", look), "commits 400, new 200");
    assert_eq!(cluster.sql("prod", look), "commits 400, new 200, open 400");
}

/// However many they are, the pause does not grow with them.
#[test]
fn the_pause_does_not_grow_with_subtransactions() {
    let cluster = Cluster::new("");
    source(&cluster);
    cluster.sql("prod", "CREATE UNLOGGED TABLE s (i int)");
    let mut busy = cluster.client("prod");
    busy.batch_execute("BEGIN").expect("begun");
    let many = "DO $$ BEGIN FOR i IN 1..500000 LOOP BEGIN INSERT INTO s VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$";
    busy.batch_execute(many).expect("written");
    // The shortest of some, as the machine has more to do.
    let pause = |n| {
        cluster.sql("postgres", &format!("SELECT fork_create('prod', 'f{n}')"));
        let last = "SELECT value FROM pg_fork_stats WHERE name = 'pause_last'";
        cluster.sql("postgres", last).parse::<f64>().expect("ms")
    };
    let shortest = (0..6).map(pause).fold(f64::MAX, f64::min);
    assert!(shortest < 15.0, "{shortest} ms");
    busy.batch_execute("COMMIT").expect("committed");
    assert_eq!(cluster.sql("f0", "SELECT count(*) FROM s"), "0");
}

/// However long `fork_create` may try, one that does not answer has nobody stand still for long at a time.
#[test]
fn one_that_does_not_answer_stops_the_others_for_short_times_only() {
    let cluster = Cluster::new("");
    source(&cluster);
    let mut asleep = cluster.client("prod");
    let pid: i32 = asleep
        .query_one("SELECT pg_backend_pid()", &[])
        .expect("a number")
        .get(0);
    let signal = |name: &str| {
        let done = std::process::Command::new("kill")
            .args([name, &pid.to_string()])
            .status();
        assert!(done.expect("kill runs").success());
    };
    let mut prober = cluster.client("prod");
    signal("-STOP");
    let longest = thread::scope(|scope| {
        let tries = scope.spawn(|| {
            for _ in 0..2 {
                let error = cluster.error("postgres", "SELECT fork_create('prod', 'f')");
                assert!(error.contains(&pid.to_string()), "{error}");
            }
        });
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        while !tries.is_finished() {
            prober.batch_execute("SELECT 1").expect("answers");
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        tries.join().expect("ended");
        longest
    });
    signal("-CONT");
    // A fifteenth of the five seconds, and what a busy machine takes.
    assert!(longest < Duration::from_millis(900), "{longest:?}");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
}

/// A connection for each transaction, long pauses, and forks all the while: none fails, and in each the four
/// sums agree.
#[test]
fn forks_beside_a_connection_for_each_transaction() {
    let cluster =
        Cluster::new("max_connections = 200\ncheckpoint_timeout = 30s\nmax_wal_size = 64MB");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "4", "prod"]);
    let mut load = cluster.spawn(
        "pgbench",
        &["-nC", "-c", "48", "-j", "8", "-T", "25", "prod"],
    );
    let end = Instant::now() + Duration::from_secs(22);
    let mut made = 0;
    while Instant::now() < end {
        let name = format!("f{made}");
        let stop = ["", "cut-captured:nap", "cut-twice:look", "cut-stopped:nap"][made % 4];
        fork(&cluster, &name, stop)
            .join()
            .expect("ended")
            .expect("a fork");
        sums(&cluster, &name);
        if made % 4 == 0 {
            cluster.amcheck(&name);
        }
        cluster.sql("postgres", &format!("SELECT fork_drop('{name}')"));
        made += 1;
    }
    load.wait().expect("ended");
    assert!(made >= 5, "{made} forks");
    sums(&cluster, "prod");
}

/// A client that leaves its transaction open after `fork_create` is in nobody's way.
#[test]
fn an_open_transaction_blocks_no_vacuum() {
    let cluster = Cluster::new("");
    source(&cluster);
    let mut client = cluster.client("postgres");
    let create = "BEGIN; SELECT fork_create('prod', 'f1'); SELECT fork_create('prod', 'f2')";
    client.batch_execute(create).expect("two forks");
    cluster.sql("prod", "SET statement_timeout = '10s'; VACUUM FREEZE");
    client.batch_execute("COMMIT").expect("committed");
    for fork in ["f1", "f2"] {
        assert_eq!(cluster.sql(fork, BOTH), "0|0");
        cluster.amcheck(fork);
    }
}

/// Nothing keeps the commit log for a fork that was not committed while all databases were frozen: then it cannot
/// be any more. In a row of its own it would.
#[test]
fn a_fork_that_came_too_late_for_the_commit_log_is_refused() {
    let cluster = Cluster::new("");
    source(&cluster);
    cluster.sql("postgres", "ALTER DATABASE template0 ALLOW_CONNECTIONS on");
    cluster.sql("postgres", "SELECT fork_create('prod', 'kept')");
    cluster.sql("postgres", "SELECT fork_drop('kept')");
    let mut client = cluster.client("postgres");
    let create = "BEGIN; SELECT fork_create('prod', 'f'); SELECT fork_create('prod', 'g')";
    client.batch_execute(create).expect("two forks");
    cluster.must("vacuumdb", &["--all", "--freeze", "-q"]);
    let error = client.batch_execute("COMMIT").expect_err("too late");
    assert_eq!(
        error.code().map(|code| code.code()),
        Some("40001"),
        "{error}"
    );
    cluster.wait_for_folders(0);
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    assert_eq!(cluster.sql("f", BOTH), "0|0");
}
