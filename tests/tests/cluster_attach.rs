//! Attaching: a session moves into a fork and back (D15).

use pg_fork_tests::attach::{attach, detach, fails, get, prod, refused, value};
use std::time::Instant;

#[test]
fn an_agents_loop_from_one_connection() {
    let cluster = prod("");
    let mut agent = cluster.client("prod");
    for _ in 0..20 {
        let fork = get(&mut agent, "SELECT fork_create('prod')");
        assert_eq!(attach(&mut agent, &fork), "prod");
        assert_eq!(get(&mut agent, "SELECT fork_current()"), fork);
        agent.batch_execute("DROP TABLE users").expect("dropped");
        refused(&mut agent, "SELECT fork_drop(fork_current())", "55006");
        assert_eq!(value(&mut agent, "SELECT to_regclass('users')"), None);
        assert_eq!(detach(&mut agent), "prod");
        assert_eq!(value(&mut agent, "SELECT fork_current()"), None);
        assert_eq!(get(&mut agent, "SELECT count(*) FROM users"), "100");
        assert_eq!(get(&mut agent, &format!("SELECT fork_drop('{fork}')")), "t");
    }
    // In one statement, and from fork to fork.
    get(&mut agent, "SELECT fork_attach(fork_create('prod', 'a'))");
    assert_eq!(get(&mut agent, "SELECT fork_current()"), "a");
    get(&mut agent, "SELECT fork_create('a', 'b')");
    assert_eq!(attach(&mut agent, "b"), "a");
    assert_eq!(attach(&mut agent, "prod"), "b");
    assert_eq!(attach(&mut agent, "a"), "prod");
    agent.batch_execute("DISCARD ALL").expect("home");
    assert_eq!(get(&mut agent, "SELECT current_database()"), "prod");
}

#[test]
fn everything_that_names_the_database_tells_the_truth() {
    let cluster = prod("log_line_prefix = '<%d> '");
    let mut watcher = cluster.client("postgres");
    let mut session = cluster.client("prod");
    get(&mut session, "SELECT fork_create('prod', 'f')");
    let pid = get(&mut session, "SELECT pg_backend_pid()");
    let title = |pid: &str| {
        let path = format!("/proc/{pid}/cmdline");
        std::fs::read_to_string(path).expect("the process's title")
    };
    for (place, sql) in [
        ("f", "SELECT fork_attach('f')"),
        ("prod", "SELECT fork_detach()"),
    ] {
        get(&mut session, sql);
        let activity = format!("SELECT datname FROM pg_stat_activity WHERE pid = {pid}");
        assert_eq!(get(&mut watcher, &activity), place);
        assert!(
            title(&pid).contains(&format!("postgres {place} ")),
            "{}",
            title(&pid)
        );
        fails(&mut session, &format!("SELECT 'error in {place}'::int"));
        session.batch_execute("BEGIN; LOCK users").expect("locked");
        let locks = format!(
            "SELECT DISTINCT d.datname FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE l.pid = {pid}"
        );
        assert_eq!(get(&mut watcher, &locks), place);
        session.batch_execute("COMMIT").expect("committed");
        let backends =
            format!("SELECT numbackends FROM pg_stat_database WHERE datname = '{place}'");
        assert_eq!(get(&mut watcher, &backends), "1");
        let log = cluster.log_tail();
        assert!(log.contains(&format!("<{place}> ERROR")), "{log}");
    }
    // What was counted went to the right database.
    attach(&mut session, "f");
    for _ in 0..50 {
        session
            .batch_execute("INSERT INTO users VALUES (0)")
            .expect("inserted");
    }
    detach(&mut session);
    let inserted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'users'";
    assert_eq!(get(&mut session, inserted), "100");
    assert_eq!(get(&mut session, "SELECT count(*) FROM users"), "100");
    attach(&mut session, "f");
    assert_eq!(get(&mut session, inserted), "50");
    assert_eq!(get(&mut session, "SELECT count(*) FROM users"), "150");
}

