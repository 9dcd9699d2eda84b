//! A session in a fork cannot reach out of it (D16).

use pg_fork_tests::attach::{attach, detach, fails, get, prod};
use pg_fork_tests::Cluster;
use postgres::Client;

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// What is refused in a fork. Each would work in the source, for a superuser.
const REFUSED: [&str; 41] = [
    "CREATE ROLE x",
    "ALTER ROLE guest PASSWORD 'x'",
    "ALTER ROLE guest SET work_mem = '1MB'",
    "ALTER ROLE guest IN DATABASE prod SET work_mem = '1MB'",
    "ALTER ROLE guest RENAME TO x",
    "DROP ROLE guest",
    "GRANT pg_monitor TO guest",
    "REVOKE pg_monitor FROM guest",
    "REASSIGN OWNED BY guest TO postgres",
    "DROP OWNED BY guest",
    "COMMENT ON ROLE guest IS 'x'",
    "CREATE DATABASE x",
    "DROP DATABASE spare",
    "ALTER DATABASE spare RENAME TO x",
    "ALTER DATABASE spare OWNER TO guest",
    "ALTER DATABASE spare SET work_mem = '1MB'",
    "ALTER DATABASE spare CONNECTION LIMIT 3",
    "GRANT CREATE ON DATABASE spare TO guest",
    "COMMENT ON DATABASE spare IS 'x'",
    "ALTER TABLESPACE pg_default SET (seq_page_cost = 2)",
    "GRANT CREATE ON TABLESPACE pg_default TO guest",
    "GRANT SET ON PARAMETER work_mem TO guest",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)",
    "COPY users TO PROGRAM 'cat > /dev/null'",
    "COPY users FROM PROGRAM 'echo 1'",
    "COPY users TO '/tmp/x'",
    "COPY users FROM '/dev/null'",
    "CREATE FUNCTION x() RETURNS int LANGUAGE c AS 'x'",
    "CREATE FUNCTION x() RETURNS int LANGUAGE internal AS 'pi'",
    "SELECT lo_import('/etc/hostname')",
    "SELECT lo_export(lo_create(0), '/tmp/x')",
    "SELECT pg_reload_conf()",
    "SELECT pg_switch_wal()",
    "SELECT pg_create_physical_replication_slot('x')",
    "SELECT * FROM pg_create_logical_replication_slot('x', 'test_decoding')",
    "SELECT pg_drop_replication_slot('x')",
    "SELECT pg_replication_origin_create('x')",
    "SELECT pg_stat_reset_shared('bgwriter')",
    "DO $$ BEGIN EXECUTE 'CREATE ROLE x'; END $$",
    "DO $$ BEGIN PERFORM pg_reload_conf(); END $$",
];

/// What stays allowed.
const ALLOWED: [&str; 14] = [
    "SELECT count(*) FROM pg_roles",
    "SELECT length(pg_read_file('PG_VERSION'))",
    "SELECT count(*) FROM pg_stat_activity",
    "CREATE FUNCTION ok() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
    "CREATE FUNCTION ok2() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DO 'BEGIN END'",
    "GRANT SELECT ON users TO guest",
    "ALTER TABLE users OWNER TO guest; ALTER TABLE users OWNER TO postgres",
    "COMMENT ON TABLE users IS 'x'",
    "SET ROLE guest; RESET ROLE",
    "CREATE EXTENSION amcheck; DROP EXTENSION amcheck",
    "ALTER DATABASE f SET work_mem = '3MB'",
    "ALTER ROLE guest IN DATABASE f SET work_mem = '1MB'",
    "CREATE SCHEMA s; DROP SCHEMA s",
];

fn setup() -> (Cluster, Client) {
    let cluster = prod("wal_level = logical");
    cluster.sql("postgres", "CREATE DATABASE spare");
    let mut admin = cluster.client("prod");
    run(&mut admin, "CREATE ROLE guest LOGIN");
    get(&mut admin, "SELECT fork_create('prod', 'f')");
    (cluster, admin)
}

#[test]
fn a_fork_cannot_change_what_databases_share() {
    let (cluster, mut attached) = setup();
    attach(&mut attached, "f");
    let mut direct = cluster.client("f");
    for session in [&mut attached, &mut direct] {
        for sql in REFUSED {
            let (state, message, hint) = fails(session, sql);
            assert_eq!(state, "42501", "{sql}: {message}");
            assert!(message.ends_with(" in a fork"), "{sql}: {message}");
            assert!(hint.is_some_and(|hint| hint.contains("isolation")), "{sql}");
        }
        for sql in ALLOWED {
            // What one session made is there for the other.
            if let Err(error) = session.batch_execute(sql) {
                let code = error.code().map(|code| code.code().to_string());
                assert!(matches!(code.as_deref(), Some("42723")), "{sql}: {error:?}");
            }
        }
    }
    // A fork in a fork is the fork's own.
    get(&mut attached, "SELECT fork_create('f', 'g')");
    run(&mut attached, "ALTER DATABASE g RENAME TO h");
    run(&mut attached, "DROP DATABASE h");
    // Outside nothing is refused.
    detach(&mut attached);
    run(&mut attached, "CREATE ROLE x");
    run(&mut attached, "COPY users TO PROGRAM 'cat > /dev/null'");
    get(&mut attached, "SELECT pg_switch_wal()");
}

