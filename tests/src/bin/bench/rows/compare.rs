//! Looking at a fork from outside: what its changes are, and its tables.

use crate::bench::{self, timed, Bench};
use crate::chart::Chart;
use crate::line::{Line, Outcome};
use crate::stats::Samples;
use postgres::Client;

/// `fork_diff_rows` by the number of changed rows, against a full comparison of both sides.
pub fn diff(bench: &Bench) -> Outcome {
    let cluster = bench::server("");
    bench::fill(&cluster, "prod", bench.options.scale);
    cluster.sql("prod", "CREATE EXTENSION IF NOT EXISTS pg_fork");
    let mut client = cluster.client("prod");
    let rows = bench::number(&cluster, "prod", "SELECT count(*) FROM pgbench_accounts") as u64;
    let counts = [10, 1_000, 100_000].into_iter().filter(|n| n * 2 <= rows);
    let mut lines = Vec::new();
    let mut points = Vec::new();
    for count in counts {
        let fork = bench::create(&mut client, "prod").1;
        // Scattered: each on a block of its own as long as there are enough.
        let sql = format!(
            "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % {} = 0",
            rows / count
        );
        cluster.sql(&fork, &sql);
        let told = |client: &mut Client| {
            let sql = format!("SELECT count(*) FROM fork_diff_rows('{fork}', 'pgbench_accounts')");
            let (ms, row) = timed(|| client.query_one(&sql, &[]).expect("compared"));
            assert!(row.get::<_, i64>(0) as u64 >= count);
            ms
        };
        told(&mut client);
        let samples = Samples::new(
            (0..bench.options.rounds)
                .map(|_| told(&mut client))
                .collect(),
        );
        let whole = Samples::new(vec![whole(&mut client, &fork)]);
        points.push((count as f64, samples.median()));
        let what = format!("fork_diff_rows, {count} changed rows");
        let line = Line::ratio(what, samples, &whole, "× a full comparison");
        lines.push(if count == 1_000 {
            line.at_most(0.02)
        } else {
            line
        });
        bench::drop_fork(&mut client, &fork);
    }
    let chart = Chart {
        name: "diff",
        title: "fork_diff_rows by the number of changed rows".into(),
        x: "changed rows",
        y: "ms, median",
        series: vec![("fork_diff_rows".into(), points)],
        log: true,
    };
    Outcome {
        charts: vec![chart],
        ..lines.into()
    }
}

/// Both sides read whole and joined, as one would without the page map.
fn whole(client: &mut Client, fork: &str) -> f64 {
    let tables = "tables => '{pgbench_accounts}'";
    client
        .batch_execute(&format!(
            "SELECT fork_mount('{fork}', 'now', 'now', {tables}); SELECT fork_mount('{fork}', 'cut', 'base', {tables})"
        ))
        .expect("mounted");
    let sql = "SELECT count(*) FROM base.pgbench_accounts b FULL JOIN now.pgbench_accounts n USING (aid) \
               WHERE b IS DISTINCT FROM n";
    let (ms, _) = timed(|| client.query_one(sql, &[]).expect("compared"));
    client
        .batch_execute("SELECT fork_unmount('now'); SELECT fork_unmount('base')")
        .expect("unmounted");
    ms
}

/// A scan of a mounted table, against the same scan inside the fork.
pub fn mounted(bench: &Bench) -> Outcome {
    let cluster = bench::server("shared_buffers = '512MB'");
    bench::fill(&cluster, "prod", bench.options.scale.min(20));
    cluster.sql("prod", "CREATE EXTENSION IF NOT EXISTS pg_fork");
    // Values of 5 kB, in the TOAST table as they are.
    cluster.sql(
        "prod",
        "CREATE TABLE wide (id int, v text); ALTER TABLE wide ALTER v SET STORAGE EXTERNAL; \
         INSERT INTO wide SELECT g, repeat(md5(g::text), 160) FROM generate_series(1, 10000) g",
    );
    cluster.sql("prod", "VACUUM ANALYZE wide");
    let mut control = cluster.client("prod");
    let fork = bench::create(&mut control, "prod").1;
    control
        .batch_execute(&format!("SELECT fork_mount('{fork}', 'now', 'it')"))
        .expect("mounted");
    let open = |db: &str| {
        let mut client = cluster.client(db);
        client
            .batch_execute(
                "SET max_parallel_workers_per_gather = 0; SET enable_indexonlyscan = off; SET jit = off",
            )
            .expect("set");
        client
    };
    let (mut outside, mut inside) = (open("prod"), open(&fork));
    let mut lines = Vec::new();
    for (what, table, columns) in [
        ("counting", "pgbench_accounts", "count(*)"),
        ("adding up", "pgbench_accounts", "sum(abalance)"),
        (
            "three aggregates",
            "pgbench_accounts",
            "(count(aid), sum(abalance), max(bid))",
        ),
        ("values in a TOAST table", "wide", "sum(ascii(v))"),
    ] {
        let size = format!("SELECT pg_table_size('{table}')");
        let bytes = bench::number(&cluster, "prod", &size);
        let rate = |client: &mut Client, table: &str| {
            let sql = format!("SELECT {columns}::text FROM {table}");
            let (ms, _) = timed(|| client.query_one(&sql, &[]).expect("read"));
            bytes / (1 << 20) as f64 / ms * 1000.0
        };
        let mut pair = || {
            let base = rate(&mut inside, table);
            (rate(&mut outside, &format!("it.{table}")), base)
        };
        pair();
        let pairs: Vec<_> = (0..bench.options.rounds * 2).map(|_| pair()).collect();
        let line = Line::ratios(format!("mounted, {what}"), &pairs, "MB/s");
        lines.push(line.at_least(0.9));
    }
    lines.into()
}
