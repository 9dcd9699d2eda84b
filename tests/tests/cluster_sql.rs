//! The SQL surface: errors, rights, transactions, other database commands.

use pg_fork_tests::Cluster;

#[test]
fn errors_say_what_is_wrong() {
    let cluster = Cluster::new("pg_fork.max_forks = 2");
    cluster.sql(
        "postgres",
        "CREATE DATABASE prod; CREATE ROLE someone LOGIN; CREATE DATABASE plain"
            .split(';')
            .next()
            .unwrap(),
    );
    cluster.sql("postgres", "CREATE ROLE someone LOGIN");
    cluster.expect_error("postgres", "SELECT fork_create('nothing')", "3D000");
    cluster.expect_error(
        "postgres",
        "SELECT fork_create('prod', 'postgres')",
        "42P04",
    );
    cluster.expect_error("postgres", "SELECT fork_create('prod', '')", "42602");
    cluster.expect_error(
        "postgres",
        "SET ROLE someone; SELECT fork_create('prod')",
        "42501",
    );
    cluster.expect_error("postgres", "SELECT fork_drop('prod')", "42809");
    cluster.expect_error("postgres", "SELECT fork_drop('nothing')", "3D000");
    assert_eq!(
        cluster.sql(
            "postgres",
            "SELECT fork_drop('nothing', missing_ok => true)"
        ),
        "f"
    );
    assert_eq!(
        cluster.sql("postgres", "SELECT fork_create('prod')"),
        "prod_fork_1"
    );
    cluster.expect_error(
        "postgres",
        "SET ROLE someone; SELECT fork_drop('prod_fork_1')",
        "42501",
    );
    assert_eq!(
        cluster.sql("postgres", "SELECT fork_create('prod_fork_1', 'inner')"),
        "inner"
    );
    let error = cluster.expect_error("postgres", "SELECT fork_drop('prod_fork_1')", "2BP01");
    assert!(error.contains("inner"), "{error}");
    let error = cluster.expect_error("postgres", "DROP DATABASE prod", "2BP01");
    assert!(error.contains("prod_fork_1"), "{error}");
    cluster.expect_error("postgres", "SELECT fork_create('prod')", "53400");
    cluster.sql("inner", "CREATE EXTENSION pg_fork");
    cluster.expect_error("inner", "SELECT fork_drop('inner')", "55006");
    let session = cluster.spawn("psql", &["-Xq", "-d", "inner", "-c", "SELECT pg_sleep(30)"]);
    while cluster.sql(
        "postgres",
        "SELECT sessions FROM pg_forks WHERE name = 'inner'",
    ) != "1"
    {}
    let error = cluster.expect_error("postgres", "SELECT fork_drop('inner', false)", "55006");
    assert!(error.contains("1 session"), "{error}");
    assert_eq!(cluster.sql("postgres", "SELECT fork_drop('inner')"), "t");
    assert!(!session.wait_with_output().expect("ends").status.success());
}

#[test]
fn without_preloading_everything_says_so() {
    let cluster = Cluster::bare("", &[]);
    let error = cluster.expect_error("postgres", "CREATE EXTENSION pg_fork", "55000");
    assert!(
        error.contains("shared_preload_libraries = 'pg_fork'"),
        "{error}"
    );
}

#[test]
fn creating_and_dropping_follow_the_transaction() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.script(
        "postgres",
        "BEGIN; SELECT fork_create('prod', 'undone'); ROLLBACK;",
    );
    cluster.script("postgres", "BEGIN; SAVEPOINT s; SELECT fork_create('prod', 'undone'); ROLLBACK TO s; SELECT fork_create('prod', 'done'); COMMIT;");
    let out = cluster.script(
        "postgres",
        "BEGIN; SELECT fork_create('prod', 'undone'); PREPARE TRANSACTION 'x';",
    );
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("0A000"),
        "{out:?}"
    );
    cluster.script("postgres", "BEGIN; SELECT fork_drop('done'); ROLLBACK;");
    assert_eq!(
        cluster.sql("postgres", "SELECT string_agg(name, ',') FROM pg_forks"),
        "done"
    );
    assert_eq!(cluster.sql("done", "SELECT current_database()"), "done");
    cluster.sql("postgres", "SELECT fork_drop('done')");
    cluster.wait_for_folders(0);
}

