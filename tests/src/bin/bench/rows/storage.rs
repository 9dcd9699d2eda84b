//! What forks take on the disk.

use crate::bench::{self, Bench};
use crate::line::{Line, Outcome};
use crate::stats::Samples;
use pg_fork_tests::Cluster;
use postgres::Client;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const PAGE: f64 = 8192.0;

/// Bytes on the disk of all files beneath, each inode once.
pub fn on_disk(path: &Path, seen: &mut HashSet<u64>) -> u64 {
    let Ok(about) = fs::symlink_metadata(path) else {
        return 0; // the worker was faster
    };
    let own = if seen.insert(about.ino()) {
        about.blocks() * 512
    } else {
        0
    };
    let entries = if about.is_dir() {
        fs::read_dir(path).ok()
    } else {
        None
    };
    let beneath = entries.into_iter().flatten().flatten();
    own + beneath
        .map(|entry| on_disk(&entry.path(), seen))
        .sum::<u64>()
}

/// Bytes of all forks and layers, but for files that they share with their sources by hard links.
pub fn of_forks(cluster: &Cluster) -> f64 {
    let mut seen = HashSet::new();
    on_disk(Path::new(&format!("{}/base", cluster.data())), &mut seen);
    let root = format!("{}/pgsql_tmp_pg_fork", cluster.data());
    on_disk(Path::new(&root), &mut seen) as f64
}

/// Pages of a database that were changed since, by their LSNs, in all relations with storage.
pub fn changed_since(cluster: &Cluster, db: &str, lsn: &str) -> f64 {
    cluster.sql(db, "CREATE EXTENSION IF NOT EXISTS pageinspect");
    let sql = format!(
        "SELECT count(*) FROM pg_class c, \
         generate_series(0, pg_relation_size(c.oid) / 8192 - 1) block, \
         page_header(get_raw_page(c.oid::regclass::text, block)) \
         WHERE relkind IN ('r', 'i', 't', 'S', 'm') AND NOT relisshared AND lsn > '{lsn}'"
    );
    bench::number(cluster, db, &sql)
}

pub fn run(bench: &Bench) -> Outcome {
    let cluster = bench.main();
    let mut client = cluster.client("postgres");
    let count = bench.options.samples;
    let before = of_forks(cluster);
    // The worker may still add to them.
    let rest = || std::thread::sleep(std::time::Duration::from_secs(2));
    let mut forks = vec![bench::create(&mut client, "prod").1];
    rest();
    let alone = (of_forks(cluster) - before) / 1024.0;
    forks.extend((0..count).map(|_| bench::create(&mut client, "prod").1));
    rest();
    let each = (of_forks(cluster) - before) / f64::from(count + 1) / 1024.0;
    for fork in forks {
        bench::drop_fork(&mut client, &fork);
    }
    let (_, fork) = bench::create(&mut client, "prod");
    let lsn = cluster.sql("postgres", "SELECT cut_lsn FROM pg_forks");
    let empty = of_fork(cluster, &fork);
    cluster.sql(
        &fork,
        "UPDATE pgbench_accounts SET abalance = 1 WHERE aid % 100 = 0; CHECKPOINT",
    );
    let changed = changed_since(cluster, &fork, &lsn);
    let private = of_fork(cluster, &fork) - empty;
    bench::drop_fork(&mut client, &fork);
    let (read, fresh) = after_reading(cluster, &mut client);
    let single = |kb: f64| Samples::new(vec![kb]);
    let bytes = Samples::new(vec![private / 1024.0]);
    let result = private / (changed * PAGE);
    let update = format!("after an UPDATE of 1 % of {}", bench.size());
    vec![
        Line::of("the only idle fork", single(alone), alone, "kB", "kB").at_most(64.0),
        Line::of(
            format!("idle fork, of {}", count + 1),
            single(each),
            each,
            "kB",
            "kB",
        )
        .at_most(64.0),
        Line::of(update, bytes, result, "kB", "× the changed blocks")
            .beside(changed * PAGE / 1024.0)
            .at_most(1.1),
        Line::of(
            "after reading rows that no one has read",
            single(read),
            read,
            "kB",
            "kB",
        )
        .beside(fresh)
        .at_most(64.0),
    ]
    .into()
}

/// What a fork takes more once a table is read whole in it whose rows bear no hint bits yet, and the table's
/// size; in kB.
fn after_reading(cluster: &Cluster, client: &mut Client) -> (f64, f64) {
    cluster.sql(
        "prod",
        "CREATE TABLE fresh (v text) WITH (autovacuum_enabled = off); \
         INSERT INTO fresh SELECT repeat('x', 100) FROM generate_series(1, 100000); CHECKPOINT",
    );
    let (_, fork) = bench::create(client, "prod");
    let before = of_fork(cluster, &fork);
    cluster.sql(&fork, "SELECT count(*) FROM fresh; CHECKPOINT");
    let more = of_fork(cluster, &fork) - before;
    bench::drop_fork(client, &fork);
    let size = bench::number(cluster, "prod", "SELECT pg_table_size('fresh')");
    cluster.sql("prod", "DROP TABLE fresh");
    (more / 1024.0, size / 1024.0)
}

/// Bytes of one fork's own files, as the system stores them.
fn of_fork(cluster: &Cluster, fork: &str) -> f64 {
    let sql = format!("SELECT oid FROM pg_database WHERE datname = '{fork}'");
    let oid = cluster.sql("postgres", &sql);
    let path = format!("{}/pgsql_tmp_pg_fork/{oid}", cluster.data());
    on_disk(Path::new(&path), &mut HashSet::new()) as f64
}