#[test]
fn what_cannot_follow_is_refused_before_anything_happens() {
    let cluster = prod("");
    let mut session = cluster.client("prod");
    get(&mut session, "SELECT fork_create('prod', 'f')");
    let go = "SELECT fork_attach('f')";
    let cases = [
        // Not alone in its transaction or its statement.
        ("BEGIN", go, "25001", "ROLLBACK"),
        ("BEGIN; SAVEPOINT s", go, "25001", "ROLLBACK"),
        ("", "SELECT 1; SELECT fork_attach('f')", "25001", ""),
        ("", "SELECT fork_attach('f'), 1", "25001", ""),
        ("", "SELECT fork_attach('f')::text", "25001", ""),
        ("", "SELECT fork_attach('f') FROM users", "25001", ""),
        (
            "",
            "DO $$ BEGIN PERFORM fork_attach('f'); END $$",
            "25001",
            "",
        ),
        ("", "EXPLAIN ANALYZE SELECT fork_attach('f')", "25001", ""),
        ("", "CREATE TABLE x AS SELECT fork_attach('f')", "25001", ""),
        (
            "",
            "WITH x AS MATERIALIZED (SELECT fork_attach('f')) SELECT * FROM x",
            "25001",
            "",
        ),
        (
            "CREATE FUNCTION go() RETURNS name LANGUAGE sql AS $$SELECT 1; SELECT fork_attach('f')$$",
            "SELECT go()",
            "25001",
            "DROP FUNCTION go()",
        ),
        (
            "PREPARE p AS SELECT fork_attach('f')",
            "EXECUTE p",
            "25001",
            "DEALLOCATE p",
        ),
        // What the session has.
        (
            "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM users; COMMIT",
            go,
            "24000",
            "CLOSE ALL",
        ),
        ("CREATE TEMP TABLE x ()", go, "55006", "DISCARD TEMP"),
        (
            "CREATE FUNCTION pg_temp.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            go,
            "55006",
            "DISCARD TEMP",
        ),
        ("LISTEN x", go, "55006", "UNLISTEN *"),
        (
            "SELECT pg_advisory_lock(1)",
            go,
            "55006",
            "SELECT pg_advisory_unlock(1)",
        ),
        (
            "SELECT pg_create_physical_replication_slot('x', true, true)",
            go,
            "55006",
            "", // an error drops it
        ),
        ("", "SELECT fork_attach('postgres')", "0A000", ""),
        ("", "SELECT fork_attach('template0')", "0A000", ""),
    ];
    for (before, sql, state, after) in cases {
        if !before.is_empty() {
            session.batch_execute(before).expect(before);
        }
        refused(&mut session, sql, state);
        if !after.is_empty() {
            session.batch_execute(after).expect(after);
        }
        assert_eq!(get(&mut session, "SELECT current_database()"), "prod");
    }
    // A server with assertions keeps sessions that have had temporary objects where they are.
    if get(&mut session, "SHOW debug_assertions") == "on" {
        session = cluster.client("prod");
    }
    assert_eq!(
        fails(&mut session, "SELECT fork_attach('nothing')").0,
        "3D000"
    );
    assert_eq!(fails(&mut session, "SELECT fork_attach(NULL)").0, "22004");
    // And after all that it still works.
    attach(&mut session, "f");
    detach(&mut session);
}