#[test]
fn a_fork_is_a_database_like_any_other() {
    let cluster = Cluster::new("");
    let long = "x".repeat(63);
    cluster.sql("postgres", &format!("CREATE DATABASE {long}"));
    let name = cluster.sql("postgres", &format!("SELECT fork_create('{long}')"));
    assert!(name.len() == 63 && name.ends_with("_fork_1"), "{name}");
    cluster.sql("postgres", &format!("ALTER DATABASE {name} RENAME TO f"));
    cluster.sql("postgres", "ALTER DATABASE f SET work_mem = '3MB'");
    cluster.sql("postgres", "CREATE ROLE someone LOGIN");
    cluster.sql("postgres", "ALTER DATABASE f OWNER TO someone");
    cluster.sql("postgres", "GRANT CONNECT ON DATABASE f TO someone");
    assert_eq!(cluster.sql("f", "SHOW work_mem"), "3MB");
    assert_eq!(
        cluster.sql("postgres", "SELECT owner FROM pg_forks WHERE name = 'f'"),
        "someone"
    );
    cluster.expect_error(
        "postgres",
        "ALTER DATABASE f SET TABLESPACE pg_global",
        "0A000",
    );
    cluster.sql("postgres", "DROP DATABASE f WITH (FORCE)");
    assert_eq!(
        cluster.sql("postgres", "SELECT count(*) FROM pg_forks"),
        "0"
    );
    cluster.sql(
        "postgres",
        "SELECT fork_create('template0', 'from_template')",
    );
    assert_eq!(
        cluster.sql("from_template", "SELECT count(*) > 0 FROM pg_class"),
        "t"
    );
    cluster.sql("postgres", "DROP DATABASE from_template");
}

#[test]
fn a_process_that_cannot_answer_is_named_and_one_blocked_in_a_send_is_not_waited_for() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    let mut stuck = cluster.spawn("psql", &["-Xq", "-d", "prod", "-v", "FETCH_COUNT=1"]);
    use std::io::Write;
    let stdin = stuck.stdin.as_mut().expect("piped");
    // Nobody reads psql's output: it blocks, and the server blocks in its send.
    writeln!(stdin, "\\unset FETCH_COUNT\nCOPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT;").expect("sent");
    let pid = loop {
        let pid = cluster.sql("postgres", "SELECT pid FROM pg_stat_activity WHERE datname = 'prod' AND wait_event = 'ClientWrite'");
        if !pid.is_empty() {
            break pid;
        }
    };
    cluster.sql("postgres", "SELECT fork_create('prod', 'despite')");
    let _ = stuck.kill();
    let _ = stuck.wait();
    cluster.sql("postgres", &format!("SELECT pg_terminate_backend({pid})"));
    let sleeper = cluster.spawn("psql", &["-Xq", "-d", "prod", "-c", "SELECT pg_sleep(20)"]);
    let pid = loop {
        let pid = cluster.sql(
            "postgres",
            "SELECT pid FROM pg_stat_activity WHERE datname = 'prod' AND wait_event = 'PgSleep'",
        );
        if !pid.is_empty() {
            break pid;
        }
    };
    let signal = |name: &str| {
        std::process::Command::new("kill")
            .args([name, &pid])
            .status()
            .expect("kill runs")
    };
    assert!(signal("-STOP").success());
    let error = cluster.error("postgres", "SELECT fork_create('prod')");
    assert!(signal("-CONT").success());
    assert!(error.contains("55P03") && error.contains(&pid), "{error}");
    assert_eq!(cluster.sql("prod", "SELECT 1"), "1");
    cluster.sql("postgres", "SELECT fork_create('prod', 'after')");
    cluster.sql("postgres", &format!("SELECT pg_terminate_backend({pid})"));
    let _ = sleeper.wait_with_output();
}

