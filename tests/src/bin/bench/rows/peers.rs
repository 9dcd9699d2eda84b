//! What else makes a copy of a database.

use crate::bench::{self, timed, Bench};
use crate::line::{Line, Outcome};
use crate::stats::Samples;
use pg_fork_tests::Cluster;

pub fn template(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let mut client = cluster.client("postgres");
    let (mut forks, mut wal_log, mut file_copy) = (vec![], vec![], vec![]);
    let rounds = bench.options.rounds.min(3);
    for _ in 0..rounds {
        for (strategy, times) in [("wal_log", &mut wal_log), ("file_copy", &mut file_copy)] {
            for _ in 0..(bench.options.samples / rounds / 2).max(1) {
                let (ms, fork) = bench::create(&mut client, "prod");
                forks.push(ms);
                bench::drop_fork(&mut client, &fork);
            }
            let copy = format!("CREATE DATABASE copy TEMPLATE prod STRATEGY {strategy}");
            times.push(timed(|| client.batch_execute(&copy).expect("copied")).0);
            client.batch_execute("DROP DATABASE copy").expect("dropped");
            client.batch_execute("CHECKPOINT").expect("a checkpoint");
        }
    }
    let forks = Samples::new(forks);
    let (wal_log, file_copy) = (Samples::new(wal_log), Samples::new(file_copy));
    let times = |samples: &Samples| samples.median() / forks.median();
    let better = times(&wal_log).min(times(&file_copy));
    let size = bench.size();
    let fork = forks.median();
    let line = |what: &str, samples: Samples| {
        let result = times(&samples);
        Line::of(
            format!("{what}, {size}"),
            samples,
            result,
            "ms",
            "× fork_create",
        )
        .beside(fork)
    };
    let lines = vec![
        line("STRATEGY wal_log", wal_log),
        line("STRATEGY file_copy", file_copy),
        Line::of(
            "fork_create, times faster than the better",
            forks.clone(),
            better,
            "ms",
            "×",
        )
        .at_least(500.0),
    ];
    lines.into()
}

pub fn dump(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let mut client = cluster.client("postgres");
    let (mut forks, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds.min(2) {
        let (ms, fork) = bench::create(&mut client, "prod");
        forks.push(ms);
        bench::drop_fork(&mut client, &fork);
        copies.push(timed(|| dump_and_restore(cluster)).0);
        client.batch_execute("DROP DATABASE copy").expect("dropped");
    }
    let (forks, copies) = (Samples::new(forks), Samples::new(copies));
    let what = format!("pg_dump into pg_restore, {}", bench.size());
    vec![Line::ratio(what, copies, &forks, "× fork_create")].into()
}

fn dump_and_restore(cluster: &Cluster) {
    cluster.sql("postgres", "CREATE DATABASE copy");
    let mut dump = cluster.spawn("pg_dump", &["-Fc", "-Z0", "prod"]);
    let mut restore = cluster.spawn("pg_restore", &["-d", "copy"]);
    let mut from = dump.stdout.take().expect("a pipe");
    let mut to = restore.stdin.take().expect("a pipe");
    std::io::copy(&mut from, &mut to).expect("copied");
    drop(to);
    for program in [dump, restore] {
        let out = program.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}");
    }
}
