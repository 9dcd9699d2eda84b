//! Kill -9 at random moments, under load on the source and on forks, with checkpoints, forks and drops
//! under way. `PG_FORK_ROUNDS` (10) says how often, `PG_FORK_SEED` which moments and victims.

use pg_fork_tests::{sums, working_in, Cluster};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Rows that a client was told are committed, in a database that has `acks`.
#[derive(Default)]
struct Ledger(AtomicU64);

impl Ledger {
    /// Inserts one row after the other until the server is gone.
    fn write(&self, cluster: &Cluster, db: &str) {
        let Some(mut client) = cluster.try_client(db) else {
            return;
        };
        loop {
            let next = self.0.load(Ordering::SeqCst) + 1;
            if client
                .batch_execute(&format!("INSERT INTO acks VALUES ({next})"))
                .is_err()
            {
                return;
            }
            self.0.store(next, Ordering::SeqCst);
        }
    }

    /// All that was acknowledged is there, and at most one row more, which becomes so now.
    fn check(&self, cluster: &Cluster, db: &str) {
        let found = cluster.sql(db, "SELECT count(*), coalesce(max(n), 0) FROM acks");
        let (count, max) = found.split_once('|').expect("two columns");
        assert_eq!(count, max, "{db}");
        let max: u64 = max.parse().expect("a number");
        let told = self.0.swap(max, Ordering::SeqCst);
        assert!(
            max == told || max == told + 1,
            "{db}: {told} acknowledged, {max} found"
        );
    }
}

/// Forks are made, looked at, written to and dropped until the server is gone. Returns those that
/// were left alone, with what was in them at first.
fn come_and_go(cluster: &Cluster, round: u64) -> Vec<(String, String)> {
    let mut kept = Vec::new();
    for n in 0.. {
        let name = format!("r{round}_{n}");
        let make = format!("SELECT fork_create('prod', '{name}')");
        let Some(mut client) = cluster.try_client("postgres") else {
            return kept;
        };
        if client.batch_execute(&make).is_err() {
            return kept;
        }
        if n == 1 {
            let Some(seen) = cluster.try_sums(&name) else {
                return kept;
            };
            kept.push((name, seen));
            continue;
        }
        let Some(mut inside) = cluster.try_client(&name) else {
            return kept;
        };
        let change = "UPDATE pgbench_accounts SET abalance = 1 WHERE aid % 97 = 0; DROP TABLE pgbench_history";
        let make = format!("SELECT fork_create('{name}', '{name}_of')");
        let drop = format!("SELECT fork_drop('{name}_of'); SELECT fork_drop('{name}')");
        if inside.batch_execute(change).is_err()
            || client.batch_execute(&make).is_err()
            || client.batch_execute(&drop).is_err()
        {
            return kept;
        }
    }
    kept
}

