//! An error, and a crash, at each step of a switch. Needs a library built with the feature `stop_points`.

use pg_fork_tests::attach::{attach, detach, fails, get, prod};
use postgres::Client;

/// The steps of a switch: an error in the first three leaves the session where it was.
const STEPS: [&str; 7] = [
    "attach-checked",
    "attach-prepare",
    "attach-flushed",
    "attach-appeared",
    "attach-moved",
    "attach-forgotten",
    "attach-settled",
];

/// Whatever is to happen at the step from now on; nothing if no step is named.
fn arm(session: &mut Client, step: &str, what: &str) {
    session
        .batch_execute(&format!("SET pg_fork.stop_point = '{step}:{what}'"))
        .expect("set");
}

/// Nothing of the session is left anywhere: no lock on a database, no session counted in the fork.
fn nothing_left(watcher: &mut Client, in_fork: &str) {
    for (sql, wanted) in [
        (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND classid = 1262",
            "0",
        ),
        (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = 'f'",
            in_fork,
        ),
        (
            "SELECT sum(numbackends) FROM pg_stat_database WHERE datname = 'f'",
            in_fork,
        ),
        ("SELECT sessions FROM pg_forks WHERE name = 'f'", in_fork),
    ] {
        let mut found = String::new();
        for _ in 0..200 {
            found = get(watcher, sql);
            if found == wanted {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(found, wanted, "{sql}");
    }
}

#[test]
fn an_error_before_the_switch_leaves_the_session_where_it_was() {
    let cluster = prod("");
    let mut watcher = cluster.client("prod");
    let mut session = cluster.client("prod");
    get(&mut session, "SELECT fork_create('prod', 'f')");
    for _ in 0..20 {
        for step in &STEPS[..3] {
            arm(&mut session, step, "error");
            let (_, message, _) = fails(&mut session, "SELECT fork_attach('f')");
            assert!(message.contains(step), "{message}");
            assert_eq!(get(&mut session, "SELECT current_database()"), "prod");
            nothing_left(&mut watcher, "0");
            arm(&mut session, "", "");
            attach(&mut session, "f");
            nothing_left(&mut watcher, "1");
            arm(&mut session, step, "error");
            fails(&mut session, "SELECT fork_detach()");
            assert_eq!(get(&mut session, "SELECT current_database()"), "f");
            arm(&mut session, "", "");
            detach(&mut session);
        }
    }
    get(&mut session, "SELECT count(*) FROM users");
    get(&mut session, "SELECT fork_drop('f')");
}

#[test]
fn an_error_within_the_switch_ends_the_session_and_nothing_else() {
    let cluster = prod("");
    let mut watcher = cluster.client("prod");
    get(&mut watcher, "SELECT fork_create('prod', 'f')");
    for round in 0..3 {
        for step in &STEPS[3..] {
            for back in [false, true] {
                let mut session = cluster.client("prod");
                session
                    .batch_execute(
                        "UPDATE users SET id = id WHERE id = 1; CREATE TABLE t (); DROP TABLE t",
                    )
                    .expect("work");
                if back {
                    attach(&mut session, "f");
                }
                arm(&mut session, step, "error");
                let go = ["SELECT fork_attach('f')", "SELECT fork_detach()"][usize::from(back)];
                session.simple_query(go).expect_err("ended");
                assert!(session.simple_query("SELECT 1").is_err(), "{step}");
                drop(session);
                nothing_left(&mut watcher, "0");
            }
        }
        assert_eq!(
            get(&mut watcher, "SELECT count(*) FROM users"),
            "100",
            "{round}"
        );
    }
    // The client is told why.
    let script =
        "SET pg_fork.stop_point = 'attach-moved:error';\nSELECT fork_attach('f');\nSELECT 1;\n";
    let out = cluster.script("prod", script);
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(
        told.contains("FATAL") && told.contains("stop point attach-moved"),
        "{told}"
    );
    // The watcher's own session has seen no crash of the server.
    let mut session = cluster.client("prod");
    attach(&mut session, "f");
    detach(&mut session);
    get(&mut watcher, "SELECT fork_drop('f')");
    cluster.amcheck("prod");
}

#[test]
fn a_reset_that_cannot_go_home_ends_the_session() {
    let cluster = prod("");
    let mut session = cluster.client("prod");
    get(&mut session, "SELECT fork_create('prod', 'f')");
    for step in &STEPS[..3] {
        let mut session = cluster.client("prod");
        attach(&mut session, "f");
        // DISCARD ALL would reset the setting itself.
        let setting = format!("ALTER DATABASE f SET pg_fork.stop_point = '{step}:error'");
        cluster.sql("prod", &setting);
        let mut session2 = cluster.client("prod");
        attach(&mut session2, "f");
        session2.simple_query("DISCARD ALL").expect_err("ended");
        assert!(session2.simple_query("SELECT 1").is_err(), "{step}");
        session.batch_execute("DISCARD ALL").expect("home");
        assert_eq!(get(&mut session, "SELECT current_database()"), "prod");
        cluster.sql("prod", "ALTER DATABASE f RESET pg_fork.stop_point");
    }
}

const CRASH: &str = "terminated by signal 9";

#[test]
fn a_crash_at_any_step_costs_nothing_but_the_restart() {
    let cluster = prod("");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    for (n, step) in STEPS.iter().enumerate() {
        for back in [false, true] {
            let mut session = cluster.client("prod");
            let acknowledged = format!("CREATE TABLE t_{n}_{back} ()");
            session.batch_execute(&acknowledged).expect("made");
            attach(&mut session, "f");
            session.batch_execute(&acknowledged).expect("made");
            if !back {
                detach(&mut session);
            }
            arm(&mut session, step, "crash");
            let go = ["SELECT fork_attach('f')", "SELECT fork_detach()"][usize::from(back)];
            session.simple_query(go).expect_err("ended");
            let mut answers = false;
            let so_far = 2 * n + usize::from(back) + 1;
            for _ in 0..1000 {
                // The postmaster may not have heard of it yet.
                let noticed = cluster.log().matches(CRASH).count() == so_far;
                let out = cluster.run("psql", &["-X", "-d", "prod", "-c", "SELECT 1"]);
                answers = noticed && out.status.success();
                if answers {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            assert!(answers, "{step}: {}", cluster.log_tail());
            for db in ["prod", "f"] {
                let tables = "SELECT count(*) FROM pg_class WHERE relname ~ '^t_'; SELECT count(*) FROM users";
                let made = 2 * n + usize::from(back) + 1;
                assert_eq!(
                    cluster.sql(db, tables),
                    format!("{made}\n100"),
                    "{step}, {db}"
                );
            }
        }
    }
    assert_eq!(cluster.log().matches(CRASH).count(), 2 * STEPS.len());
    cluster.amcheck("prod");
    cluster.amcheck("f");
}
