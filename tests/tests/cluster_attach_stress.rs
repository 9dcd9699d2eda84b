//! Switching under load, among DDL, cuts and drops: the session is in one database or the other,
//! wholly, and the server's data stays whole.

use pg_fork_tests::attach::{attach, detach, get, prod};
use pg_fork_tests::{sums, Cluster};
use postgres::Client;

/// xorshift: the same numbers at each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// A process that crashed would have taken the server down; a warning says what was left behind.
fn nothing_in_the_log(cluster: &Cluster) {
    let log = std::fs::read_to_string(format!("{}/../log", cluster.data())).expect("the log");
    for bad in ["PANIC", "terminated by signal", "WARNING", "TRAP", "FATAL"] {
        let line = log.lines().find(|line| line.contains(bad));
        assert!(line.is_none(), "{line:?}");
    }
}

#[test]
fn twenty_sessions_switch_under_load_with_forks_made_and_dropped_around_them() {
    let cluster =
        prod("max_connections = 200\npg_fork.cut_timeout = '30s'\npg_fork.max_pause = '500ms'");
    cluster.must("pgbench", &["-qi", "-s", "2", "prod"]);
    get(
        &mut cluster.client("prod"),
        "SELECT fork_create('prod', 'shared')",
    );
    let load = cluster.spawn("pgbench", &["-n", "-c", "4", "-j", "1", "-T", "20", "prod"]);
    std::thread::scope(|scope| {
        for agent in 0..20u64 {
            let cluster = &cluster;
            scope.spawn(move || {
                let mut session = cluster.client("prod");
                for round in 0..12 {
                    // Shared by all, so a cut or a drop of one fork meets switches to another.
                    for _ in 0..5 {
                        attach(&mut session, "shared");
                        run(&mut session, "UPDATE users SET id = id WHERE id = 1");
                        detach(&mut session);
                        run(
                            &mut session,
                            "UPDATE pgbench_branches SET bbalance = bbalance WHERE bid = 1",
                        );
                    }
                    let fork = format!("own_{agent}_{round}");
                    get(
                        &mut session,
                        &format!("SELECT fork_create('prod', '{fork}')"),
                    );
                    attach(&mut session, &fork);
                    run(
                        &mut session,
                        "DROP TABLE pgbench_history; CREATE TABLE mine (v int)",
                    );
                    get(&mut session, "SELECT count(*) FROM mine");
                    detach(&mut session);
                    assert_eq!(
                        get(
                            &mut session,
                            "SELECT count(*) FROM pg_class WHERE relname = 'mine'"
                        ),
                        "0"
                    );
                    get(&mut session, &format!("SELECT fork_drop('{fork}')"));
                }
            });
        }
    });
    let out = load.wait_with_output().expect("pgbench ends");
    let report =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success() && report.contains("failed transactions: 0 "),
        "{report}"
    );
    sums(&cluster, "prod");
    sums(&cluster, "shared");
    nothing_in_the_log(&cluster);
    cluster.amcheck("prod");
    cluster.amcheck("shared");
}

#[test]
fn random_interleavings_of_switches_with_ddl_in_both() {
    let cluster = prod("");
    let mut maker = cluster.client("prod");
    run(
        &mut maker,
        "CREATE TABLE whoami (name text);
         INSERT INTO whoami VALUES ('prod');
         CREATE TABLE items (id serial PRIMARY KEY, v text);
         CREATE FUNCTION who() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN name FROM whoami; END $$",
    );
    let mut places = vec!["prod".to_string()];
    for fork in ["a", "b", "c"] {
        get(&mut maker, &format!("SELECT fork_create('prod', '{fork}')"));
        run(
            &mut cluster.client(fork),
            &format!("UPDATE whoami SET name = '{fork}'"),
        );
        places.push(fork.into());
    }
    std::thread::scope(|scope| {
        for worker in 0..6u64 {
            let (cluster, places) = (&cluster, &places);
            scope.spawn(move || work(cluster, places, worker));
        }
    });
    nothing_in_the_log(&cluster);
    for place in &places {
        cluster.amcheck(place);
        // Each worker's rows are where it put them: none was written to another database.
        let strays = format!("SELECT count(*) FROM items WHERE v NOT LIKE '%@{place}'");
        assert_eq!(cluster.sql(place, &strays), "0", "{place}");
        let rows = "SELECT count(*) > 0 FROM items";
        assert_eq!(cluster.sql(place, rows), "t", "{place}");
    }
}

fn work(cluster: &Cluster, places: &[String], worker: u64) {
    let mut random = Random(worker * 7919 + 1);
    let mut session = cluster.client("prod");
    let mut at = "prod".to_string();
    let who = session.prepare("SELECT who()").expect("prepared");
    for step in 0..250 {
        match random.below(12) {
            0..=4 => {
                let to = &places[random.below(places.len() as u64) as usize];
                if *to != at {
                    assert_eq!(attach(&mut session, to), at);
                    at = to.clone();
                }
            }
            5 => run(
                &mut session,
                &format!("INSERT INTO items (v) VALUES ('{worker}.{step}@{at}')"),
            ),
            6 => {
                let table = format!("t_{worker}_{step}");
                run(
                    &mut session,
                    &format!(
                        "CREATE TABLE {table} (v int PRIMARY KEY); INSERT INTO {table} VALUES (1)"
                    ),
                );
                run(
                    &mut session,
                    &format!("ALTER TABLE {table} ADD w text; DROP TABLE {table}"),
                );
            }
            // The mapped catalogs get new files, the others new ones of another kind.
            7 => {
                let what = [
                    "pg_class",
                    "pg_proc",
                    "pg_index",
                    "pg_attribute",
                    "pg_amproc",
                ];
                let what = what[random.below(5) as usize];
                let sql = format!("VACUUM FULL {what}");
                // Two of these can deadlock, in a stock server too.
                let result = session.simple_query(&sql);
                if let Some(error) = result.err().and_then(|e| e.as_db_error().cloned()) {
                    assert_eq!(error.code().code(), "40P01", "{sql}: {error:?}");
                }
            }
            8 => run(&mut session, "BEGIN; CREATE TABLE gone (v int); ROLLBACK"),
            9 => assert!(session.simple_query("SELECT 1 / 0").is_err()),
            10 => {
                run(&mut session, "SET enable_seqscan = off; ANALYZE whoami");
                run(&mut session, "VACUUM items");
            }
            _ => {
                let analyze = ["ANALYZE pg_class", "REINDEX TABLE whoami", "CHECKPOINT"];
                run(&mut session, analyze[random.below(3) as usize]);
            }
        }
        let name: String = session.query_one(&who, &[]).expect("who").get(0);
        assert_eq!(name, at, "worker {worker}, step {step}");
        assert_eq!(get(&mut session, "SELECT current_database()"), at);
    }
}