#[test]
fn rights_are_those_of_a_login() {
    let cluster = prod("");
    let mut admin = cluster.client("prod");
    admin
        .batch_execute("CREATE ROLE guest LOGIN; CREATE ROLE other LOGIN")
        .expect("roles");
    get(&mut admin, "SELECT fork_create('prod', 'f')");
    let go = "SELECT fork_attach('f')";
    let mut guest = cluster.client_as("guest", "prod");
    assert_eq!(fails(&mut guest, go).0, "42501");
    admin
        .batch_execute("GRANT EXECUTE ON FUNCTION fork_attach TO guest")
        .expect("granted");
    admin
        .batch_execute("REVOKE CONNECT ON DATABASE f FROM PUBLIC")
        .expect("revoked");
    let (state, message, _) = fails(&mut guest, go);
    assert_eq!(
        (state.as_str(), message.as_str()),
        ("42501", "permission denied for database \"f\"")
    );
    admin
        .batch_execute("GRANT CONNECT ON DATABASE f TO guest")
        .expect("granted");
    admin
        .batch_execute("ALTER DATABASE f ALLOW_CONNECTIONS off")
        .expect("altered");
    assert_eq!(fails(&mut guest, go).0, "55000");
    admin
        .batch_execute("ALTER DATABASE f ALLOW_CONNECTIONS on; ")
        .expect("altered");
    admin
        .batch_execute("ALTER DATABASE f CONNECTION LIMIT 0")
        .expect("altered");
    assert_eq!(fails(&mut guest, go).0, "53300");
    admin
        .batch_execute("ALTER DATABASE f CONNECTION LIMIT 1")
        .expect("altered");
    attach(&mut guest, "f");
    let mut second = cluster.client_as("guest", "prod");
    assert_eq!(fails(&mut second, go).0, "53300");
    // Home is checked as well.
    admin
        .batch_execute("REVOKE CONNECT ON DATABASE prod FROM PUBLIC")
        .expect("revoked");
    assert_eq!(fails(&mut guest, "SELECT fork_detach()").0, "42501");
    assert_eq!(get(&mut guest, "SELECT current_database()"), "f");
    assert!(guest.batch_execute("DISCARD ALL").is_err());
    assert!(guest.is_closed() || guest.batch_execute("SELECT 1").is_err());
    admin
        .batch_execute("GRANT CONNECT ON DATABASE prod TO PUBLIC")
        .expect("granted");
    // The session's own rights count, whatever SET ROLE says; with a definer's rights it is refused.
    attach(&mut second, "f");
    detach(&mut second);
    admin.batch_execute("SET ROLE other").expect("set");
    assert_eq!(fails(&mut admin, go).0, "42501");
    admin
        .batch_execute("RESET ROLE; SET SESSION AUTHORIZATION guest")
        .expect("set");
    attach(&mut admin, "f");
    assert_eq!(get(&mut admin, "SELECT current_user"), "guest");
}

#[test]
fn settings_follow_the_database_and_not_the_session() {
    let cluster = prod("work_mem = '2MB'\ndeadlock_timeout = '3s'");
    let mut admin = cluster.client("postgres");
    get(&mut admin, "SELECT fork_create('prod', 'f')");
    for sql in [
        "ALTER DATABASE prod SET work_mem = '5MB'",
        "ALTER DATABASE prod SET my.word = 'prod'",
        "ALTER DATABASE f SET lock_timeout = '7s'",
        "ALTER DATABASE f SET my.word = 'f'",
        "ALTER DATABASE f SET search_path = pg_catalog, public, other",
        "ALTER DATABASE f SET client_encoding = 'LATIN1'",
        "ALTER ROLE postgres IN DATABASE f SET statement_timeout = '9min'",
        "ALTER ROLE postgres SET timezone = 'Asia/Tokyo'",
        "CREATE ROLE worker",
        "ALTER ROLE postgres IN DATABASE f SET role = 'worker'",
        "GRANT ALL ON DATABASE f TO worker",
    ] {
        admin.batch_execute(sql).expect(sql);
    }
    const NAMES: [&str; 10] = [
        "work_mem",
        "my.word",
        "lock_timeout",
        "search_path",
        "statement_timeout",
        "timezone",
        "deadlock_timeout",
        "datestyle",
        "role",
        "enable_seqscan",
    ];
    let all = |client: &mut postgres::Client| -> Vec<String> {
        let show = |name| {
            get(
                client,
                &format!("SELECT coalesce(current_setting('{name}', true), '')"),
            )
        };
        NAMES.map(show).to_vec()
    };
    let (in_prod, in_f) = (
        all(&mut cluster.client("prod")),
        all(&mut cluster.client("f")),
    );
    assert_ne!(in_prod, in_f);
    let mut session = cluster.client("prod");
    for _ in 0..3 {
        assert_eq!(all(&mut session), in_prod);
        attach(&mut session, "f");
        assert_eq!(all(&mut session), in_f);
        session.batch_execute("RESET ROLE").expect("reset");
        assert_eq!(get(&mut session, "SHOW client_encoding"), "UTF8");
        session
            .batch_execute(
                "SET ROLE none; GRANT EXECUTE ON FUNCTION fork_detach TO worker; RESET ROLE",
            )
            .expect("granted");
        detach(&mut session);
    }
    // What the session has set itself stays; what it resets is the database's.
    session
        .batch_execute("SET work_mem = '77MB'; SET enable_seqscan = off; SET lock_timeout = '1s'")
        .expect("set");
    attach(&mut session, "f");
    assert_eq!(get(&mut session, "SHOW work_mem"), "77MB");
    assert_eq!(get(&mut session, "SHOW enable_seqscan"), "off");
    assert_eq!(get(&mut session, "SHOW lock_timeout"), "1s");
    session.batch_execute("RESET lock_timeout").expect("reset");
    assert_eq!(get(&mut session, "SHOW lock_timeout"), "7s");
    session.batch_execute("RESET work_mem").expect("reset");
    assert_eq!(get(&mut session, "SHOW work_mem"), "2MB");
    // The files change meanwhile.
    admin
        .batch_execute("ALTER SYSTEM SET lock_timeout = '11s'")
        .expect("set");
    get(&mut admin, "SELECT pg_reload_conf()");
    while get(&mut admin, "SHOW lock_timeout") != "11s" {}
    detach(&mut session);
    assert_eq!(get(&mut session, "SHOW lock_timeout"), "11s");
    assert_eq!(get(&mut session, "SHOW work_mem"), "5MB");
    assert_eq!(get(&mut session, "SHOW enable_seqscan"), "off");
}

