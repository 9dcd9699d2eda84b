//! Full disks and damaged files: the source goes on, forks say what is wrong (D14).

use pg_fork_tests::small::Small;
use pg_fork_tests::{sums, Cluster};
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;

#[test]
fn a_full_disk_costs_forks_and_not_the_source() {
    let cluster =
        Cluster::new("pg_fork.min_free_disk = 0\nautovacuum = off\npg_fork.isolation = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "2", "prod"]);
    let small = Small::over(&cluster, 64);
    cluster.sql("postgres", "SELECT fork_create('prod', 'reads')");
    cluster.sql("postgres", "SELECT fork_create('prod', 'writes')");
    small.fill(300);
    // A fork's own session gets the error.
    let error = cluster.error(
        "writes",
        "UPDATE pgbench_accounts SET abalance = 1; CHECKPOINT",
    );
    assert!(
        error.contains("53100") || error.contains("invalid"),
        "{error}"
    );
    // The source writes on, with checkpoints, while there is no room for pre-images.
    let load = cluster.must("pgbench", &["-n", "-c", "4", "-T", "5", "prod"]);
    assert!(load.contains("failed transactions: 0 "), "{load}");
    cluster.sql(
        "prod",
        "CHECKPOINT; VACUUM FULL pgbench_accounts; CHECKPOINT",
    );
    sums(&cluster, "prod");
    cluster.amcheck("prod");
    let states = "SELECT string_agg(DISTINCT state, ',') FROM pg_forks";
    assert_eq!(cluster.sql("postgres", states), "invalid");
    // What they had is freed in the background.
    let freed = "SELECT max(private_bytes) < 200000 FROM pg_forks";
    while cluster.sql("postgres", freed) != "t" {}
    small.fill(0);
    cluster.expect_error("postgres", "SELECT fork_create('prod')", "53100");
    // A restart does not forget it.
    cluster.stop("immediate");
    cluster.start();
    assert_eq!(cluster.sql("postgres", states), "invalid");
    // Room again: all is as it was.
    small.empty();
    cluster.sql(
        "postgres",
        "SELECT fork_drop('reads'); SELECT fork_drop('writes')",
    );
    cluster.sql("postgres", "SELECT fork_create('prod', 'again')");
    let seen = sums(&cluster, "again");
    cluster.must("pgbench", &["-n", "-c", "4", "-t", "200", "prod"]);
    cluster.stop("immediate");
    cluster.start();
    assert_eq!(sums(&cluster, "again"), seen);
    sums(&cluster, "prod");
}

#[test]
fn below_the_floor_the_largest_forks_end() {
    let cluster = Cluster::new("pg_fork.min_free_disk = 0\npg_fork.isolation = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "2", "prod"]);
    // Pages that a cut captures are storage, too.
    cluster.sql(
        "postgres",
        "CHECKPOINT; SELECT fork_create('prod', 'small'); SELECT fork_create('prod', 'large')",
    );
    cluster.sql("large", "CREATE TABLE big AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 20000); CHECKPOINT");
    let before = cluster.sql(
        "postgres",
        "SELECT private_bytes > 10000000 FROM pg_forks WHERE name = 'large'",
    );
    assert_eq!(before, "t");
    // A floor just above what is free: ending the large one makes room.
    let out = Command::new("df")
        .args(["--output=avail", "-m", &cluster.data()])
        .output();
    let text = String::from_utf8(out.expect("df runs").stdout).expect("text");
    let free: u64 = text
        .lines()
        .nth(1)
        .and_then(|n| n.trim().parse().ok())
        .expect("a number");
    let set = |megabytes: u64| {
        cluster.sql(
            "postgres",
            &format!(
                "ALTER SYSTEM SET pg_fork.min_free_disk = '{megabytes}MB'; SELECT pg_reload_conf()"
            ),
        );
    };
    set(free + 100_000);
    let error = || {
        cluster.run(
            "psql",
            &[
                "-X",
                "-v",
                "VERBOSITY=verbose",
                "-d",
                "postgres",
                "-c",
                "SELECT fork_create('prod', 'more')",
            ],
        )
    };
    let refused = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        String::from_utf8_lossy(&error().stderr).contains("53100")
    });
    assert!(refused, "a fork was made below the floor");
    let order = "SELECT string_agg(name, ',' ORDER BY name) FROM pg_forks WHERE state = 'invalid'";
    let ended = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        cluster.sql("postgres", order).contains("large")
    });
    assert!(ended, "the largest fork did not end");
    let bytes = "SELECT private_bytes < 1000000 FROM pg_forks WHERE name = 'large'";
    assert_eq!(cluster.sql("postgres", bytes), "t");
    assert!(cluster
        .error("large", "SELECT * FROM big")
        .contains("min_free_disk"));
    let log = cluster.log();
    let first = log.find("is invalid now").expect("logged");
    let oid = cluster.sql("postgres", "SELECT oid FROM pg_forks WHERE name = 'large'");
    assert!(
        log[..first].ends_with(&format!("fork with OID {oid} ")),
        "the largest goes first"
    );
    set(0);
    sums(&cluster, "prod");
}