#[test]
fn only_a_superuser_turns_isolation_off() {
    let (cluster, mut admin) = setup();
    run(&mut admin, "ALTER DATABASE f OWNER TO guest");
    let mut guest = cluster.client_as("guest", "f");
    assert_eq!(fails(&mut guest, "SET pg_fork.isolation = off").0, "42501");
    let off = "ALTER DATABASE f SET pg_fork.isolation = off";
    assert_eq!(fails(&mut guest, off).0, "42501");
    run(&mut admin, off);
    run(&mut cluster.client("f"), "CREATE ROLE made_in_f");
    attach(&mut admin, "f");
    run(&mut admin, "DROP ROLE made_in_f");
    run(&mut admin, "SET pg_fork.isolation = on");
    assert_eq!(fails(&mut admin, "CREATE ROLE x").0, "42501");
}

#[test]
fn foreign_tables_and_connections_to_the_server_are_out_of_reach() {
    let (cluster, mut admin) = setup();
    let host = cluster.data().trim_end_matches("/data").to_string();
    let there = format!("host '{host}', dbname 'prod'");
    run(
        &mut admin,
        &format!(
            "CREATE EXTENSION postgres_fdw;
             CREATE EXTENSION dblink;
             CREATE EXTENSION adminpack;
             CREATE TABLE real (id int);
             CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({there});
             CREATE USER MAPPING FOR postgres SERVER s OPTIONS (user 'postgres');
             CREATE FOREIGN TABLE away (id int) SERVER s OPTIONS (table_name 'real');
             CREATE TABLE parts (id int) PARTITION BY LIST (id);
             CREATE TABLE here PARTITION OF parts FOR VALUES IN (1);
             CREATE FOREIGN TABLE there PARTITION OF parts FOR VALUES IN (2) SERVER s OPTIONS (table_name 'real');
             CREATE FUNCTION sneak() RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO away VALUES (3); END $$"
        ),
    );
    run(&mut admin, "INSERT INTO away VALUES (1)");
    get(&mut admin, "SELECT fork_create('prod', 'g')");
    get(
        &mut admin,
        &format!("SELECT dblink_connect('c', 'host={host} dbname=prod user=postgres')"),
    );
    attach(&mut admin, "g");
    assert_eq!(get(&mut admin, "SELECT count(*) FROM away"), "1");
    for sql in [
        "INSERT INTO away VALUES (2)",
        "UPDATE away SET id = 2",
        "DELETE FROM away",
        "TRUNCATE away",
        "WITH w AS (INSERT INTO away VALUES (2) RETURNING 1) SELECT * FROM w",
        "EXPLAIN ANALYZE INSERT INTO away VALUES (2)",
        "PREPARE p AS INSERT INTO away VALUES (2); EXECUTE p",
        "COPY away FROM STDIN",
        "INSERT INTO parts VALUES (1)",
        "TRUNCATE parts",
        "SELECT sneak()",
        "SELECT dblink_exec('c', 'INSERT INTO real VALUES (2)')",
        "SELECT * FROM dblink('c', 'SELECT 1') AS x (i int)",
        "SELECT dblink_connect('d', 'dbname=prod')",
        "SELECT pg_file_write('x', 'x', true)",
    ] {
        let (state, message, _) = fails(&mut admin, sql);
        assert_eq!(state, "42501", "{sql}: {message}");
    }
    run(&mut admin, "EXPLAIN INSERT INTO away VALUES (2)");
    run(&mut admin, "INSERT INTO here VALUES (1)");
    detach(&mut admin);
    assert_eq!(get(&mut admin, "SELECT count(*) FROM real"), "1");
}

#[test]
fn sessions_of_the_same_fork_can_be_ended_and_no_others() {
    let (cluster, mut admin) = setup();
    let mut outside = cluster.client("prod");
    let mut inside = cluster.client("f");
    let outside_pid = get(&mut outside, "SELECT pg_backend_pid()");
    let inside_pid = get(&mut inside, "SELECT pg_backend_pid()");
    attach(&mut admin, "f");
    for function in ["pg_cancel_backend", "pg_terminate_backend"] {
        let (state, message, _) = fails(&mut admin, &format!("SELECT {function}({outside_pid})"));
        assert_eq!(state, "42501", "{message}");
        assert_eq!(
            get(&mut admin, &format!("SELECT {function}({inside_pid})")),
            "t"
        );
    }
    get(&mut outside, "SELECT 1");
    detach(&mut admin);
    assert_eq!(
        get(
            &mut admin,
            &format!("SELECT pg_terminate_backend({outside_pid})")
        ),
        "t"
    );
}
