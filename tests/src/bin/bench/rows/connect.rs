//! From a new fork to the first row of it: by connecting, and by attaching.

use crate::bench::{self, timed, Bench};
use crate::line::{Line, Outcome};
use crate::stats::Samples;
use postgres::Client;

fn query(client: &mut Client) {
    let sql = "SELECT abalance FROM pgbench_accounts WHERE aid = 1";
    client.query_one(sql, &[]).expect("a row");
}

pub fn run(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let mut control = cluster.client("postgres");
    let connect = |db: &str| timed(|| query(&mut cluster.client(db))).0;
    connect("plain");
    let (mut plain, mut connected, mut attached) = (vec![], vec![], vec![]);
    for _ in 0..bench.options.samples {
        plain.push(connect("plain"));
        let (_, fork) = bench::create(&mut control, "prod");
        connected.push(connect(&fork));
        bench::drop_fork(&mut control, &fork);
        let (_, fork) = bench::create(&mut control, "prod");
        let attach = format!("SELECT fork_attach('{fork}')");
        let (ms, ()) = timed(|| {
            control.batch_execute(&attach).expect("attached");
            query(&mut control);
        });
        attached.push(ms);
        control
            .batch_execute("SELECT fork_detach()")
            .expect("detached");
        bench::drop_fork(&mut control, &fork);
    }
    let plain = Samples::new(plain);
    let of = "× connecting to a plain database";
    vec![
        Line::ratio(
            "connect to a new fork, first query",
            Samples::new(connected),
            &plain,
            of,
        )
        .at_most(2.0),
        Line::ratio(
            "attach to a new fork, first query",
            Samples::new(attached),
            &plain,
            of,
        )
        .at_most(0.5),
    ]
    .into()
}
