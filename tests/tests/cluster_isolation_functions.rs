//! Which functions can be called in a fork: each that reaches out is refused by whatever way it is called, and
//! none is forgotten. The lists are the extension's own.

#[allow(dead_code)] // the extension uses the rest
#[path = "../../src/isolation/classes/mod.rs"]
mod classes;

use classes::libraries::{self, Rest};
use classes::server::{self, Class};
use pg_fork_tests::attach::{attach, fails, get, prod};
use pg_fork_tests::{pg_config, Cluster};
use postgres::Client;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Fails unless the statement is refused because the session is in a fork.
fn refused(client: &mut Client, sql: &str) -> String {
    let (state, message, hint) = fails(client, sql);
    assert_eq!(state, "42501", "{sql}: {message}");
    assert!(message.ends_with(" in a fork"), "{sql}: {message}");
    assert!(hint.is_some_and(|hint| hint.contains("isolation")), "{sql}");
    message
}

fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let rows = client
        .query(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let row = |row: postgres::Row| (0..row.len()).map(|column| row.get(column)).collect();
    rows.into_iter().map(row).collect()
}

/// Statements that prepare a call of each of these functions, and make none. Arguments are not constants:
/// a strict function of a null is not called.
fn prepared_calls(client: &mut Client, wanted: &str) -> Vec<(String, String)> {
    let sql = format!(
        "SELECT p.proname::text, format('EXPLAIN SELECT %I.%I(%s) FROM (SELECT %s OFFSET 0) x',
                n.nspname, p.proname,
                (SELECT string_agg(CASE WHEN p.provariadic <> 0 AND a.nr = p.pronargs THEN 'VARIADIC ' ELSE '' END
                                   || 'x.a' || a.nr, ', ' ORDER BY a.nr) FROM unnest(p.proargtypes) WITH ORDINALITY a (t, nr)),
                coalesce((SELECT string_agg(format('NULL::%s AS a%s', format_type(a.t, NULL), a.nr), ', ' ORDER BY a.nr)
                          FROM unnest(p.proargtypes) WITH ORDINALITY a (t, nr)), '1 AS none'))
         FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE p.prokind = 'f' AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
           AND NOT 'internal'::regtype = ANY (p.proargtypes) AND p.prorettype <> 'internal'::regtype AND ({wanted})"
    );
    let found = rows(client, &sql);
    found
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect()
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    names.join(", ")
}

#[test]
fn every_volatile_function_of_the_server_has_a_class() {
    let cluster = prod("");
    let mut client = cluster.client("postgres");
    let sql = "SELECT DISTINCT proname::text FROM pg_proc WHERE oid < 16384 AND provolatile = 'v'";
    let volatile: BTreeSet<String> = rows(&mut client, sql).into_iter().flatten().collect();
    assert!(volatile.len() > 150, "{volatile:?}");
    let unclassed: Vec<&String> = volatile
        .iter()
        .filter(|name| server::class(name).is_none())
        .collect();
    assert!(
        unclassed.is_empty(),
        "in no class, to be thought about: {unclassed:?}"
    );
    let mut listed: Vec<&str> = [server::OWN, server::CHECKED].concat();
    listed.extend(server::REFUSED.iter().flat_map(|(_, names)| *names));
    for name in &listed {
        assert!(
            volatile.contains(*name),
            "{name} is listed, and not the server's"
        );
        let times = listed.iter().filter(|other| other == &name).count();
        assert_eq!(times, 1, "{name}");
        assert!(server::class(name).is_some(), "{name}: out of order");
    }
}

#[test]
fn what_reaches_out_is_refused_before_it_is_called_and_the_rest_is_not() {
    let cluster = prod("");
    let mut client = cluster.client("prod");
    get(&mut client, "SELECT fork_create('prod', 'f')");
    attach(&mut client, "f");
    let mut seen = BTreeSet::new();
    for (name, sql) in prepared_calls(&mut client, "p.oid < 16384 AND p.provolatile = 'v'") {
        match server::class(&name) {
            Some(Class::Refused(what)) => {
                let message = refused(&mut client, &sql);
                assert_eq!(message, format!("cannot {what} in a fork"));
                seen.insert(name);
            }
            _ => run(&mut client, &sql),
        }
    }
    let names = server::REFUSED.iter().flat_map(|(_, names)| *names);
    assert!(names.clone().all(|name| seen.contains(*name)), "{seen:?}");
}

