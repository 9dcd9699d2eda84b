//! fork_create while clients write to the source, and what the writers feel of it.

use crate::bench::{self, Bench};
use crate::line::{Line, Outcome};
use crate::pgbench::{self, Done, Script};
use crate::stats::Samples;
use std::collections::VecDeque;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Forks that live at a time while one is made each second.
const LIVE: usize = 10;

pub fn run(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let options = &bench.options;
    let mut client = cluster.client("postgres");
    let (mut idle, mut p99, mut longest) = (vec![], vec![], vec![]);
    let mut loaded = Creates::default();
    for _ in 0..options.rounds {
        for _ in 0..(options.samples / options.rounds).max(1) {
            let (ms, fork) = bench::create(&mut client, "prod");
            idle.push(ms);
            bench::drop_fork(&mut client, &fork);
        }
        bench::settle(cluster);
        let seconds = options.seconds.max(2);
        let without = pgbench::start(cluster, "prod", Script::Tpcb, seconds, true).finish();
        bench::settle(cluster);
        let with = each_second(bench, &mut client, seconds, &mut loaded);
        bench::drop_all(&mut client);
        let (without, with) = (without.samples(), with.samples());
        p99.push((with.p99(), without.p99()));
        longest.push((with.max(), without.max()));
    }
    let failed = f64::from(loaded.failed);
    let (idle, loaded) = (Samples::new(idle), Samples::new(loaded.all));
    let over: Vec<_> = longest
        .iter()
        .map(|(with, without)| with - without)
        .collect();
    let over = Samples::new(over).median();
    let waits = Samples::new(longest.iter().map(|pair| pair.0).collect());
    let base = Samples::new(longest.iter().map(|pair| pair.1).collect());
    let pause = bench::number(
        cluster,
        "postgres",
        "SELECT value FROM pg_fork_stats WHERE name = 'pause_max'",
    );
    vec![
        Line::ratio("fork_create, one a second", loaded, &idle, "× idle").at_most(20.0),
        Line::of(
            "of these failed (cut_timeout)",
            Samples::new(vec![failed]),
            failed,
            "",
            "calls",
        )
        .at_most(0.0),
        Line::ratios("writers' p99, with one fork a second", &p99, "ms").at_most(2.0),
        Line::of(
            "writers' longest wait",
            waits,
            over,
            "ms",
            "ms over that without",
        )
        .beside(base.median())
        .at_most(10.0),
        Line::of(
            "longest pause of a cut",
            Samples::new(vec![pause]),
            pause,
            "ms",
            "ms",
        ),
    ]
    .into()
}

/// Calls of fork_create; those that failed took their time too.
#[derive(Default)]
pub struct Creates {
    all: Vec<f64>,
    failed: u32,
}

/// A run with a new fork each second.
pub fn each_second(
    bench: &Bench,
    client: &mut postgres::Client,
    seconds: u32,
    creates: &mut Creates,
) -> Done {
    let mut running = pgbench::start(bench.main(), "prod", Script::Tpcb, seconds, true);
    let mut live = VecDeque::new();
    let began = Instant::now();
    for number in 1.. {
        // From the middle of the first second on; what is left of it is for pgbench to connect.
        let due = Duration::from_millis(number * 1000 - 500);
        sleep(due.saturating_sub(began.elapsed()));
        if running.is_over() {
            break;
        }
        let (ms, fork) = bench::try_create(client, "prod");
        creates.all.push(ms);
        let Ok(fork) = fork else {
            creates.failed += 1;
            continue;
        };
        live.push_back(fork);
        if live.len() > LIVE {
            bench::drop_fork(client, &live.pop_front().expect("the oldest"));
        }
    }
    running.finish()
}