#[test]
fn fork_check_finds_what_is_damaged() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE TABLE t AS SELECT g AS id, repeat('x', 200) AS pad FROM generate_series(1, 5000) g",
    );
    cluster.sql("prod", "VACUUM FREEZE t; CHECKPOINT");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql("prod", "UPDATE t SET pad = 'y' WHERE id < 200");
    cluster.sql(
        "f",
        "UPDATE t SET pad = 'z' WHERE id > 4900; CREATE INDEX ON t (id)",
    );
    cluster.sql("postgres", "CHECKPOINT");
    assert_eq!(
        cluster.sql("postgres", "SELECT count(*) FROM fork_check('f')"),
        "0"
    );
    let oid = cluster.sql("postgres", "SELECT oid FROM pg_forks WHERE name = 'f'");
    let rel = cluster.sql("f", "SELECT pg_relation_filenode('t')");
    let prod = cluster.sql(
        "postgres",
        "SELECT oid FROM pg_database WHERE datname = 'prod'",
    );
    cluster.stop("fast");
    let file = |path: String| {
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .expect("the file")
    };
    let dir = format!("{}/base/{oid}", cluster.data());
    // A private page, one that is inherited from the source, and a map.
    let blocks = fs::metadata(format!("{dir}/{rel}")).expect("there").len() / 8192;
    file(format!("{dir}/{rel}"))
        .write_all_at(&[7; 100], (blocks - 1) * 8192 + 4000)
        .expect("written");
    file(format!("{}/base/{prod}/{rel}", cluster.data()))
        .write_all_at(&[7; 100], 60 * 8192 + 4000)
        .expect("written");
    cluster.start();
    let found = cluster.sql("postgres", "SELECT count(*), count(*) FILTER (WHERE problem LIKE '%checksum%'), max(block) FROM fork_check('f')");
    assert_eq!(found, format!("2|2|{}", blocks - 1));
    cluster.stop("fast");
    file(format!("{dir}/pgsql_tmp_map_{rel}_0"))
        .write_all_at(&[9; 8], 8)
        .expect("written");
    cluster.start();
    let found = cluster.sql(
        "postgres",
        "SELECT problem FROM fork_check('f') WHERE block IS NULL",
    );
    assert!(found.contains("checksum"), "{found}");
    cluster.expect_error("postgres", "SELECT * FROM fork_check('prod')", "42809");
    cluster.expect_error("postgres", "SELECT * FROM fork_check('none')", "3D000");
}

/// Needs a library built with the feature `stop_points`.
#[test]
fn who_looks_into_a_fork_in_vain_is_told_and_does_it_no_harm() {
    let cluster = Cluster::new("autovacuum = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE EXTENSION pg_fork; CREATE TABLE t AS SELECT generate_series(1, 50000) AS v",
    );
    cluster.sql(
        "prod",
        "SELECT fork_create('prod', 'f'); SELECT fork_mount('f', into_schema => 'm')",
    );
    // So that nothing is in the buffers, or known.
    cluster.stop("fast");
    cluster.start();
    let look = "SELECT count(*) FROM m.t";
    for point in ["open-file", "read-map"] {
        let failing = format!("SET pg_fork.stop_point = '{point}:fail'; {look}");
        cluster.expect_error("prod", &failing, "58030");
    }
    let state = "SELECT state FROM pg_forks";
    assert_eq!(cluster.sql("postgres", state), "ready");
    assert_eq!(cluster.sql("prod", look), "50000");
}

