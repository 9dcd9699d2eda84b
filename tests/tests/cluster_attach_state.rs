//! What a session keeps across a switch, and what it must not take along (D15).

use pg_fork_tests::attach::{attach, detach, fails, get, prod, value};
use postgres::Client;

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

#[test]
fn prepared_statements_are_kept_and_planned_anew() {
    let cluster = prod("");
    let mut session = cluster.client("prod");
    get(&mut session, "SELECT fork_create('prod', 'f')");
    let count = session
        .prepare("SELECT count(*) FROM users WHERE id > $1")
        .expect("prepared");
    let go = session.prepare("SELECT fork_attach($1)").expect("prepared");
    run(&mut session, "PREPARE p AS SELECT count(*) FROM users");
    for round in 0..10 {
        let one = |session: &mut Client| -> i64 {
            session.query_one(&count, &[&0]).expect("counted").get(0)
        };
        assert_eq!(one(&mut session), 100);
        // The extended protocol, with a parameter.
        let from: String = session.query_one(&go, &[&"f"]).expect("attached").get(0);
        assert_eq!(from, "prod");
        assert_eq!(one(&mut session), 100 + round * 3);
        // Another plan: the table moves, and gets an index.
        run(
            &mut session,
            "INSERT INTO users SELECT generate_series(1, 3)",
        );
        run(&mut session, "CREATE INDEX IF NOT EXISTS i ON users (id)");
        run(&mut session, "VACUUM FULL users");
        assert_eq!(one(&mut session), 100 + (round + 1) * 3);
        assert_eq!(
            get(&mut session, "EXECUTE p"),
            (100 + (round + 1) * 3).to_string()
        );
        let to: String = session
            .query_one("SELECT * FROM fork_detach()", &[])
            .expect("detached")
            .get(0);
        assert_eq!(to, "prod");
        assert_eq!(get(&mut session, "EXECUTE p"), "100");
    }
}

#[test]
fn functions_compiled_in_one_database_are_not_used_in_the_other() {
    let cluster = prod("");
    let mut session = cluster.client("prod");
    run(
        &mut session,
        "CREATE TABLE kinds (v integer);
         CREATE TYPE pair AS (a int, b int);
         CREATE FUNCTION cast_it(t text) RETURNS text LANGUAGE plpgsql AS $$
             DECLARE v kinds.v%TYPE := t; p pair := ROW(1, 2); BEGIN RETURN pg_typeof(v) || ':' || v || p::text; END $$;
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := NEW.id + 1000; RETURN NEW; END $$;
         CREATE TRIGGER note BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION note();
         CREATE FUNCTION who() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN current_database(); END $$",
    );
    get(&mut session, "SELECT fork_create('prod', 'f')");
    for _ in 0..3 {
        assert_eq!(get(&mut session, "SELECT cast_it('7')"), "integer:7(1,2)");
        assert_eq!(
            get(&mut session, "INSERT INTO users VALUES (1) RETURNING id"),
            "1001"
        );
        attach(&mut session, "f");
        run(
            &mut session,
            "ALTER TABLE kinds ALTER v TYPE text; ALTER TYPE pair DROP ATTRIBUTE IF EXISTS c; ALTER TYPE pair ADD ATTRIBUTE c int",
        );
        run(&mut session, "DROP TRIGGER IF EXISTS note ON users");
        assert_eq!(get(&mut session, "SELECT cast_it('x')"), "text:x(1,2,)");
        assert_eq!(
            get(&mut session, "INSERT INTO users VALUES (1) RETURNING id"),
            "1"
        );
        run(
            &mut session,
            "CREATE OR REPLACE FUNCTION who() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN 'fork'; END $$",
        );
        assert_eq!(get(&mut session, "SELECT who()"), "fork");
        detach(&mut session);
        assert_eq!(get(&mut session, "SELECT who()"), "prod");
    }
}

#[test]
fn sequence_values_fetched_ahead_stay_behind() {
    let cluster = prod("");
    let mut session = cluster.client("prod");
    run(&mut session, "CREATE SEQUENCE s CACHE 20");
    assert_eq!(get(&mut session, "SELECT nextval('s')"), "1");
    get(&mut session, "SELECT fork_create('prod', 'f')");
    attach(&mut session, "f");
    let in_fork: i64 = get(&mut session, "SELECT nextval('s')")
        .parse()
        .expect("a number");
    assert!(in_fork > 20, "{in_fork}");
    run(&mut session, "SELECT setval('s', 5000)");
    assert_eq!(get(&mut session, "SELECT nextval('s')"), "5001");
    assert_eq!(get(&mut session, "SELECT lastval()"), "5001");
    detach(&mut session);
    assert_eq!(fails(&mut session, "SELECT lastval()").0, "55000");
    let mut other = cluster.client("prod");
    let (mine, others): (i64, i64) = (
        get(&mut session, "SELECT nextval('s')")
            .parse()
            .expect("a number"),
        get(&mut other, "SELECT nextval('s')")
            .parse()
            .expect("a number"),
    );
    assert!(
        mine < 100 && others < 100 && mine != others,
        "{mine} {others}"
    );
}

