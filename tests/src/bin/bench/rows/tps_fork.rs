//! Work in a fork against work in a plain database of the same content.

use crate::bench::{self, Bench};
use crate::line::{Line, Outcome};
use crate::pgbench::{self, Script};

pub fn run(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let mut client = cluster.client("postgres");
    // Of the same content to the last hint bit: what other rows have left in the source, the fork inherits.
    cluster.sql(
        "postgres",
        "DROP DATABASE plain; CREATE DATABASE plain TEMPLATE prod; CHECKPOINT",
    );
    let (_, fork) = bench::create(&mut client, "prod");
    let pairs = |script| -> Vec<(f64, f64)> {
        let one = |db: &str| {
            bench::settle(cluster);
            pgbench::run(cluster, db, script, bench.options.seconds)
        };
        // Once each before it counts.
        one(&fork);
        one("plain");
        let rounds = 0..bench.options.rounds;
        let pair = |round: u32| {
            if round.is_multiple_of(2) {
                let plain = one("plain");
                (one(&fork), plain)
            } else {
                let forked = one(&fork);
                (forked, one("plain"))
            }
        };
        rounds.map(pair).collect()
    };
    // First, while all is inherited.
    let select = pairs(Script::SelectOnly);
    let tpcb = pairs(Script::Tpcb);
    bench::drop_fork(&mut client, &fork);
    vec![
        Line::ratios("TPC-B in a fork", &tpcb, "tps").at_least(0.95),
        Line::ratios("select-only in a fork", &select, "tps").at_least(0.95),
    ]
    .into()
}