/// Needs a library built with the feature `stop_points`.
#[test]
fn failures_of_files_cost_forks_and_not_the_source() {
    let cluster = Cluster::new("autovacuum = off\npg_fork.isolation = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.must("pgbench", &["-qi", "-s", "1", "prod"]);
    let set = |value: &str| {
        let sql =
            format!("ALTER SYSTEM SET pg_fork.stop_point = '{value}'; SELECT pg_reload_conf()");
        cluster.sql("postgres", &sql);
        while cluster.sql("postgres", "SHOW pg_fork.stop_point") != value {}
    };
    let points = [
        "open-file",
        "write-file",
        "write-captured",
        "write-map",
        "read-map",
        "rename-file",
        "truncate-file",
        "make-dir",
        "write-meta",
        "sync-file",
    ];
    let mut hurt = 0;
    for point in points {
        cluster.sql(
            "prod",
            "CREATE TABLE gone AS SELECT generate_series(1, 1000) AS v",
        );
        cluster.sql(
            "postgres",
            "SELECT fork_create('prod', 'reads'); SELECT fork_create('prod', 'writes')",
        );
        let seen = sums(&cluster, "reads");
        cluster.sql(
            "writes",
            "UPDATE pgbench_tellers SET tbalance = tbalance; UPDATE gone SET v = v; CHECKPOINT",
        );
        set(&format!("{point}:fail"));
        // The source sees nothing of it: writes, checkpoints, drops, a vacuum that truncates.
        let load = cluster.must("pgbench", &["-n", "-c", "4", "-t", "150", "prod"]);
        assert!(load.contains("failed transactions: 0 "), "{point}: {load}");
        cluster.sql("prod", "DROP TABLE gone; DELETE FROM pgbench_history; VACUUM pgbench_history; CHECKPOINT; INSERT INTO pgbench_history (delta) SELECT sum(abalance) FROM pgbench_accounts; CHECKPOINT");
        // In the fork's own session it may be an error. It is never the server's end.
        let _ = cluster.run(
            "psql",
            &[
                "-X",
                "-d",
                "writes",
                "-c",
                "DELETE FROM gone",
                "-c",
                "VACUUM gone",
                "-c",
                "UPDATE pgbench_branches SET bbalance = 0",
                "-c",
                "CHECKPOINT",
            ],
        );
        let _ = cluster.run(
            "psql",
            &[
                "-X",
                "-d",
                "postgres",
                "-c",
                "SELECT fork_create('prod', 'more')",
            ],
        );
        set("");
        sums(&cluster, "prod");
        cluster.amcheck("prod");
        for restart in [false, true] {
            if restart {
                cluster.stop("immediate");
                cluster.start();
            }
            let state = cluster.sql(
                "postgres",
                "SELECT state FROM pg_forks WHERE name = 'reads'",
            );
            if state == "ready" {
                assert_eq!(sums(&cluster, "reads"), seen, "{point}");
                cluster.amcheck("reads");
            } else {
                assert_eq!(state, "invalid", "{point}");
                assert!(cluster
                    .error("reads", "SELECT count(*) FROM pgbench_history")
                    .contains("invalid"));
                hurt += u32::from(!restart);
            }
        }
        for name in cluster.sql("postgres", "SELECT name FROM pg_forks").lines() {
            cluster.sql("postgres", &format!("SELECT fork_drop('{name}')"));
        }
        assert!(
            !cluster.log().contains("PANIC"),
            "{point}: {}",
            cluster.log_tail()
        );
    }
    assert!(hurt > 2, "the failures were not met: {hurt}");
}
