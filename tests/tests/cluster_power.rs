//! Power loss, rehearsed: an XFS on a loop device that is shut down under load, without its log being
//! written. `PG_FORK_ROUNDS` (10) says how often.

use pg_fork_core::format::server::Server;
use pg_fork_tests::{sums, working_in, Cluster};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn must(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    assert!(
        status.expect("it runs").success(),
        "{program} {}",
        args.join(" ")
    );
}

/// The filesystem, mounted; gone with the value.
struct Disk {
    image: PathBuf,
    dir: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let name = format!("pgfork-disk-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).expect("a directory");
        let disk = Disk {
            image: dir.with_extension("img"),
            dir,
        };
        let image = fs::File::create(&disk.image).expect("an image");
        image.set_len(1 << 30).expect("sparse");
        must("mkfs.xfs", &["-q", &disk.image.display().to_string()]);
        disk.mount();
        must("chmod", &["1777", &disk.dir.display().to_string()]);
        disk
    }

    fn mount(&self) {
        let [image, dir] = [&self.image, &self.dir].map(|path| path.display().to_string());
        must("mount", &["-o", "loop", &image, &dir]);
    }

    /// What is not on the disk now is lost.
    fn lose_power(&self, data: &str) {
        let dir = self.dir.display().to_string();
        must("xfs_io", &["-x", "-c", "shutdown", &dir]);
        loop {
            let left = working_in(data);
            if left.is_empty() {
                break;
            }
            let _ = Command::new("kill").arg("-9").args(&left).status();
            std::thread::sleep(Duration::from_millis(10));
        }
        // The last of them may hold the directory for a moment.
        let unmounted = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            Command::new("umount")
                .arg(&dir)
                .output()
                .is_ok_and(|out| out.status.success())
        });
        assert!(unmounted, "{dir} is in use");
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        let _ = fs::remove_dir(&self.dir);
        let _ = fs::remove_file(&self.image);
    }
}

/// Tells the next start that the machine was started anew: only its disk was.
fn another_boot(cluster: &Cluster) {
    let path = format!("{}/pgsql_tmp_pg_fork/server", cluster.data());
    let mut server = Server::decode(&fs::read(&path).expect("the file")).expect("whole");
    server.boot[0] ^= 1;
    fs::write(&path, server.encode()).expect("written");
}

#[test]
fn a_power_loss_costs_no_more_than_forks_of_busy_sources() {
    let rounds = std::env::var("PG_FORK_ROUNDS").map_or(10, |n| n.parse().expect("a number"));
    let disk = Disk::new();
    std::env::set_var("TMPDIR", &disk.dir);
    let cluster =
        Cluster::new("max_wal_size = 200MB\nmin_wal_size = 80MB\ncheckpoint_timeout = 30s");
    std::env::remove_var("TMPDIR");
    assert!(Path::new(&cluster.data()).starts_with(&disk.dir));
    // The tests' initdb does not.
    must("sync", &["-f", &cluster.data()]);
    cluster.sql("postgres", "CREATE DATABASE prod; CREATE DATABASE calm");
    for db in ["prod", "calm"] {
        cluster.must("pgbench", &["-qi", "-s", "1", db]);
    }
    cluster.sql("prod", "CREATE TABLE acks (n int PRIMARY KEY)");
    cluster.sql("calm", "VACUUM FREEZE; CHECKPOINT");
    cluster.sql("postgres", "SELECT fork_create('calm', 'of_calm')");
    cluster.sql("of_calm", "UPDATE pgbench_accounts SET abalance = 1 WHERE aid = 7; UPDATE pgbench_tellers SET tbalance = 1 WHERE tid = 1; \
                            UPDATE pgbench_branches SET bbalance = 1; INSERT INTO pgbench_history (delta) VALUES (1)");
    let calm = sums(&cluster, "of_calm");
    let oid = cluster.sql(
        "postgres",
        "SELECT oid FROM pg_forks WHERE name = 'of_calm'",
    );
    let mark = format!(
        "{}/pgsql_tmp_pg_fork/{oid}/pgsql_tmp_unsynced",
        cluster.data()
    );
    cluster.sql("postgres", "CHECKPOINT");
    while Path::new(&mark).exists() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut invalid = 0;
    for round in 0..rounds {
        cluster.sql("postgres", "SELECT fork_create('prod', 'of_prod')");
        let seen = sums(&cluster, "of_prod");
        let mut load = cluster.spawn("pgbench", &["-n", "-c", "4", "-T", "60", "prod"]);
        let told = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let Some(mut client) = cluster.try_client("prod") else {
                    return;
                };
                let first = cluster.sql("prod", "SELECT coalesce(max(n), 0) FROM acks");
                for n in first.parse::<u64>().expect("a number") + 1.. {
                    if client
                        .batch_execute(&format!("INSERT INTO acks VALUES ({n})"))
                        .is_err()
                    {
                        return;
                    }
                    told.store(n, Ordering::SeqCst);
                }
            });
            std::thread::sleep(Duration::from_millis(700 + 130 * (round % 7)));
            if round % 3 == 0 {
                cluster.sql("postgres", "CHECKPOINT");
            }
            let postmaster = format!("/proc/{}", cluster.pid().expect("a server"));
            disk.lose_power(&cluster.data());
            while Path::new(&postmaster).exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let _ = load.kill();
        let _ = load.wait();
        another_boot(&cluster);
        cluster.start();
        sums(&cluster, "prod");
        cluster.amcheck("prod");
        let acks = cluster.sql("prod", "SELECT count(*) = max(n), max(n) FROM acks");
        let (whole, max) = acks.split_once('|').expect("two columns");
        assert_eq!(whole, "t", "round {round}");
        let told = told.load(Ordering::SeqCst);
        assert!(
            max.parse::<u64>().expect("a number") >= told,
            "round {round}: {max} of {told}"
        );
        assert_eq!(sums(&cluster, "of_calm"), calm, "round {round}");
        cluster.amcheck("of_calm");
        // The one whose source is being written to is whole or says what happened to it.
        let state =
            "SELECT state || ' ' || coalesce(reason, '') FROM pg_forks WHERE name = 'of_prod'";
        let state = cluster.sql("postgres", state);
        if state.starts_with("ready") {
            assert_eq!(sums(&cluster, "of_prod"), seen, "round {round}");
        } else if state.starts_with("invalid") {
            let told = ["machine", "its meta file cannot be read"];
            assert!(
                told.iter().any(|reason| state.contains(reason)),
                "round {round}: {state}"
            );
            invalid += 1;
        } else {
            panic!("round {round}: the fork is gone without a word: {state}");
        }
        cluster.sql("postgres", "SELECT fork_drop('of_prod')");
    }
    println!("{rounds} rounds, {invalid} forks of the busy source were invalid");
    drop(cluster);
    drop(disk);
}
