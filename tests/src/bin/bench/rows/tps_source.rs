//! What the extension and its forks cost those who work in the source.

use super::load;
use crate::bench::{self, Bench};
use crate::chart::Chart;
use crate::line::{Line, Outcome};
use crate::pgbench::{self, Script};

/// The same data directory, started with the library and without, in turn.
pub fn stock(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let seconds = bench.options.seconds;
    let run = |library: &str| {
        cluster.set(&format!("shared_preload_libraries = '{library}'"));
        cluster.stop("fast");
        cluster.start();
        bench::settle(cluster);
        // As many pages in the cache as the run would leave there.
        pgbench::run(cluster, "prod", Script::SelectOnly, seconds.div_ceil(3));
        let select = pgbench::run(cluster, "prod", Script::SelectOnly, seconds);
        bench::settle(cluster);
        (pgbench::run(cluster, "prod", Script::Tpcb, seconds), select)
    };
    let (mut tpcb, mut select) = (Vec::new(), Vec::new());
    for round in 0..bench.options.rounds {
        // The order changes, so that what only time brings hits both.
        let (with, without) = if round.is_multiple_of(2) {
            let without = run("");
            (run("pg_fork"), without)
        } else {
            let with = run("pg_fork");
            (with, run(""))
        };
        tpcb.push((with.0, without.0));
        select.push((with.1, without.1));
    }
    cluster.set("shared_preload_libraries = 'pg_fork'");
    cluster.stop("fast");
    cluster.start();
    vec![
        Line::ratios("TPC-B, no fork", &tpcb, "tps").at_least(0.99),
        Line::ratios("select-only, no fork", &select, "tps").at_least(0.99),
    ]
    .into()
}

/// None means one new fork each second.
const LIVE: [Option<u32>; 4] = [Some(1), Some(10), Some(100), None];

pub fn live(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let seconds = bench.options.seconds;
    let mut client = cluster.client("postgres");
    let mut pairs: [Vec<(f64, f64)>; LIVE.len()] = Default::default();
    let mut run = |forks: Option<u32>| {
        for _ in 0..forks.unwrap_or(0) {
            bench::create(&mut client, "prod");
        }
        bench::settle(cluster);
        let tps = match forks {
            // All with a log, since the run with one a second has one.
            Some(_) => {
                pgbench::start(cluster, "prod", Script::Tpcb, seconds, true)
                    .finish()
                    .tps
            }
            None => load::each_second(bench, &mut client, seconds, &mut Default::default()).tps,
        };
        bench::drop_all(&mut client);
        // What the worker has to remove is no load of the next run.
        cluster.wait_for_folders(0);
        tps
    };
    for _ in 0..bench.options.rounds {
        // Two after each without, so that drift cancels out: what is beside a run is between its neighbours.
        let mut before = run(Some(0));
        for (forks, pairs) in LIVE.chunks(2).zip(pairs.chunks_mut(2)) {
            let with: Vec<f64> = forks.iter().map(|forks| run(*forks)).collect();
            let after = run(Some(0));
            for ((with, pairs), place) in with.iter().zip(pairs).zip(1..) {
                let part = f64::from(place) / (forks.len() + 1) as f64;
                pairs.push((*with, before + (after - before) * part));
            }
            before = after;
        }
    }
    let mut lines = Vec::new();
    for (forks, pairs) in LIVE.into_iter().zip(&pairs) {
        lines.push(match forks {
            Some(n) => Line::ratios(format!("TPC-B with {n} live"), pairs, "tps").at_least(0.95),
            None => Line::ratios("TPC-B with a new one a second", pairs, "tps").at_least(0.90),
        });
    }
    Outcome {
        charts: vec![chart(&lines)],
        ..lines.into()
    }
}

fn chart(lines: &[Line]) -> Chart {
    let counts = LIVE.into_iter().flatten().map(f64::from);
    let points = counts.zip(lines).map(|(n, line)| (n, line.result));
    Chart {
        name: "live",
        title: "The source's TPS with live forks, of that without".into(),
        x: "live forks",
        y: "ratio",
        series: vec![("TPC-B".into(), points.collect())],
        log: true,
    }
}
