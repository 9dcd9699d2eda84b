//! Thousands of forks: at a time, and one after the other.

use super::storage;
use crate::bench::{self, timed, Bench};
use crate::chart::Chart;
use crate::line::{Line, Outcome};
use crate::stats::Samples;
use pg_fork_tests::Cluster;
use std::time::Duration;

/// Forks at the start and at the end whose creation is compared.
const COMPARED: usize = 50;

pub fn live(bench: &Bench) -> Outcome {
    let count = bench.options.forks as usize;
    let cluster = bench::server(&format!("pg_fork.max_forks = {}", count + 10));
    bench::fill(&cluster, "prod", 1);
    let mut client = cluster.client("postgres");
    let mut creates = Vec::new();
    let mut forks = Vec::new();
    for _ in 0..count {
        let (ms, fork) = bench::create(&mut client, "prod");
        creates.push(ms);
        forks.push(fork);
    }
    let answers = forks.iter().map(|fork| {
        let (ms, row) = timed(|| {
            let sql = "SELECT count(*) FROM pgbench_branches";
            cluster.client(fork).query_one(sql, &[]).expect("answered")
        });
        assert_eq!(row.get::<_, i64>(0), 1, "{fork}");
        ms
    });
    let answers = Samples::new(answers.collect());
    // Around the tenth fork, and around the last.
    let compared = COMPARED.min(count / 2);
    let first = Samples::new(creates[..compared].to_vec());
    let last = Samples::new(creates[count - compared..].to_vec());
    let points = creates
        .chunks(50.min(count))
        .enumerate()
        .map(|(i, chunk)| ((i * 50) as f64, Samples::new(chunk.to_vec()).median()));
    let chart = Chart {
        name: "many",
        title: "fork_create by the number of live forks".into(),
        x: "live forks",
        y: "ms, median of 50",
        series: vec![("fork_create".into(), points.collect())],
        log: false,
    };
    let of = format!("× the first {compared}");
    let lines = vec![
        Line::ratio(format!("fork_create at {count} live"), last, &first, &of).at_most(2.0),
        Line::of(
            "forks that answer a query, connecting in turn",
            answers,
            count as f64,
            "ms",
            "forks",
        )
        .at_least(count as f64),
    ];
    Outcome {
        charts: vec![chart],
        ..lines.into()
    }
}

/// Short-lived forks beside a long-lived one, while the source changes between their cuts.
pub fn churn(bench: &Bench) -> Outcome {
    let cycles = bench.options.churn;
    let cluster = bench::server("");
    bench::fill(&cluster, "prod", 10);
    let mut client = cluster.client("postgres");
    let mut writer = cluster.client("prod");
    bench::create(&mut client, "prod");
    let lsn = cluster.sql("postgres", "SELECT cut_lsn FROM pg_forks");
    let (mut times, mut points) = (Vec::new(), Vec::new());
    for cycle in 0..cycles {
        let aid = (i64::from(cycle) * 7919 % 1_000_000 + 1).to_string();
        let update =
            format!("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = {aid}");
        writer.batch_execute(&update).expect("updated");
        let (ms, ()) = timed(|| {
            let (_, fork) = bench::create(&mut client, "prod");
            bench::drop_fork(&mut client, &fork);
        });
        times.push(ms);
        if cycle % (cycles / 50).max(1) == 0 {
            points.push((f64::from(cycle), storage::of_forks(&cluster) / 1048576.0));
        }
    }
    settle(&cluster);
    cluster.sql("postgres", "CHECKPOINT");
    let left = storage::of_forks(&cluster);
    let changed = storage::changed_since(&cluster, "prod", &lsn);
    let peak = points.iter().map(|p| p.1).fold(0.0, f64::max);
    points.push((f64::from(cycles), left / 1048576.0));
    let folders = Samples::new(vec![cluster.folders() as f64]);
    let chart = Chart {
        name: "churn",
        title: "Disk of short-lived forks beside a long-lived one".into(),
        x: "forks created and dropped",
        y: "MB",
        series: vec![("forks and layers".into(), points)],
        log: false,
    };
    let needed = changed * 8192.0;
    let bytes = Samples::new(vec![left / 1048576.0]);
    let lines = vec![
        Line::of(
            "disk left",
            bytes,
            left / needed,
            "MB",
            "× the pages changed since the first cut",
        )
        .beside(needed / 1048576.0)
        .at_most(1.1),
        Line::of(
            "folders left",
            folders.clone(),
            folders.median(),
            "",
            "(of the fork and of layers)",
        ),
        Line::of(
            "largest on the way",
            Samples::new(vec![peak]),
            peak,
            "MB",
            "MB",
        ),
        Line::of(
            "create and drop",
            Samples::new(times.clone()),
            Samples::new(times).median(),
            "ms",
            "ms",
        ),
    ];
    Outcome {
        charts: vec![chart],
        ..lines.into()
    }
}

/// Waits until the worker has nothing more to merge or to remove: no folder goes for three seconds.
fn settle(cluster: &Cluster) {
    let mut last = (cluster.folders(), 0);
    while last.1 < 6 {
        std::thread::sleep(Duration::from_millis(500));
        let now = cluster.folders();
        last = (now, if now == last.0 { last.1 + 1 } else { 0 });
    }
}