#[test]
fn a_function_that_nobody_has_looked_at_is_refused() {
    let cluster = prod("");
    let mut client = cluster.client("prod");
    get(&mut client, "SELECT fork_create('prod', 'f')");
    attach(&mut client, "f");
    // As a new version would have it: volatile, with a name that stands in no list.
    run(
        &mut client,
        "ALTER FUNCTION pg_catalog.timeofday() RENAME TO tell_the_time;
         ALTER FUNCTION pg_catalog.pi() RENAME TO twice_tau",
    );
    assert_eq!(
        refused(&mut client, "SELECT tell_the_time()"),
        "cannot call tell_the_time() in a fork"
    );
    for sql in [
        "SELECT max(tell_the_time()) FROM users",
        "SELECT 1 FROM users WHERE tell_the_time() <> ''",
        "SELECT * FROM tell_the_time()",
        "DO $$ BEGIN PERFORM tell_the_time(); END $$",
        "CREATE TABLE t (at text DEFAULT tell_the_time()); INSERT INTO t DEFAULT VALUES",
    ] {
        refused(&mut client, sql);
    }
    run(&mut client, "SELECT twice_tau()");
}

/// Ways to a function that do not name it, each with a statement that goes it.
#[test]
fn other_ways_to_a_function_are_closed_too() {
    let cluster = prod("");
    let mut admin = cluster.client("prod");
    run(
        &mut admin,
        "CREATE FUNCTION other_name() RETURNS boolean LANGUAGE internal AS 'pg_reload_conf';
         CREATE FUNCTION pure() RETURNS float8 LANGUAGE internal IMMUTABLE AS 'dpi';
         CREATE FUNCTION add_point(text, text) RETURNS text LANGUAGE sql AS $$ SELECT $1 || pg_create_restore_point($2)::text $$;
         CREATE AGGREGATE points(text) (SFUNC = add_point, STYPE = text, INITCOND = '');
         CREATE FUNCTION emit(bool, text) RETURNS bool LANGUAGE sql AS
           $$ SELECT pg_logical_emit_message(false, 'a', $2) IS NULL $$;
         CREATE OPERATOR ~~> (LEFTARG = bool, RIGHTARG = text, FUNCTION = emit);
         CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_switch_wal(); RETURN NEW; END $$;
         CREATE TABLE watched (id int);
         CREATE TRIGGER watch BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION fires();
         CREATE TABLE checked (id int CHECK (pg_switch_wal() IS NOT NULL), made pg_lsn DEFAULT pg_switch_wal());
         CREATE VIEW looked AS SELECT pg_switch_wal() AS at;
         CREATE MATERIALIZED VIEW m AS SELECT * FROM looked WITH NO DATA;
         CREATE PROCEDURE does() LANGUAGE sql AS 'SELECT pg_switch_wal()';
         CREATE FUNCTION sealed() RETURNS pg_lsn LANGUAGE sql SECURITY DEFINER SET work_mem = '1MB' AS 'SELECT pg_switch_wal()'",
    );
    get(&mut admin, "SELECT fork_create('prod', 'f')");
    attach(&mut admin, "f");
    for sql in [
        "SELECT other_name()",
        "SELECT points(id::text) FROM users",
        "SELECT true ~~> 'b'",
        "INSERT INTO watched VALUES (1)",
        "COPY watched FROM PROGRAM 'echo 1'",
        "INSERT INTO checked VALUES (1, NULL)",
        "INSERT INTO checked (id) VALUES (1)",
        "SELECT * FROM looked",
        "REFRESH MATERIALIZED VIEW m",
        "CALL does()",
        "SELECT sealed()",
        "PREPARE p AS SELECT pg_switch_wal(); EXECUTE p",
        "BEGIN; DECLARE c CURSOR FOR SELECT pg_switch_wal(); FETCH c; COMMIT",
    ] {
        refused(&mut admin, sql);
        run(&mut admin, "ROLLBACK");
    }
    get(&mut admin, "SELECT pure()");
}