#[test]
fn temporary_objects_work_on_both_sides_and_are_cleaned_up() {
    let cluster = prod("");
    let mut session = cluster.client("prod");
    if get(&mut session, "SHOW debug_assertions") == "on" {
        // Such a server does not let a session forget its temporary schema: it is refused.
        get(&mut session, "SELECT fork_create('prod', 'f')");
        run(&mut session, "CREATE TEMP TABLE t (); DROP TABLE t");
        assert_eq!(fails(&mut session, "SELECT fork_attach('f')").0, "0A000");
        return;
    }
    get(&mut session, "SELECT fork_create('prod', 'f')");
    for round in 0..4 {
        run(&mut session, "CREATE TEMP TABLE t AS SELECT 1 AS v");
        assert_eq!(get(&mut session, "SELECT v FROM t"), "1", "{round}");
        let to = if round % 2 == 0 { "f" } else { "prod" };
        let go = format!("SELECT fork_attach('{to}')");
        assert_eq!(fails(&mut session, &go).0, "55006");
        run(&mut session, "DROP TABLE t");
        if round < 3 {
            attach(&mut session, to);
        }
    }
    run(&mut session, "CREATE TEMP TABLE left_over (v text)");
    drop(session);
    let mut other = cluster.client("f");
    while get(
        &mut other,
        "SELECT count(*) FROM pg_class WHERE relname = 'left_over'",
    ) != "0"
    {}
    assert_eq!(
        get(
            &mut cluster.client("prod"),
            "SELECT count(*) FROM pg_class WHERE relname IN ('t', 'left_over')"
        ),
        "0"
    );
    // It ends in a refusal, not in an error of the server's.
    let mut session = cluster.client("prod");
    let refused = (0..20).find(|round| {
        run(&mut session, "CREATE TEMP TABLE t (); DROP TABLE t");
        let to = if round % 2 == 0 { "f" } else { "prod" };
        session
            .simple_query(&format!("SELECT fork_attach('{to}')"))
            .is_err()
    });
    assert_eq!(refused, Some(6));
    assert_eq!(get(&mut session, "SELECT 1"), "1");
}