#[test]
fn many_at_once_all_succeed() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    let children: Vec<_> = (0..50)
        .map(|_| {
            cluster.spawn(
                "psql",
                &[
                    "-XAtq",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-d",
                    "postgres",
                    "-c",
                    "SELECT fork_create('prod')",
                    "-c",
                    "SELECT fork_create('prod')",
                ],
            )
        })
        .collect();
    for child in children {
        let out = child.wait_with_output().expect("psql ends");
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    assert_eq!(
        cluster.sql(
            "postgres",
            "SELECT count(*) FROM pg_forks WHERE state = 'ready'"
        ),
        "100"
    );
    assert_eq!(
        cluster.sql("prod_fork_100", "SELECT current_database()"),
        "prod_fork_100"
    );
}

#[test]
fn a_callers_operators_do_not_run_with_our_rights() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "postgres",
        "CREATE ROLE someone LOGIN; CREATE SCHEMA evil AUTHORIZATION someone",
    );
    cluster.sql(
        "postgres",
        "GRANT EXECUTE ON FUNCTION fork_create TO someone",
    );
    // Dollar quoting keeps the function's statements in one piece.
    cluster.script(
        "postgres",
        "SET ROLE someone;
         CREATE FUNCTION evil.eq(oid, oid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'ran as %', current_user; END $$;
         CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.eq);",
    );
    let path = "SET ROLE someone; SET search_path = evil, pg_catalog, public";
    let control = cluster.error(
        "postgres",
        &format!("{path}; SELECT 1 FROM pg_database WHERE oid = 1::oid"),
    );
    assert!(control.contains("ran as someone"), "{control}");
    cluster.sql(
        "postgres",
        &format!("{path}; SELECT fork_create('prod', 'f'); SELECT fork_drop('f')"),
    );
    // Nor does a session's path change: it is what it was.
    assert_eq!(
        cluster.sql(
            "postgres",
            &format!("{path}; SELECT fork_create('prod', 'g'); SHOW search_path")
        ),
        "g\nevil, pg_catalog, public"
    );
}

#[test]
fn a_snapshot_older_than_the_fork_cannot_drop_half_of_it() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    let data = cluster.data();
    let make = format!(
        "\\! psql -h {} -p 5432 -U postgres -d postgres -Xqc \"SELECT fork_create('prod', 'f')\"",
        data.trim_end_matches("/data")
    );
    let out = cluster.script(
        "postgres",
        &format!("BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT 1;\n{make}\nSELECT fork_drop('f');\nCOMMIT;\n"),
    );
    assert!(out.stderr.is_empty(), "{out:?}");
    let rows = "SELECT count(*) FROM pg_database WHERE datname = 'f'";
    assert_eq!(cluster.sql("postgres", rows), "0");
    assert_eq!(
        cluster.sql("postgres", "SELECT count(*) FROM pg_forks"),
        "0"
    );
}

#[test]
fn a_source_is_not_dropped_under_a_fork_about_to_commit() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    let maker = cluster.spawn(
        "psql",
        &[
            "-Xq",
            "-d",
            "postgres",
            "-c",
            "BEGIN; SELECT fork_create('prod', 'f'); SELECT pg_sleep(3); COMMIT",
        ],
    );
    while cluster.sql(
        "postgres",
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
    ) != "1"
    {}
    cluster.expect_error("postgres", "DROP DATABASE prod", "2BP01");
    assert!(maker.wait_with_output().expect("ends").status.success());
    assert_eq!(cluster.sql("f", "SELECT current_database()"), "f");
}