/// Functions that the server calls without the executor: by triggers, in a language, for a type.
#[test]
fn functions_that_the_server_itself_looks_up_are_refused() {
    let cluster = prod("");
    let mut admin = cluster.client("prod");
    let reset = "LANGUAGE c AS '$libdir/pg_stat_statements', 'pg_stat_statements_reset'";
    run(
        &mut admin,
        &format!(
            "CREATE FUNCTION fires() RETURNS trigger {reset};
             CREATE TABLE watched (id int);
             CREATE TRIGGER watch AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION fires();
             CREATE FUNCTION handler() RETURNS language_handler LANGUAGE c AS '$libdir/dblink', 'dblink_exec';
             CREATE LANGUAGE outward HANDLER handler;
             CREATE FUNCTION speaks() RETURNS int IMMUTABLE LANGUAGE outward AS 'x';
             CREATE TYPE shy;
             CREATE FUNCTION shy_in(cstring) RETURNS shy {reset};
             CREATE FUNCTION shy_out(shy) RETURNS cstring {reset};
             CREATE TYPE shy (INPUT = shy_in, OUTPUT = shy_out, LIKE = int4);
             CREATE CAST (int AS shy) WITHOUT FUNCTION;
             CREATE FUNCTION tells() RETURNS event_trigger {reset}"
        ),
    );
    get(&mut admin, "SELECT fork_create('prod', 'f')");
    attach(&mut admin, "f");
    for sql in [
        "INSERT INTO watched VALUES (1)",
        "COPY watched FROM STDIN",
        "SELECT speaks()",
        "SELECT 'x'::shy",
        "SELECT 1::shy",
    ] {
        if sql.starts_with("COPY") {
            let mut copy = admin.copy_in(sql).expect("begins");
            std::io::Write::write_all(&mut copy, b"1\n").expect("sent");
            let error = copy.finish().expect_err("refused");
            assert_eq!(error.code().map(|code| code.code()), Some("42501"));
        } else {
            refused(&mut admin, sql);
        }
    }
    assert_eq!(get(&mut admin, "SELECT count(*) FROM watched"), "0");
    run(
        &mut admin,
        "CREATE EVENT TRIGGER tell ON ddl_command_end EXECUTE FUNCTION tells()",
    );
    refused(&mut admin, "CREATE TABLE told ()");
    run(&mut admin, "DROP EVENT TRIGGER tell");
}

#[test]
fn compiled_expressions_ask_too() {
    let cluster = prod("");
    if cluster.sql("postgres", "SELECT pg_jit_available()") != "t" {
        return;
    }
    let mut outside = cluster.client("prod");
    let pid = get(&mut outside, "SELECT pg_backend_pid()");
    let mut client = cluster.client("prod");
    get(&mut client, "SELECT fork_create('prod', 'f')");
    attach(&mut client, "f");
    run(
        &mut client,
        "SET jit = on; SET jit_above_cost = 0; SET jit_inline_above_cost = 0",
    );
    for sql in [
        format!("SELECT pg_cancel_backend({pid})"),
        format!("SELECT pg_terminate_backend({pid})"),
        format!("SELECT pg_log_backend_memory_contexts({pid})"),
        "SELECT pg_stat_reset_single_table_counters('pg_database'::regclass)".into(),
        "SELECT pg_switch_wal()".into(),
    ] {
        refused(&mut client, &sql);
    }
    get(&mut outside, "SELECT 1");
    // Sizes go the same way.
    let size = "SELECT pg_relation_size('users') > 0";
    assert_eq!(get(&mut client, size), "t");
}

#[test]
fn functions_on_sessions_are_for_those_of_the_same_fork() {
    let cluster = prod("");
    let mut outside = cluster.client("prod");
    let outside_pid = get(&mut outside, "SELECT pg_backend_pid()");
    let mut client = cluster.client("prod");
    get(&mut client, "SELECT fork_create('prod', 'f')");
    let mut inside = cluster.client("f");
    let inside_pid = get(&mut inside, "SELECT pg_backend_pid()");
    attach(&mut client, "f");
    let log = "SELECT pg_log_backend_memory_contexts";
    refused(&mut client, &format!("{log}({outside_pid})"));
    let server = "FROM pg_stat_activity WHERE backend_type IN ('checkpointer', 'autovacuum launcher', 'walwriter')";
    refused(&mut client, &format!("{log}(pid) {server}"));
    assert_eq!(get(&mut client, &format!("{log}({inside_pid})")), "t");
    let reset = "SELECT pg_stat_reset_single_table_counters";
    refused(&mut client, &format!("{reset}('pg_authid'::regclass)"));
    run(&mut client, &format!("{reset}('users'::regclass)"));
    run(&mut client, "SELECT pg_stat_reset()");
}

