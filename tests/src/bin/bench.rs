//! `make bench`: fork_create against a durable one-row INSERT in the same run, idle and under load.

use pg_fork_tests::Cluster;
use std::fs;

/// Median and 99th percentile of a statement's latency in ms, as pgbench logs it.
fn latency(cluster: &Cluster, script: &str, times: &str) -> (f64, f64) {
    let dir = fs::canonicalize(format!("{}/..", cluster.data())).expect("the directory");
    let path = dir.join("bench.sql").display().to_string();
    fs::write(&path, script).expect("written");
    let prefix = dir.join("bench").display().to_string();
    cluster.must(
        "pgbench",
        &[
            "-n",
            "-c",
            "1",
            "-t",
            times,
            "-f",
            &path,
            "-l",
            "--log-prefix",
            &prefix,
            "postgres",
        ],
    );
    let mut all = Vec::new();
    for entry in fs::read_dir(&dir).expect("readable").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("bench.") && name != "bench.sql" {
            let text = fs::read_to_string(entry.path()).expect("the log");
            all.extend(
                text.lines()
                    .filter_map(|l| l.split(' ').nth(2)?.parse::<f64>().ok())
                    .map(|us| us / 1000.0),
            );
            fs::remove_file(entry.path()).expect("removed");
        }
    }
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[all.len() * 99 / 100])
}

fn main() {
    println!("| source | load | commit median (ms) | fork_create median (ms) | p99 (ms) | ratio to commit | pause mean (ms) | pause max (ms) |");
    println!("|---|---|---|---|---|---|---|---|");
    for (name, scale) in [("15 MB", "1"), ("1 GB", "68")] {
        for clients in [0, 8] {
            let cluster = Cluster::new("max_wal_size = '8GB'");
            cluster.sql("postgres", "CREATE DATABASE prod; CREATE TABLE one (v int)");
            cluster.must("pgbench", &["-qi", "-s", scale, "prod"]);
            cluster.sql("postgres", "CHECKPOINT");
            let commit = latency(&cluster, "INSERT INTO one VALUES (1);\n", "200");
            let load = (clients > 0).then(|| {
                cluster.spawn(
                    "pgbench",
                    &["-n", "-c", "8", "-j", "2", "-T", "600", "prod"],
                )
            });
            let fork = latency(&cluster, "SELECT fork_create('prod');\n", "100");
            if let Some(mut load) = load {
                cluster.sql(
                    "postgres",
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'prod'",
                );
                let _ = load.wait();
            }
            let pause = |name: &str| {
                cluster.sql(
                    "postgres",
                    &format!(
                        "SELECT round(value::numeric, 2) FROM pg_fork_stats WHERE name = '{name}'"
                    ),
                )
            };
            println!(
                "| {name} | {clients} writers | {:.2} | {:.2} | {:.2} | {:.1} | {} | {} |",
                commit.0,
                fork.0,
                fork.1,
                fork.0 / commit.0,
                pause("pause_mean"),
                pause("pause_max")
            );
        }
    }
}