#[test]
fn rows_that_another_session_of_the_fork_still_sees_are_kept() {
    let cluster = prod("");
    let mut session = cluster.client("prod");
    get(&mut session, "SELECT fork_create('prod', 'f')");
    let mut reader = cluster.client("f");
    run(&mut reader, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(get(&mut reader, "SELECT count(*) FROM users"), "100");
    let mut writer = cluster.client("f");
    run(&mut writer, "UPDATE users SET id = id + 1");
    run(&mut writer, "DELETE FROM users WHERE id > 10");
    // In prod nobody is in their way, so the session's idea of what is dead to all is up to date there.
    for _ in 0..5 {
        run(&mut session, "UPDATE users SET id = id");
        run(&mut session, "VACUUM users");
        attach(&mut session, "f");
        get(&mut session, "SELECT count(*) FROM users");
        run(&mut session, "VACUUM users");
        detach(&mut session);
    }
    assert_eq!(get(&mut reader, "SELECT sum(id) FROM users"), "5050");
    run(&mut reader, "COMMIT");
}

#[test]
fn a_fork_dropped_by_force_ends_its_sessions_and_a_lost_home_ends_a_reset() {
    let cluster = prod("");
    cluster.sql("postgres", "CREATE DATABASE lobby; ");
    cluster.sql("lobby", "CREATE EXTENSION pg_fork");
    let mut admin = cluster.client("prod");
    get(&mut admin, "SELECT fork_create('prod', 'f')");
    let mut guest = cluster.client("prod");
    attach(&mut guest, "f");
    assert_eq!(fails(&mut admin, "SELECT fork_drop('f', false)").0, "55006");
    get(&mut admin, "SELECT fork_drop('f')");
    let error = guest.batch_execute("SELECT 1").expect_err("ended");
    let state = error.code().map(|code| code.code().to_string());
    assert!(state.is_none_or(|state| state == "57P04"), "{error:?}");
    // The other way round: the database that the session came from goes.
    get(&mut admin, "SELECT fork_create('lobby', 'g')");
    get(&mut admin, "SELECT fork_create('prod', 'h')");
    let mut guest = cluster.client("lobby");
    attach(&mut guest, "h");
    get(&mut admin, "SELECT fork_drop('g')");
    run(&mut admin, "DROP DATABASE lobby");
    assert_eq!(fails(&mut guest, "SELECT fork_detach()").0, "3D000");
    assert_eq!(get(&mut guest, "SELECT current_database()"), "h");
    assert!(guest.batch_execute("DISCARD ALL").is_err());
    assert!(guest.batch_execute("SELECT 1").is_err());
}

#[test]
fn who_owns_the_fork_is_asked_in_the_fork() {
    let cluster = prod("");
    let mut admin = cluster.client("prod");
    run(
        &mut admin,
        "CREATE ROLE guest LOGIN; GRANT EXECUTE ON FUNCTION fork_attach TO guest; GRANT SELECT ON users TO pg_database_owner",
    );
    get(&mut admin, "SELECT fork_create('prod', 'f')");
    let mut guest = cluster.client_as("guest", "prod");
    let member = "SELECT pg_has_role('pg_database_owner', 'USAGE')";
    assert_eq!(get(&mut guest, member), "f");
    attach(&mut guest, "f");
    assert_eq!(get(&mut guest, member), "f");
    run(&mut admin, "ALTER DATABASE f OWNER TO guest");
    assert_eq!(get(&mut guest, member), "t");
    assert_eq!(get(&mut guest, "SELECT count(*) FROM users"), "100");
    detach(&mut guest);
    assert_eq!(get(&mut guest, member), "f");
    assert_eq!(fails(&mut guest, "SELECT count(*) FROM users").0, "42501");
    assert_eq!(value(&mut guest, "SELECT fork_current()"), None);
}

#[test]
fn parallel_queries_large_objects_and_event_triggers_work_on_both_sides() {
    let cluster = prod("max_parallel_workers_per_gather = 2\nmin_parallel_table_scan_size = 0\nparallel_setup_cost = 0\nparallel_tuple_cost = 0");
    let mut session = cluster.client("prod");
    run(
        &mut session,
        "CREATE TABLE big AS SELECT i FROM generate_series(1, 50000) i;
         ANALYZE big;
         CREATE TABLE log (what text);
         CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (tg_tag); END $$;
         CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION note();
         SELECT lo_from_bytea(4711, 'prod')",
    );
    get(&mut session, "SELECT fork_create('prod', 'f')");
    for round in 0..5 {
        for place in ["f", "prod"] {
            attach(&mut session, place);
            assert_eq!(get(&mut session, "SELECT sum(i) FROM big"), "1250025000");
            let plan = "EXPLAIN (ANALYZE, FORMAT JSON) SELECT sum(i) FROM big";
            let plan = get(&mut session, plan);
            assert!(plan.contains("\"Workers Launched\": 2"), "{plan}");
            if place == "f" {
                run(&mut session, "DROP EVENT TRIGGER IF EXISTS note");
                run(&mut session, "SELECT lo_put(4711, 0, 'fork')");
            }
            let before = get(&mut session, "SELECT count(*) FROM log");
            run(&mut session, "CREATE TABLE t (); DROP TABLE t");
            let after = get(&mut session, "SELECT count(*) FROM log");
            assert_eq!(before == after, place == "f", "{round} {place}");
            let content = get(&mut session, "SELECT encode(lo_get(4711), 'escape')");
            assert_eq!(content, ["prod", "fork"][usize::from(place == "f")]);
        }
    }
}

#[test]
fn a_fork_without_the_extension_can_be_left() {
    let cluster = prod("");
    let mut session = cluster.client("prod");
    get(&mut session, "SELECT fork_create('prod', 'f')");
    attach(&mut session, "f");
    run(&mut session, "DROP EXTENSION pg_fork");
    // The way home needs no function of the fork's.
    assert_eq!(fails(&mut session, "SELECT fork_detach()").0, "42883");
    run(&mut session, "DISCARD ALL");
    assert_eq!(get(&mut session, "SELECT current_database()"), "prod");
}

#[test]
fn discard_all_clears_what_would_keep_the_session_and_goes_home() {
    let cluster = prod("");
    let mut session = cluster.client("prod");
    get(&mut session, "SELECT fork_create('prod', 'f')");
    for _ in 0..3 {
        attach(&mut session, "f");
        run(
            &mut session,
            "LISTEN x; PREPARE p AS SELECT 1; SELECT pg_advisory_lock(1)",
        );
        run(
            &mut session,
            "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM users; COMMIT",
        );
        run(
            &mut session,
            "SET work_mem = '3MB'; SET ROLE pg_monitor; RESET ROLE",
        );
        if get(&mut session, "SHOW debug_assertions") == "off" {
            run(&mut session, "CREATE TEMP TABLE t AS SELECT 1");
        }
        run(&mut session, "DISCARD ALL");
        assert_eq!(get(&mut session, "SELECT current_database()"), "prod");
        assert_eq!(get(&mut session, "SHOW work_mem"), "4MB");
    }
}

#[test]
fn errors_are_what_they_are_without_the_library() {
    let cluster = prod("");
    let mut session = cluster.client("prod");
    get(&mut session, "SELECT fork_create('prod', 'f')");
    for place in ["f", "prod"] {
        attach(&mut session, place);
        for (sql, position) in [
            ("CREATE SEQUENCE s AS nosuchtype", true),
            ("DO $$ BEGIN CREATE TABLE users (); END $$", false),
        ] {
            let error = session.simple_query(sql).expect_err("fails");
            let error = error.as_db_error().expect("an error of the server's");
            assert_eq!(error.position().is_some(), position, "{error:?}");
            assert_eq!(error.where_().is_some(), !position, "{error:?}");
            assert_eq!(error.detail(), None, "{error:?}");
        }
    }
}