/// Extensions that can be made here, each in the fork.
fn create_extensions(cluster: &Cluster, client: &mut Client) -> Vec<String> {
    let mut made = Vec::new();
    for name in rows(client, "SELECT name::text FROM pg_available_extensions") {
        let name = &name[0];
        // Some want to be preloaded, some have no script.
        let sql = format!("CREATE EXTENSION IF NOT EXISTS \"{name}\" CASCADE");
        match client.batch_execute(&sql) {
            Ok(()) => made.push(name.clone()),
            Err(error) => assert!(
                error.code().is_some(),
                "{name}: {error:?}\n{}",
                cluster.log_tail()
            ),
        }
    }
    made
}

/// Of what is installed: other packages put theirs beside them. Where dpkg does not know, all of them.
fn libraries_of_the_package() -> Vec<String> {
    let listed = Command::new("dpkg").args(["-L", "postgresql-15"]).output();
    let listed = listed.map_or_else(|_| Vec::new(), |out| out.stdout);
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let files = fs::read_dir(pg_config("--pkglibdir")).expect("the libraries");
    let names = files.flatten().map(|file| file.file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| {
        name.ends_with(".so") && (listed.is_empty() || listed.contains(&format!("/{name}\n")))
    });
    names
}

#[test]
fn every_library_of_the_package_has_a_class_and_so_have_its_functions() {
    let package = libraries_of_the_package();
    assert!(package.len() > 60, "{package:?}");
    let unknown: Vec<&String> = package
        .iter()
        .filter(|name| libraries::library(name).is_none())
        .collect();
    assert!(unknown.is_empty(), "in no class: {unknown:?}");

    let cluster = prod("shared_preload_libraries = 'pg_stat_statements, pg_fork'");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    let mut client = cluster.client("f");
    let made = create_extensions(&cluster, &mut client);
    for name in [
        "dblink",
        "file_fdw",
        "pageinspect",
        "pg_stat_statements",
        "pg_prewarm",
    ] {
        assert!(made.iter().any(|made| made == name), "{name} is not there");
    }
    let functions = rows(
        &mut client,
        "SELECT probin::text, prosrc::text, proname::text, provolatile::text FROM pg_proc
         WHERE oid >= 16384 AND prolang = (SELECT oid FROM pg_language WHERE lanname = 'c')",
    );
    assert!(functions.len() > 500);
    let mut refused_here = BTreeSet::new();
    for row in &functions {
        let [file, symbol, name, volatile] = [0, 1, 2, 3].map(|column| row[column].as_str());
        let Some(library) = libraries::library(file) else {
            continue; // another package's
        };
        let listed = library.own.contains(&symbol) || library.refused.contains(&symbol);
        assert!(
            library.rest != Rest::Neither || volatile != "v" || listed,
            "{symbol} of {} is in no class, to be thought about",
            library.name
        );
        let function = libraries::Function {
            file,
            symbol,
            name,
            volatile: volatile == "v",
            immutable: volatile == "i",
        };
        if !libraries::may_be_called(&function) {
            refused_here.insert(symbol);
        }
    }
    // Each of those is refused, and no other.
    let wanted = "p.oid >= 16384 AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'c')
                  AND p.prorettype NOT IN ('language_handler'::regtype, 'fdw_handler'::regtype)
                  AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) t WHERE t IN (SELECT oid FROM pg_type WHERE typtype = 'p'))
                  AND p.prorettype NOT IN (SELECT oid FROM pg_type WHERE typtype = 'p' AND typname NOT IN ('void', 'record'))";
    let some = quoted(&refused_here.iter().copied().collect::<Vec<_>>());
    let out = prepared_calls(&mut client, &format!("{wanted} AND p.prosrc IN ({some})"));
    assert!(out.len() > 20, "{out:?}");
    for (_, sql) in out {
        refused(&mut client, &sql);
    }
    let libraries = "p.probin ~ '(pg_trgm|hstore|ltree|pgcrypto|postgis|pageinspect|pgstattuple|pg_stat_statements|uuid)'";
    let rest = format!("{wanted} AND {libraries} AND p.prosrc NOT IN ({some})");
    for (_, sql) in prepared_calls(&mut client, &rest) {
        run(&mut client, &sql);
    }
}

