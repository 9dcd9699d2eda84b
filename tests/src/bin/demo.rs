//! `make demo`: forks a live, written-to database, breaks the fork, and shows that prod is untouched.

use pg_fork_tests::{sums, Cluster};
use std::time::Instant;

fn main() {
    println!("Starting a private server with a database that 8 clients write to ...");
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "5", "prod"]);
    let load = cluster.spawn("pgbench", &["-n", "-c", "8", "-j", "2", "-T", "10", "prod"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let timed = |db: &str, sql: &str| {
        let began = Instant::now();
        let result = cluster.sql(db, sql);
        println!(
            "{db:>12}=# {sql}\n{:>14} {result}  ({} ms, psql's start included)",
            "",
            began.elapsed().as_millis()
        );
        result
    };
    let fork = timed("postgres", "SELECT fork_create('prod')");
    let seen = sums(&cluster, &fork);
    timed(&fork, "SELECT count(*) FROM pgbench_accounts");
    timed(&fork, "DROP TABLE pgbench_accounts");
    timed(&fork, "UPDATE pgbench_branches SET bbalance = -1");
    println!("The fork is broken. Prod, meanwhile:");
    timed("prod", "SELECT count(*) FROM pgbench_accounts");
    let now = sums(&cluster, "prod");
    println!("{:>14} its sums agree: {now} (at the cut: {seen})", "");
    timed(
        "postgres",
        "SELECT name, source, depth, state, private_bytes, preimage_bytes FROM pg_forks",
    );
    timed("postgres", &format!("SELECT fork_drop('{fork}')"));
    let out = load.wait_with_output().expect("pgbench ends");
    for line in String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter(|l| l.contains("failed") || l.contains("tps"))
    {
        println!("{:>14} pgbench: {line}", "");
    }
    println!(
        "{:>14} pause of prod: {} ms",
        "",
        cluster.sql(
            "postgres",
            "SELECT value FROM pg_fork_stats WHERE name = 'pause_max'"
        )
    );
}