#[test]
fn ten_thousand_switches_cost_no_memory_and_less_than_a_reconnect() {
    let cluster = prod("");
    let mut session = cluster.client("prod");
    get(&mut session, "SELECT fork_create('prod', 'f')");
    session
        .batch_execute(
            "CREATE FUNCTION f() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN count(*) FROM users; END $$",
        )
        .expect("a function");
    let pid = get(&mut session, "SELECT pg_backend_pid()");
    let work = |session: &mut postgres::Client| {
        get(session, "SELECT count(*) FROM users");
    };
    let memory = || {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("memory");
        let line = statm
            .lines()
            .find(|line| line.starts_with("Private_Dirty:"))
            .expect("a line");
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("files")
            .count();
        let kb: i64 = line
            .split_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("a number");
        (kb, files)
    };
    let contexts = "SELECT sum(total_bytes) FROM pg_backend_memory_contexts";
    let mut switch = Vec::new();
    let mut before = (memory(), 0);
    for round in 0..5_000 {
        for sql in ["SELECT fork_attach('f')", "SELECT fork_detach()"] {
            let began = Instant::now();
            get(&mut session, sql);
            switch.push(began.elapsed());
            if round % 50 == 0 {
                work(&mut session);
            }
        }
        if round == 500 {
            before = (
                memory(),
                get(&mut session, contexts).parse::<i64>().expect("bytes"),
            );
        }
    }
    let after = (
        memory(),
        get(&mut session, contexts).parse::<i64>().expect("bytes"),
    );
    let mut connect = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let mut other = cluster.client("f");
        get(&mut other, "SELECT 1");
        connect.push(began.elapsed());
    }
    switch.sort();
    connect.sort();
    let at = |times: &[std::time::Duration], part: usize| times[times.len() * part / 100];
    println!(
        "switch: median {:?}, p99 {:?}; reconnect: median {:?}, p99 {:?}; memory {before:?} {after:?}",
        at(&switch, 50),
        at(&switch, 99),
        at(&connect, 50),
        at(&connect, 99)
    );
    assert!(at(&switch, 50) < at(&connect, 50));
    assert!(after.0 .0 < before.0 .0 + 1024, "{before:?} {after:?}");
    assert!(after.0 .1 <= before.0 .1 + 4, "{before:?} {after:?}");
    assert!(after.1 < before.1 + 200_000, "{before:?} {after:?}");
}