#[test]
fn what_a_library_keeps_for_all_databases_is_out_of_reach() {
    let cluster = prod("shared_preload_libraries = 'pg_stat_statements, pg_fork'");
    let mut client = cluster.client("prod");
    run(
        &mut client,
        "CREATE EXTENSION pg_stat_statements; CREATE EXTENSION pg_prewarm; CREATE EXTENSION dblink;
         CREATE SCHEMA mine;
         CREATE FUNCTION mine.harmless(oid, oid, bigint) RETURNS void LANGUAGE c
           AS '$libdir/pg_stat_statements', 'pg_stat_statements_reset_1_7'",
    );
    get(&mut client, "SELECT fork_create('prod', 'f')");
    attach(&mut client, "f");
    assert_eq!(
        refused(&mut client, "SELECT pg_stat_statements_reset()"),
        "cannot call pg_stat_statements_reset() in a fork"
    );
    for sql in [
        "SELECT mine.harmless(0, 0, 0)",
        "SELECT autoprewarm_start_worker()",
        "SELECT autoprewarm_dump_now()",
        "SELECT dblink_get_connections()",
    ] {
        refused(&mut client, sql);
    }
    get(&mut client, "SELECT count(*) FROM pg_stat_statements");
    get(&mut client, "SELECT pg_prewarm('users')");
    // The validator of a wrapper that comes with it stays in.
    run(
        &mut client,
        "CREATE SERVER s FOREIGN DATA WRAPPER dblink_fdw OPTIONS (dbname 'x')",
    );
}

#[test]
fn names_that_look_like_ways_out() {
    for name in [
        "pg_stat_monitor_reset",
        "httpGet",
        "run_shell",
        "writeFile_v2",
        "start_worker",
        "drop_replication_slot",
        "system",
    ] {
        assert!(libraries::looks_outward(name), "{name}");
    }
    for name in [
        "ST_ConnectedComponents",
        "l2_distance",
        "vector_send",
        "profile_of",
        "geometry_overlaps",
        "hll_add_agg",
        "preset",
    ] {
        assert!(!libraries::looks_outward(name), "{name}");
    }
    for (file, name) in [
        ("$libdir/postgis-3", "postgis"),
        ("/usr/lib/postgresql/15/lib/dblink.so", "dblink"),
        ("uuid-ossp", "uuid-ossp"),
        ("$libdir/wrappers-0.4.1", "wrappers"),
    ] {
        assert_eq!(libraries::name_of(file), name);
    }
}

/// What packages have that need not be installed here: by the names that they have in C.
#[test]
fn functions_of_other_packages() {
    let call = |file: &str, symbol: &str, volatility: &str| {
        libraries::may_be_called(&libraries::Function {
            file,
            symbol,
            name: symbol,
            volatile: volatility == "v",
            immutable: volatility == "i",
        })
    };
    for (file, symbol) in [
        ("$libdir/pg_cron", "cron_schedule"),
        ("$libdir/pglogical", "pglogical_drop_subscription"),
        ("$libdir/plsh", "plsh_handler"),
        ("$libdir/orafce", "utl_file_fopen"),
        ("$libdir/orafce", "dbms_pipe_send_message"),
        ("$libdir/pg_stat_kcache", "pg_stat_kcache_reset"),
        ("$libdir/http", "http_request"),
        ("$libdir/prioritize.so", "set_backend_priority"),
        ("$libdir/pgpool-recovery", "pgpool_pgctl"),
        ("$libdir/unheard_of-2.1", "unheard_of_reset"),
        ("$libdir/pgl", "launch"),
    ] {
        assert!(!call(file, symbol, "v"), "{symbol}");
    }
    for (file, symbol, volatility) in [
        ("$libdir/pg_cron", "cron_job_cache_invalidate", "v"),
        ("$libdir/pglogical", "pglogical_queue_truncate", "v"),
        (
            "$libdir/pglogical",
            "pglogical_show_subscription_status",
            "s",
        ),
        ("$libdir/http", "urlencode", "i"),
        ("$libdir/orafce", "dbms_sql_execute", "v"),
        ("$libdir/postgis-3", "LWGEOM_in", "i"),
        ("$libdir/vector", "l2_distance", "i"),
        ("$libdir/unheard_of-2.1", "unheard_of_add", "v"),
        ("$libdir/unheard_of-2.1", "unheard_of_reset", "i"),
    ] {
        assert!(call(file, symbol, volatility), "{symbol}");
    }
    assert!(!libraries::language_may_be_called("$libdir/plproxy"));
    assert!(libraries::language_may_be_called("$libdir/plpython3"));
    let names: BTreeSet<&str> = libraries::LIBRARIES
        .iter()
        .map(|library| library.name)
        .collect();
    assert_eq!(
        names.len(),
        libraries::LIBRARIES.len(),
        "one is there twice"
    );
}
