//! Processes that look for no interrupt are stopped for a cut where the signal arrives.
//!
//! Needs a library built with the feature `stop_points`, and plpython3u.

use pg_fork_tests::{sums, Cluster};
use postgres::Client;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CODE: &str = "CREATE EXTENSION plpython3u; \
    CREATE FUNCTION sleeps(s float) RETURNS int LANGUAGE plpython3u AS 'import time\ntime.sleep(s)\nreturn 1'; \
    CREATE FUNCTION spins(s float) RETURNS int LANGUAGE plpython3u AS 'import time\nend = time.time() + s\nwhile time.time() < end:\n  pass\nreturn 1'; \
    CREATE FUNCTION threads(s float) RETURNS int LANGUAGE plpython3u AS 'import threading, time\nt = threading.Thread(target=time.sleep, args=(s,))\nt.start()\nt.join()\nreturn 1'; \
    CREATE FUNCTION shells(s float) RETURNS int LANGUAGE plpython3u AS 'import subprocess\nsubprocess.run([\"sleep\", str(s)])\nreturn 1'; \
    CREATE FUNCTION is_deaf(s float) RETURNS int LANGUAGE plpython3u AS 'import signal, time\nsignal.signal(signal.SIGUSR1, lambda *a: None)\ntime.sleep(s)\nreturn 1'";

fn source(settings: &str) -> Cluster {
    let cluster = Cluster::new(settings);
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "2", "prod"]);
    cluster.sql("prod", CODE);
    cluster
}

/// A session that runs this, once the server says that it does.
fn busy(cluster: &Cluster, sql: &str) -> thread::JoinHandle<(Client, u64)> {
    let mut client = cluster.client("prod");
    let statement = sql.to_string();
    let session = thread::spawn(move || {
        let rows = client.execute(&statement, &[]).expect(&statement);
        (client, rows)
    });
    let runs = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = $q${sql}$q$"
    );
    while cluster.sql("postgres", &runs) == "0" {
        thread::sleep(Duration::from_millis(5));
    }
    session
}

fn counted(cluster: &Cluster, what: &str) -> u64 {
    let sql = format!("SELECT value::bigint FROM pg_fork_stats WHERE name = '{what}'");
    cluster.sql("postgres", &sql).parse().expect("a number")
}

