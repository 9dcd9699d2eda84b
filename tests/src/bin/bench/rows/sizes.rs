//! fork_create on sources of many sizes, in turn; and beside small and large shared buffers.

use crate::bench::{self, Bench};
use crate::chart::Chart;
use crate::line::{Line, Outcome};
use crate::stats::Samples;
use pg_fork_tests::Cluster;
use std::fs;
use std::process::Command;

/// Segments of 1 GB of the sparse table.
const SEGMENTS: u32 = 1024;

pub fn sizes(bench: &Bench) -> Outcome {
    let options = &bench.options;
    let cluster = bench::server("");
    bench::fill(&cluster, "small", 1);
    bench::fill(&cluster, "large", options.scale);
    sparse(&cluster, if options.smoke { 4 } else { SEGMENTS });
    for (name, relations) in [("few", 100), ("many", options.relations)] {
        cluster.sql("postgres", &format!("CREATE DATABASE {name}"));
        relate(&cluster, name, relations);
    }
    cluster.sql("postgres", "CHECKPOINT");
    let size = |db: &str| {
        let sql = format!("SELECT pg_size_pretty(pg_database_size('{db}'))");
        cluster.sql("postgres", &sql)
    };
    let bytes = |db: &str| {
        let sql = format!("SELECT pg_database_size('{db}')");
        bench::number(&cluster, "postgres", &sql)
    };
    let sources = ["small", "large", "sparse"];
    let mut measured = in_turn(
        bench,
        &cluster,
        &["small", "large", "sparse", "few", "many"],
    );
    let by_relations = measured.split_off(sources.len());
    let points = sources.iter().zip(&measured);
    let chart = Chart {
        name: "sizes",
        title: "fork_create by the size of the source".into(),
        x: "bytes",
        y: "ms, median",
        series: vec![(
            "fork_create".into(),
            points.map(|(db, s)| (bytes(db), s.median())).collect(),
        )],
        log: true,
    };
    let names: Vec<_> = sources.iter().map(|db| size(db)).collect();
    let mut lines = against_best(&names, measured);
    let names = [100, options.relations].map(|n| format!("{n} relations"));
    lines.extend(against_best(&names, by_relations));
    Outcome {
        charts: vec![chart],
        ..lines.into()
    }
}

/// Samples of each source, taken in turn.
fn in_turn(bench: &Bench, cluster: &Cluster, sources: &[&str]) -> Vec<Samples> {
    let mut client = cluster.client("postgres");
    let mut all = vec![Vec::new(); sources.len()];
    // The first of each source finds nothing cached; it does not count.
    for round in 0..=bench.options.samples / 2 {
        for (source, samples) in sources.iter().zip(&mut all) {
            let (ms, fork) = bench::create(&mut client, source);
            bench::drop_fork(&mut client, &fork);
            if round > 0 {
                samples.push(ms);
            }
        }
    }
    all.into_iter().map(Samples::new).collect()
}

fn against_best(names: &[String], measured: Vec<Samples>) -> Vec<Line> {
    let best = measured
        .iter()
        .map(Samples::median)
        .fold(f64::INFINITY, f64::min);
    let pairs = names.iter().zip(measured);
    let line = |(name, samples): (&String, Samples)| {
        let result = samples.median() / best;
        Line::of(name, samples, result, "ms", "× the smallest")
            .at_most(1.3)
            .beside(best)
    };
    pairs.map(line).collect()
}

/// A database with a table of so many segments, all but one page of them holes. A page of zeros is
/// an empty one (bufpage.c, PageIsVerifiedExtended).
fn sparse(cluster: &Cluster, segments: u32) {
    cluster.sql("postgres", "CREATE DATABASE sparse");
    cluster.sql(
        "sparse",
        "CREATE TABLE t (v int) WITH (autovacuum_enabled = off); INSERT INTO t VALUES (1)",
    );
    let path = cluster.sql("sparse", "SELECT pg_relation_filepath('t')");
    cluster.stop("fast");
    let first = format!("{}/{path}", cluster.data());
    for number in 0..segments {
        let name = match number {
            0 => first.clone(),
            n => format!("{first}.{n}"),
        };
        let file = fs::OpenOptions::new().append(true).create(true).open(name);
        file.expect("a segment").set_len(1 << 30).expect("a hole");
    }
    let folder = std::path::Path::new(&first).parent().expect("a folder");
    let owned = Command::new("chown")
        .arg("-R")
        .arg("postgres")
        .arg(folder)
        .status();
    assert!(owned.expect("chown runs").success());
    cluster.start();
}

/// Creates tables, some at a time: each holds a lock until its transaction ends.
fn relate(cluster: &Cluster, db: &str, relations: u32) {
    // One statement: no semicolon with a space behind it, which is where `sql` divides them.
    let make = format!(
        "DO $$ BEGIN FOR i IN 1..{relations} LOOP \
         EXECUTE format('CREATE TABLE r%s (v int)', i);IF i % 1000 = 0 THEN COMMIT;END IF;END LOOP;END $$"
    );
    cluster.sql(db, &make);
}

/// Free memory that a server with large shared buffers needs, in kB.
const ROOM: u64 = 12 << 20;

pub fn buffers(bench: &Bench) -> Outcome {
    let smoke = bench.options.smoke;
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let free: u64 = line
        .and_then(|l| l.trim().split(' ').next()?.parse().ok())
        .unwrap_or(0);
    if !smoke && free < ROOM {
        return Outcome {
            skipped: vec![format!(
                "8 GB of shared buffers, with {free} kB of free memory"
            )],
            ..Outcome::default()
        };
    }
    let kinds = ["128MB", if smoke { "256MB" } else { "8GB" }];
    let servers = kinds.map(|size| bench::server(&format!("shared_buffers = '{size}'")));
    let mut clients = Vec::new();
    for server in &servers {
        bench::fill(server, "prod", 1);
        clients.push(server.client("postgres"));
    }
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..bench.options.samples {
        for (client, samples) in clients.iter_mut().zip(&mut all) {
            let (ms, fork) = bench::create(client, "prod");
            bench::drop_fork(client, &fork);
            samples.push(ms);
        }
    }
    let names = kinds.map(|size| format!("{size} of shared buffers"));
    against_best(&names, all.map(Samples::new).into()).into()
}
