//! Reading what a fork inherits: single blocks beneath many cuts, and whole tables.

use crate::bench::{self, timed, Bench};
use crate::chart::Chart;
use crate::line::{Line, Outcome};
use crate::stats::Samples;
use postgres::Client;

/// Blocks of the table that is read, far more than the server's buffers.
const BLOCKS: u32 = 20_000;
/// Read at a time.
const BATCH: u32 = 500;

/// With a fork at each cut, the one that has k later cuts is the k-th from the last: all of them are
/// read in the same state of the server.
pub fn cuts(bench: &Bench) -> Outcome {
    let most = bench.options.cuts;
    let blocks = if bench.options.smoke { 1000 } else { BLOCKS };
    let cluster = bench::server("shared_buffers = '16MB'");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        &format!(
            "CREATE TABLE t (v int, w text) WITH (fillfactor = 10); CREATE TABLE other (v int); \
             ALTER TABLE t ALTER w SET STORAGE plain; INSERT INTO other VALUES (0); \
             INSERT INTO t SELECT i, repeat('x', 700) FROM generate_series(0, {}) i; VACUUM t; CHECKPOINT",
            blocks - 1
        ),
    );
    let mut control = cluster.client("postgres");
    let mut writer = cluster.client("prod");
    let mut forks = Vec::new();
    for _ in 0..=most {
        forks.push(bench::create(&mut control, "prod").1);
        writer
            .execute("UPDATE other SET v = v + 1", &[])
            .expect("updated");
    }
    let later: Vec<_> = [1, 10, 100, 1000]
        .into_iter()
        .filter(|k| *k <= most)
        .collect();
    let clients = later.iter().map(|k| {
        let mut client = cluster.client(&forks[(most - k) as usize]);
        client
            .query("SELECT count(*) FROM t", &[])
            .expect("read once");
        client
    });
    let mut clients: Vec<_> = clients.collect();
    let mut all = vec![Vec::new(); later.len()];
    for round in 0..bench.options.samples {
        for (client, samples) in clients.iter_mut().zip(&mut all) {
            samples.push(batch(client, blocks, round));
        }
    }
    let all: Vec<_> = all.into_iter().map(Samples::new).collect();
    let points = later
        .iter()
        .zip(&all)
        .map(|(k, s)| (f64::from(*k), s.median()));
    let chart = Chart {
        name: "cuts",
        title: "Reading an inherited block by the number of later cuts".into(),
        x: "later cuts of the source",
        y: "µs a block, median",
        series: vec![("read by TID".into(), points.collect())],
        log: true,
    };
    let base = all[0].clone();
    let line = |(k, samples): (&u32, Samples)| {
        let result = samples.median() / base.median();
        let line = Line::of(
            format!("{k} later cuts"),
            samples,
            result,
            "µs",
            "× one cut",
        );
        line.beside(base.median()).at_most(1.5)
    };
    let lines: Vec<_> = later.iter().zip(all).map(line).collect();
    Outcome {
        charts: vec![chart],
        ..lines.into()
    }
}

/// Microseconds a block, of blocks in no order.
fn batch(client: &mut Client, blocks: u32, round: u32) -> f64 {
    // A stride that is prime to the number of blocks, from another place each time.
    let place = |i: u32| (u64::from(i + round * BATCH) * 7919 % u64::from(blocks)) as u32;
    let places: Vec<_> = (0..BATCH.min(blocks))
        .map(|i| format!("({},1)", place(i)))
        .collect();
    let sql = format!(
        "SELECT count(v) FROM t WHERE ctid = ANY ('{{\"{}\"}}'::tid[])",
        places.join("\",\"")
    );
    let (ms, row) = timed(|| client.query_one(&sql, &[]).expect("read"));
    assert_eq!(row.get::<_, i64>(0), places.len() as i64);
    ms * 1000.0 / places.len() as f64
}

/// Whole tables, from the OS cache each time: larger than a quarter of the buffers, they are read
/// through a ring (bufmgr.c, freelist.c).
pub fn scan(bench: &Bench) -> Outcome {
    let cluster = bench::server("shared_buffers = '16MB'");
    bench::fill(&cluster, "prod", bench.options.scale);
    cluster.sql(
        "postgres",
        "CREATE DATABASE plain TEMPLATE prod; CHECKPOINT",
    );
    let bytes = bench::number(&cluster, "prod", "SELECT pg_table_size('pgbench_accounts')");
    let fork = bench::create(&mut cluster.client("postgres"), "prod").1;
    let open = |db: &str| {
        let mut client = cluster.client(db);
        client
            .batch_execute(
                "SET max_parallel_workers_per_gather = 0; SET enable_indexonlyscan = off",
            )
            .expect("set");
        client
    };
    let (mut plain, mut forked) = (open("plain"), open(&fork));
    let rate = |client: &mut Client| {
        let sql = "SELECT count(*) FROM pgbench_accounts";
        let (ms, _) = timed(|| client.query_one(sql, &[]).expect("read"));
        bytes / (1 << 20) as f64 / ms * 1000.0
    };
    rate(&mut plain);
    rate(&mut forked);
    let pairs = (0..bench.options.rounds * 2).map(|round| {
        if round.is_multiple_of(2) {
            let base = rate(&mut plain);
            (rate(&mut forked), base)
        } else {
            let read = rate(&mut forked);
            (read, rate(&mut plain))
        }
    });
    let pairs: Vec<_> = pairs.collect();
    vec![Line::ratios("cold, inherited, OS cache warm", &pairs, "MB/s").at_least(0.95)].into()
}