/// Kills the whole server, or one of its processes, after which it starts again by itself.
fn kill(cluster: &Cluster, random: &mut Random) -> String {
    let postmaster = cluster.pid().expect("a server");
    let out = Command::new("pgrep")
        .args(["-P", &postmaster])
        .output()
        .expect("pgrep runs");
    let children = String::from_utf8(out.stdout).expect("numbers");
    let children: Vec<&str> = children.split_whitespace().collect();
    if random.below(3) == 0 {
        kill_9(&[&postmaster]);
        // Its children, and those that it was just making.
        loop {
            let left = working_in(&cluster.data());
            let gone = !Path::new(&format!("/proc/{postmaster}")).exists();
            if left.is_empty() && gone {
                break;
            }
            kill_9(&left.iter().map(String::as_str).collect::<Vec<_>>());
            std::thread::sleep(Duration::from_millis(5));
        }
        cluster.start();
        return "all".into();
    }
    let crashes = || cluster.log().matches("was terminated by signal 9").count();
    let before = crashes();
    loop {
        let one = children[random.below(children.len() as u64) as usize];
        let command = std::fs::read(format!("/proc/{one}/cmdline")).unwrap_or_default();
        kill_9(&[one]);
        // It may have ended by itself just before.
        for _ in 0..40 {
            if crashes() > before {
                return String::from_utf8_lossy(&command).replace('\0', " ");
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }
}

fn kill_9(pids: &[&str]) {
    let mut command = Command::new("kill");
    let _ = command.arg("-9").args(pids).stderr(Stdio::null()).status();
}

#[test]
fn kill_9_at_random_moments_loses_nothing() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = number(
        "PG_FORK_SEED",
        now.expect("after 1970").subsec_nanos().into(),
    );
    let rounds = number("PG_FORK_ROUNDS", 10);
    println!("PG_FORK_SEED={seed} PG_FORK_ROUNDS={rounds}");
    let mut random = Random(seed);
    let buffers = ["1MB", "16MB", "128MB"][random.below(3) as usize];
    // Without checksums replay leaves more pages dirty (bufmgr.c, `MarkBufferDirtyHint`).
    let checksums = [&[][..], &["-k"]][random.below(2) as usize];
    let settings = format!(
        "shared_buffers = {buffers}\ncheckpoint_timeout = 30s\npg_fork.page_map_memory = 1MB"
    );
    let cluster = Cluster::made(&settings, checksums);
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "1", "prod"]);
    cluster.sql("prod", "CREATE TABLE acks (n int PRIMARY KEY)");
    cluster.sql("postgres", "SELECT fork_create('prod', 'kept')");
    let (prod, fork) = (Ledger::default(), Ledger::default());
    let mut still: Vec<(String, String)> = Vec::new();
    for round in 0..rounds {
        let mut loads: Vec<_> = ["prod", "kept"]
            .map(|db| cluster.spawn("pgbench", &["-n", "-c", "3", "-T", "60", db]))
            .into();
        let done = AtomicBool::new(false);
        let (victim, left) = std::thread::scope(|scope| {
            scope.spawn(|| prod.write(&cluster, "prod"));
            scope.spawn(|| fork.write(&cluster, "kept"));
            let forks = scope.spawn(|| come_and_go(&cluster, round));
            scope.spawn(|| {
                if let Some(mut client) = cluster.try_client("postgres") {
                    while !done.load(Ordering::Relaxed)
                        && client.batch_execute("CHECKPOINT").is_ok()
                    {
                        std::thread::sleep(Duration::from_millis(150));
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(100 + random.below(1500)));
            let victim = kill(&cluster, &mut random);
            done.store(true, Ordering::Relaxed);
            (victim, forks.join().expect("ends"))
        });
        for load in &mut loads {
            let _ = load.kill();
            let _ = load.wait();
        }
        cluster.wait_until_up();
        println!("round {round}: killed {victim}");
        still.extend(left);
        sums(&cluster, "prod");
        sums(&cluster, "kept");
        prod.check(&cluster, "prod");
        fork.check(&cluster, "kept");
        let states =
            "SELECT string_agg(name || ': ' || reason, ', ') FROM pg_forks WHERE state <> 'ready'";
        assert_eq!(
            cluster.sql("postgres", states),
            "",
            "round {round}, {victim}"
        );
        for (name, seen) in &still {
            assert_eq!(&sums(&cluster, name), seen, "{name} in round {round}");
        }
        for db in ["prod", "kept"] {
            cluster.amcheck(db);
        }
        for (name, _) in &still {
            cluster.amcheck(name);
        }
        if still.len() > 2 {
            let (name, _) = still.remove(0);
            cluster.sql("postgres", &format!("SELECT fork_drop('{name}')"));
        }
        let others = "SELECT name FROM pg_forks WHERE name LIKE 'r%' ORDER BY depth DESC";
        for name in cluster.sql("postgres", others).lines() {
            if !still.iter().any(|(kept, _)| kept == name) {
                cluster.amcheck(name);
                cluster.sql("postgres", &format!("SELECT fork_drop('{name}')"));
            }
        }
    }
}