/// Each of these would have a cut of its database time out if it were waited for.
#[test]
fn foreign_code_and_waits_for_clients_do_not_delay_a_cut() {
    let cluster = source("");
    let began = Instant::now();
    let sessions = [
        busy(&cluster, "SELECT sleeps(25)"),
        busy(&cluster, "SELECT spins(25)"),
        busy(&cluster, "SELECT threads(25)"),
        busy(&cluster, "SELECT shells(25)"),
        busy(
            &cluster,
            "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null && sleep 25'",
        ),
    ];
    let mut load = cluster.spawn(
        "psql",
        &[
            "-Xq",
            "-d",
            "prod",
            "-c",
            "COPY pgbench_branches FROM STDIN",
        ],
    );
    let input = load.stdin.as_mut().expect("a pipe");
    input.write_all(b"101\t0\t\\N\n").expect("sent");
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY pgbench_branches%' AND wait_event = 'ClientRead'";
    while cluster.sql("postgres", waits) == "0" {}
    for n in 0..5 {
        let made = Instant::now();
        cluster.sql("postgres", &format!("SELECT fork_create('prod', 'f{n}')"));
        assert!(
            made.elapsed() < Duration::from_secs(4),
            "{:?}",
            made.elapsed()
        );
        assert_eq!(
            cluster.sql(&format!("f{n}"), "SELECT count(*) FROM pgbench_branches"),
            "2"
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "they were not there any more"
    );
    input.write_all(b"102\t0\t\\N\n\\.\n").expect("sent");
    drop(load.stdin.take());
    assert!(load.wait().expect("ended").success());
    assert_eq!(
        cluster.sql("prod", "SELECT count(*) FROM pgbench_branches"),
        "4"
    );
    // None of them notices: no error, and nothing was cut short.
    for session in sessions {
        session.join().expect("ended well");
    }
    assert!(began.elapsed() >= Duration::from_secs(25));
    cluster.amcheck("f0");
}

/// One that is asleep for longer than a cut may take leaves by itself, and the cut does not count.
#[test]
fn who_wakes_up_before_the_cut_is_done_voids_it() {
    let cluster = source("");
    let session = busy(&cluster, "SELECT sleeps(12)");
    let sql = "SET pg_fork.stop_point = 'cut-captured:nap';\nSET pg_fork.cut_timeout = '2s';\nSELECT fork_create('prod', 'f');\n";
    let out = cluster.script("postgres", sql);
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(error.contains("55P03"), "{error}");
    assert!(counted(&cluster, "cut_retries") >= 1);
    assert_eq!(counted(&cluster, "cuts"), 0);
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    session.join().expect("ended well");
}

/// Its own handler has taken the signal away: the error says which it is and what it does.
#[test]
fn who_cannot_be_stopped_is_named() {
    let cluster = source("");
    let session = busy(&cluster, "SELECT is_deaf(8)");
    let pid = cluster.sql(
        "postgres",
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%is_deaf%' AND datname = 'prod'",
    );
    let error = cluster.expect_error("postgres", "SELECT fork_create('prod', 'f')", "55P03");
    assert!(
        error.contains(&format!("{pid} (client backend, runs)")),
        "{error}"
    );
    session.join().expect("ended well");
}

/// Its session ends while it is stopped; a fast shutdown waits for nobody.
#[test]
fn signals_that_come_meanwhile_are_served_afterwards() {
    let cluster = source("");
    let mut asleep = cluster.client("prod");
    let pid: i32 = asleep
        .query_one("SELECT pg_backend_pid()", &[])
        .expect("a number")
        .get(0);
    let session = thread::spawn(move || asleep.batch_execute("SELECT sleeps(6)"));
    thread::sleep(Duration::from_millis(300));
    let mut cutter = cluster.client("postgres");
    cutter
        .batch_execute(
            "SET pg_fork.stop_point = 'cut-captured:nap'; SET pg_fork.cut_timeout = '3s'",
        )
        .expect("set");
    let cutter = thread::spawn(move || cutter.batch_execute("SELECT fork_create('prod', 'f')"));
    thread::sleep(Duration::from_millis(300));
    cluster.sql("postgres", &format!("SELECT pg_terminate_backend({pid})"));
    let _ = cutter.join().expect("ended");
    // Python sleeps on; then the session ends.
    assert!(session.join().expect("ended").is_err());
    cluster.sql("postgres", "SELECT fork_create('prod', 'g')");
    assert_eq!(
        cluster.sql("g", "SELECT count(*) FROM pgbench_branches"),
        "2"
    );
    cluster.stop("fast");
}

/// Pages are looked at twice while everyone is stopped by the signal alone, in the middle of all that changes pages.
#[test]
fn no_page_changes_while_everyone_is_stopped_by_the_signal() {
    let cluster = source("autovacuum_naptime = 1s\ncheckpoint_timeout = 30s\nmax_wal_size = 128MB\nshared_buffers = 48MB");
    cluster.sql(
        "prod",
        "CREATE TABLE m (id int PRIMARY KEY, t text, a int[], p point); CREATE INDEX ON m USING gin (a); CREATE INDEX ON m USING gist (p); \
         CREATE INDEX ON m USING hash (t); CREATE INDEX ON m USING brin (id); INSERT INTO m SELECT g, md5(g::text), ARRAY[g, g % 7], point(g, g % 13) FROM generate_series(1, 4000) g",
    );
    let seconds = 25;
    let mut load = cluster.spawn(
        "pgbench",
        &[
            "-n",
            "-c",
            "6",
            "-j",
            "2",
            "-T",
            &seconds.to_string(),
            "prod",
        ],
    );
    let mut storm = cluster.spawn(
        "pgbench",
        &["-nSC", "-c", "4", "-T", &seconds.to_string(), "prod"],
    );
    let over = AtomicBool::new(false);
    let statements: [&[&str]; 4] = [
        &["UPDATE m SET t = md5(t), a = a || 5, p = point(id, random()) WHERE id % 50 = 3", "DELETE FROM m WHERE id % 97 = 5", "INSERT INTO m SELECT g, 'x' || g, ARRAY[g], point(g, 1) FROM generate_series(1, 4000) g ON CONFLICT DO NOTHING"],
        &["VACUUM m", "REINDEX TABLE m", "CLUSTER m USING m_pkey", "VACUUM FULL m", "ANALYZE"],
        &["CREATE TABLE x AS SELECT g, repeat('y', 50) AS y FROM generate_series(1, 9000) g", "CREATE INDEX ON x (g)", "ALTER TABLE x ALTER y TYPE varchar(60)", "TRUNCATE x", "DROP TABLE x"],
        &["SELECT sleeps(0.2), spins(0.1)", "SELECT lo_unlink(lo_from_bytea(0, repeat('z', 9000)::bytea))", "DO $$ BEGIN FOR i IN 1..80 LOOP BEGIN INSERT INTO pgbench_history VALUES (1, 1, 1, 0, now(), NULL); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$"],
    ];
    let made = thread::scope(|scope| {
        for group in statements {
            let (cluster, over) = (&cluster, &over);
            scope.spawn(move || {
                let mut client = cluster.client("prod");
                while !over.load(Ordering::Relaxed) {
                    for sql in group {
                        // A deadlock or a lost race is nothing of ours.
                        let _ = client.batch_execute(sql);
                    }
                }
            });
        }
        let mut cutter = cluster.client("postgres");
        cutter
            .batch_execute("SET pg_fork.stop_point = 'cut-twice:halt'; SET pg_fork.cut_timeout = '20s'; SET pg_fork.max_pause = '100ms'")
            .expect("set");
        /// The load ends with the forks, however they end.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&over);
        let end = Instant::now() + Duration::from_secs(seconds - 3);
        let mut made = 0;
        while Instant::now() < end {
            let name = format!("f{made}");
            let create = format!("SELECT fork_create('prod', '{name}')");
            cutter.batch_execute(&create).expect("a fork");
            sums(&cluster, &name);
            if made % 8 == 0 {
                cluster.amcheck(&name);
            }
            let drop = format!("SELECT fork_drop('{name}')");
            cutter.batch_execute(&drop).expect("dropped");
            made += 1;
        }
        made
    });
    load.wait().expect("ended");
    storm.wait().expect("ended");
    println!(
        "{made} forks, {} tries more",
        counted(&cluster, "cut_retries")
    );
    assert!(made >= 1, "{made} forks");
    assert!(!cluster.log().contains("PANIC"), "{}", cluster.log_tail());
    cluster.amcheck("prod");
}
