//! fork_create and fork_drop while nobody writes to the source.

use crate::bench::{self, Bench};
use crate::chart::Chart;
use crate::line::{Line, Outcome};
use crate::stats::Samples;

pub fn creates(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let mut client = cluster.client("postgres");
    let (mut commits, mut creates) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.samples {
        commits.push(bench::commit(&mut client));
        let (ms, fork) = bench::create(&mut client, "prod");
        creates.push(ms);
        bench::drop_fork(&mut client, &fork);
    }
    drop(client);
    let firsts = (0..bench.options.rounds).map(|_| {
        cluster.stop("fast");
        cluster.start();
        let mut client = cluster.client("postgres");
        let (ms, fork) = bench::create(&mut client, "prod");
        bench::drop_fork(&mut client, &fork);
        ms
    });
    let firsts = Samples::new(firsts.collect());
    let (commits, creates) = (Samples::new(commits), Samples::new(creates));
    let (median, p99) = (creates.median(), creates.p99());
    let chart = distribution(&commits, &creates);
    let size = bench.size();
    let lines = vec![
        Line::ratio(
            format!("median, {size}"),
            creates.clone(),
            &commits,
            "× commit",
        )
        .at_most(4.0),
        Line::of("p99", creates.clone(), p99 / median, "ms", "× the median").at_most(4.0),
        Line::ratio("first after a start", firsts, &creates, "× the median").at_most(10.0),
    ];
    Outcome {
        charts: vec![chart],
        ..lines.into()
    }
}

fn distribution(commits: &Samples, creates: &Samples) -> Chart {
    Chart {
        name: "create",
        title: "fork_create on an idle source".into(),
        x: "ms",
        y: "% of calls that took at most so long",
        series: vec![
            ("durable INSERT".into(), commits.distribution()),
            ("fork_create".into(), creates.distribution()),
        ],
        log: false,
    }
}

pub fn drops(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let mut client = cluster.client("postgres");
    let requested = "SELECT checkpoints_req FROM pg_stat_bgwriter";
    let before = bench::number(cluster, "postgres", requested);
    let (mut commits, mut drops) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.samples {
        let (_, fork) = bench::create(&mut client, "prod");
        commits.push(bench::commit(&mut client));
        drops.push(bench::drop_fork(&mut client, &fork));
    }
    // What the checkpointer counted comes to the statistics with its next message.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let checkpoints = bench::number(cluster, "postgres", requested) - before;
    let (commits, drops) = (Samples::new(commits), Samples::new(drops));
    let none = Samples::new(vec![checkpoints]);
    vec![
        Line::ratio("median", drops, &commits, "× commit").at_most(4.0),
        Line::of("checkpoints requested", none, checkpoints, "", "in all").at_most(0.0),
    ]
    .into()
}
