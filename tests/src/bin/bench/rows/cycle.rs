//! A whole short life of a copy, by several clients at once: forks, and databases from a template.

use crate::bench::{self, Bench};
use crate::line::{Line, Outcome};
use crate::stats::Samples;
use pg_fork_tests::Cluster;
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
const WRITE: &str =
    "CREATE TABLE written (v int); INSERT INTO written SELECT generate_series(1, 100)";

pub fn cycles(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let length = Duration::from_secs(bench.options.seconds.into());
    let (mut forks, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds.min(3) {
        forks.push(per_second(cluster, length, fork_cycle));
        // One each at least, however long it takes.
        copies.push(per_second(cluster, Duration::ZERO, template_cycle));
        cluster.sql("postgres", "CHECKPOINT");
    }
    let pairs: Vec<_> = forks.into_iter().zip(copies).collect();
    let what = format!("{CLIENTS} clients, against TEMPLATE, {}", bench.size());
    let line = Line::ratios(what, &pairs, "/s").at_least(100.0);
    vec![line].into()
}

/// Cycles a second of all clients together.
fn per_second(
    cluster: &Cluster,
    length: Duration,
    cycle: fn(&Cluster, &mut postgres::Client, usize),
) -> f64 {
    let began = Instant::now();
    let one = |number: usize| {
        let mut client = cluster.client("postgres");
        let mut cycles = 0;
        while cycles == 0 || began.elapsed() < length {
            cycle(cluster, &mut client, number);
            cycles += 1;
        }
        cycles
    };
    let cycles: u32 = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || one(n))).collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client"))
            .sum()
    });
    f64::from(cycles) / began.elapsed().as_secs_f64()
}

fn fork_cycle(_: &Cluster, client: &mut postgres::Client, _: usize) {
    let (_, fork) = bench::create(client, "prod");
    let attach = format!("SELECT fork_attach('{fork}')");
    client.batch_execute(&attach).expect("attached");
    client.batch_execute(WRITE).expect("written");
    client
        .batch_execute("SELECT fork_detach()")
        .expect("detached");
    bench::drop_fork(client, &fork);
}

fn template_cycle(cluster: &Cluster, client: &mut postgres::Client, number: usize) {
    let copy = format!("copy_{number}");
    let create = format!("CREATE DATABASE {copy} TEMPLATE prod STRATEGY file_copy");
    client.batch_execute(&create).expect("copied");
    cluster.client(&copy).batch_execute(WRITE).expect("written");
    // The session above may take a moment to end.
    let drop = format!("DROP DATABASE {copy} WITH (FORCE)");
    client.batch_execute(&drop).expect("dropped");
}

/// Calls of fork_create at once.
const AT_ONCE: usize = 100;

/// By sessions that are connected, and have made forks before or not: one alone has.
pub fn at_once(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let count = if bench.options.smoke { 5 } else { AT_ONCE };
    let mut control = cluster.client("postgres");
    let mut single = Vec::new();
    let mut together = [Vec::new(), Vec::new()];
    for _ in 0..bench.options.rounds {
        for _ in 0..(bench.options.samples / bench.options.rounds).max(1) {
            let (ms, fork) = bench::create(&mut control, "prod");
            single.push(ms);
            bench::drop_fork(&mut control, &fork);
        }
        let warm_or_not = [true, false].into_iter().zip(&mut together);
        for (warm, samples) in warm_or_not {
            samples.push(all_at_once(cluster, count, warm));
            bench::drop_all(&mut control);
            cluster.wait_for_folders(0);
        }
    }
    let single = Samples::new(single);
    let kinds = ["until all are done", "each session's first"];
    let lines = kinds.into_iter().zip(together).map(|(kind, together)| {
        let what = format!("{count} at once, {kind}");
        Line::ratio(what, Samples::new(together), &single, "× one").at_most(40.0)
    });
    lines.collect::<Vec<_>>().into()
}

/// Milliseconds until the last one is done.
fn all_at_once(cluster: &Cluster, count: usize, warm: bool) -> f64 {
    let ready = std::sync::Barrier::new(count + 1);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = cluster.client("postgres");
                    client
                        .query("SELECT fork_current()", &[])
                        .expect("answered");
                    if warm {
                        let (_, fork) = bench::create(&mut client, "prod");
                        bench::drop_fork(&mut client, &fork);
                    }
                    ready.wait();
                    // Until the worker has removed those.
                    ready.wait();
                    bench::create(&mut client, "prod");
                    client
                })
            })
            .collect();
        ready.wait();
        cluster.wait_for_folders(0);
        ready.wait();
        let began = Instant::now();
        let join = |client: std::thread::ScopedJoinHandle<_>| client.join().expect("a client");
        let connected: Vec<_> = clients.into_iter().map(join).collect();
        let took = began.elapsed().as_secs_f64() * 1000.0;
        // Not before: a session's end takes a while of a core, and is none of this.
        drop(connected);
        took
    })
}
