//! Which statements and queries can run in a fork: each statement of the server has been thought about, and none
//! writes to, locks or makes anew what all databases share, or runs a program.

use pg_fork_tests::attach::{attach, detach, fails, get, prod};
use pg_fork_tests::{pg_config, Cluster};
use postgres::Client;
use std::fs;
use std::path::PathBuf;

/// Statements that are no utility statements: the planner's, and parts of others.
const PLANNED: [&str; 12] = [
    "DeleteStmt",
    "InsertStmt",
    "MergeStmt",
    "PLAssignStmt",
    "PlannedStmt",
    "RawStmt",
    "ReplicaIdentityStmt",
    "ReturnStmt",
    "SelectStmt",
    "SetOperationStmt",
    "UpdateStmt",
    "Stmt",
];

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

fn refused(client: &mut Client, sql: &str) -> String {
    let (state, message, _) = fails(client, sql);
    assert_eq!(state, "42501", "{sql}: {message}");
    assert!(message.ends_with(" in a fork"), "{sql}: {message}");
    let _ = client.batch_execute("ROLLBACK");
    message
}

fn setup(settings: &str) -> (Cluster, Client) {
    let cluster = prod(settings);
    let mut client = cluster.client("prod");
    run(&mut client, "CREATE ROLE guest LOGIN");
    get(&mut client, "SELECT fork_create('prod', 'f')");
    (cluster, client)
}

/// The server's header that lists the tags of nodes: a private copy of a server has none of its own.
fn header() -> String {
    let dir = pg_config("--includedir-server").display().to_string();
    let installed = dir.rfind("/usr/").map_or(dir.as_str(), |at| &dir[at..]);
    let paths = [dir.as_str(), installed].map(|dir| PathBuf::from(dir).join("nodes/nodes.h"));
    let found = paths.iter().find_map(|path| fs::read_to_string(path).ok());
    found.unwrap_or_else(|| panic!("none of {paths:?}"))
}

fn tags(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter_map(|word| word.strip_prefix("T_"));
    let statements = names.filter(|name| name.ends_with("Stmt"));
    statements.map(str::to_string).collect()
}

#[test]
fn every_statement_of_the_server_has_a_class() {
    let own = tags(include_str!("../../src/isolation/tags.rs"));
    let checked = tags(include_str!("../../src/isolation/statements.rs"));
    let server = tags(&header());
    assert!(server.len() > 100, "{server:?}");
    let classed = |name: &String| {
        own.contains(name) || checked.contains(name) || PLANNED.contains(&name.as_str())
    };
    let missing: Vec<_> = server.iter().filter(|name| !classed(name)).collect();
    assert!(
        missing.is_empty(),
        "in no class, to be thought about: {missing:?}"
    );
    for name in own.iter().chain(&checked) {
        assert!(server.contains(name), "{name} is not the server's");
        assert!(!PLANNED.contains(&name.as_str()), "{name}");
        let twice = own.contains(name) && checked.contains(name);
        assert!(!twice, "{name} is in two classes");
    }
}

#[test]
fn shared_catalogs_are_not_written_to_by_hand() {
    let (cluster, mut client) = setup("");
    run(&mut client, "GRANT UPDATE ON pg_database TO guest");
    attach(&mut client, "f");
    for sql in [
        "UPDATE pg_database SET datallowconn = false WHERE datname = 'prod'",
        "DELETE FROM pg_authid WHERE rolname = 'guest'",
        "WITH gone AS (DELETE FROM pg_shdescription RETURNING 1) SELECT * FROM gone",
        "INSERT INTO pg_shdepend SELECT * FROM pg_shdepend LIMIT 1",
        "MERGE INTO pg_authid a USING users u ON u.id = a.oid::int WHEN MATCHED THEN DELETE",
        "DO $$ BEGIN UPDATE pg_tablespace SET spcowner = 10; END $$",
        "COPY pg_db_role_setting FROM STDIN",
        "SET allow_system_table_mods = on; TRUNCATE pg_shdescription",
        "SELECT * FROM pg_database FOR UPDATE",
        "SELECT * FROM pg_group FOR SHARE",
        "BEGIN; LOCK TABLE pg_authid",
        "BEGIN; LOCK TABLE pg_database IN ROW EXCLUSIVE MODE",
        "BEGIN; LOCK TABLE pg_roles",
    ] {
        refused(&mut client, sql);
    }
    // Through a view, and a view on a view.
    run(
        &mut client,
        "CREATE VIEW inner_view AS SELECT id FROM users WHERE EXISTS (SELECT FROM pg_database);
         CREATE VIEW outer_view AS SELECT * FROM inner_view;
         CREATE VIEW harmless AS SELECT * FROM users",
    );
    refused(&mut client, "BEGIN; LOCK TABLE outer_view");
    run(&mut client, "BEGIN; LOCK TABLE harmless, users; COMMIT");
    run(
        &mut client,
        "BEGIN; LOCK TABLE pg_database IN ACCESS SHARE MODE; COMMIT",
    );
    // The fork's own catalogs are its own.
    run(
        &mut client,
        "UPDATE pg_class SET reltuples = reltuples WHERE relname = 'users';
         SELECT * FROM pg_class FOR UPDATE",
    );
    run(&mut client, "SELECT count(*) FROM pg_database");
    assert_eq!(
        cluster.sql(
            "postgres",
            "SELECT datallowconn FROM pg_database WHERE datname = 'prod'"
        ),
        "t"
    );
    detach(&mut client);
    run(&mut client, "BEGIN; LOCK TABLE pg_authid; ROLLBACK");
}

#[test]
fn shared_catalogs_are_not_made_anew() {
    let (cluster, mut client) = setup("");
    let node = "SELECT pg_relation_filenode('pg_database') || ' ' || pg_relation_filenode('pg_database_oid_index')
                || ' ' || pg_relation_filenode('pg_authid')";
    let shared_before = get(&mut client, node);
    attach(&mut client, "f");
    refused(&mut client, "REINDEX TABLE pg_database");
    refused(&mut client, "REINDEX INDEX pg_database_oid_index");
    // The fork's own are made anew, the shared ones passed over.
    run(
        &mut client,
        "ALTER TABLE users ADD PRIMARY KEY (id); CREATE TEMP TABLE brief (id int PRIMARY KEY)",
    );
    let mut other = cluster.client("f");
    run(&mut other, "CREATE TEMP TABLE others (id int PRIMARY KEY)");
    let nodes = "SELECT pg_relation_filenode('users_pkey') || ' ' || pg_relation_filenode('pg_type_oid_index')
                 || ' ' || pg_relation_filenode('pg_class_oid_index')";
    for (sql, users, system) in [
        ("REINDEX SYSTEM f", false, true),
        ("REINDEX DATABASE f", true, true),
        ("REINDEX (VERBOSE) DATABASE f", true, true),
        ("REINDEX SCHEMA pg_catalog", false, true),
        ("REINDEX SCHEMA public", true, false),
        ("REINDEX (CONCURRENTLY) DATABASE f", true, false),
        ("REINDEX (CONCURRENTLY false) DATABASE f", true, true),
    ] {
        let split =
            |nodes: String| -> Vec<String> { nodes.split(' ').map(str::to_string).collect() };
        let before = split(get(&mut client, nodes));
        run(&mut client, sql);
        let after = split(get(&mut client, nodes));
        assert_eq!(before[0] != after[0], users, "{sql}");
        assert_eq!(before[1] != after[1], system, "{sql}");
        assert_eq!(before[2] != after[2], system, "{sql}");
        assert_eq!(get(&mut client, node), shared_before, "{sql}");
    }
    run(&mut client, "BEGIN");
    assert_eq!(fails(&mut client, "REINDEX SYSTEM f").0, "25001");
    run(&mut client, "ROLLBACK");
    assert_eq!(fails(&mut client, "REINDEX DATABASE prod").0, "0A000");
    let in_function = "DO $$ BEGIN REINDEX DATABASE f; END $$";
    assert_eq!(fails(&mut client, in_function).0, "25001");
    get(&mut client, "SELECT count(*) FROM users");
    run(&mut client, "DISCARD TEMP");
    let own = "SELECT pg_relation_filenode('users')";
    let users = get(&mut client, own);
    run(&mut client, "VACUUM FULL");
    assert_ne!(get(&mut client, own), users);
    run(&mut client, "VACUUM FULL pg_database");
    run(&mut client, "VACUUM (FULL, ANALYZE) pg_authid, users");
    run(&mut client, "VACUUM ANALYZE pg_database");
    run(&mut client, "VACUUM (FULL false) pg_database");
    run(&mut client, "REINDEX TABLE users");
    run(&mut client, "REINDEX TABLE pg_class");
    run(&mut client, "REINDEX SCHEMA public");
    assert_eq!(get(&mut client, node), shared_before);
    // The owner of the fork has no right to shared catalogs: the server passes over them.
    run(&mut client, "ALTER DATABASE f OWNER TO guest");
    run(&mut cluster.client_as("guest", "f"), "REINDEX DATABASE f");
    assert_eq!(get(&mut client, node), shared_before);
    cluster.amcheck("f");
}

#[test]
fn foreign_tables_run_no_programs() {
    let cluster = prod("");
    let mut client = cluster.client("prod");
    let mark = format!("{}/ran", cluster.data());
    let program = format!("program 'touch {mark}; echo 2'");
    run(
        &mut client,
        &format!(
            "CREATE EXTENSION file_fdw;
             CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
             CREATE FOREIGN TABLE before (id text) SERVER files OPTIONS ({program});
             CREATE FOREIGN TABLE plain (id text) SERVER files OPTIONS (filename '/etc/hostname');
             CREATE VIEW behind AS SELECT * FROM before;
             CREATE TABLE parts (id text) PARTITION BY LIST (id);
             CREATE TABLE here PARTITION OF parts FOR VALUES IN ('1')"
        ),
    );
    get(&mut client, "SELECT fork_create('prod', 'f')");
    attach(&mut client, "f");
    run(
        &mut client,
        &format!("CREATE FOREIGN TABLE later PARTITION OF parts FOR VALUES IN ('2') SERVER files OPTIONS ({program})"),
    );
    for sql in [
        "SELECT * FROM before",
        "SELECT * FROM behind",
        "SELECT * FROM later",
        "SELECT count(*) FROM parts",
        "SELECT 1 WHERE EXISTS (SELECT FROM before)",
        "COPY (SELECT * FROM before) TO STDOUT",
        "CREATE TABLE taken AS TABLE before",
        "INSERT INTO here SELECT '1' FROM before",
        "DO $$ BEGIN PERFORM * FROM before; END $$",
        "EXPLAIN ANALYZE SELECT * FROM before",
        "BEGIN; DECLARE c CURSOR FOR SELECT * FROM before; FETCH c",
        "ANALYZE before",
        "ANALYZE parts",
        "VACUUM ANALYZE here, parts",
        "ANALYZE",
    ] {
        refused(&mut client, sql);
    }
    assert!(!fs::exists(&mark).expect("looked"), "the program ran");
    run(&mut client, "EXPLAIN SELECT * FROM before; ANALYZE here");
    get(&mut client, "SELECT id FROM plain");
    run(&mut client, "ANALYZE plain");
    get(&mut client, "SELECT count(*) FROM here");
    detach(&mut client);
    assert_eq!(get(&mut client, "SELECT id FROM before"), "2");
    assert!(fs::exists(&mark).expect("looked"));
}

#[test]
fn rows_of_another_server_are_not_locked() {
    let cluster = prod("");
    let mut client = cluster.client("prod");
    let host = cluster.data().trim_end_matches("/data").to_string();
    run(
        &mut client,
        &format!(
            "CREATE EXTENSION postgres_fdw;
             CREATE TABLE real (id int); INSERT INTO real VALUES (1);
             CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host}', dbname 'prod');
             CREATE USER MAPPING FOR postgres SERVER s OPTIONS (user 'postgres');
             CREATE FOREIGN TABLE away (id int) SERVER s OPTIONS (table_name 'real');
             CREATE TABLE parts (id int) PARTITION BY LIST (id);
             CREATE FOREIGN TABLE part PARTITION OF parts FOR VALUES IN (1) SERVER s OPTIONS (table_name 'real')"
        ),
    );
    get(&mut client, "SELECT fork_create('prod', 'f')");
    attach(&mut client, "f");
    for sql in [
        "SELECT * FROM away FOR UPDATE",
        "SELECT * FROM away FOR KEY SHARE",
        "SELECT * FROM users JOIN away USING (id) FOR SHARE",
        "SELECT * FROM (SELECT * FROM away FOR UPDATE) x",
        "SELECT * FROM parts FOR UPDATE",
    ] {
        refused(&mut client, sql);
    }
    get(
        &mut client,
        "SELECT id FROM users JOIN away USING (id) FOR UPDATE OF users",
    );
    run(
        &mut client,
        "UPDATE users u SET id = u.id FROM away a WHERE a.id = u.id",
    );
    assert_eq!(get(&mut client, "SELECT count(*) FROM parts"), "1");
}

#[test]
fn replication_connections_are_not_made_to_a_fork() {
    let (cluster, mut client) = setup("wal_level = logical\nmax_wal_senders = 5");
    let host = cluster.data().trim_end_matches("/data").to_string();
    let connect = |database: &str, command: &str| {
        let params = format!("host={host} user=postgres dbname={database} replication=database");
        cluster.run("psql", &["-XAtq", "-d", &params, "-c", command])
    };
    let said = connect("f", "IDENTIFY_SYSTEM");
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.status.success());
    assert!(error.contains("cannot be made to a fork"), "{error}");
    assert!(connect("prod", "IDENTIFY_SYSTEM").status.success());
    run(&mut client, "ALTER DATABASE f SET pg_fork.isolation = off");
    assert!(connect("f", "IDENTIFY_SYSTEM").status.success());
}

#[test]
fn what_loosens_a_fork_is_not_inherited() {
    let cluster = prod("");
    let mut client = cluster.client("prod");
    run(
        &mut client,
        "CREATE ROLE guest LOGIN;
         CREATE ROLE worker LOGIN;
         ALTER DATABASE prod SET pg_fork.isolation = off;
         ALTER DATABASE prod SET work_mem = '5MB';
         ALTER DATABASE prod SET pg_fork.background_workers = on;
         ALTER DATABASE prod SET application_name = 'h\u{e9}llo=1';
         ALTER ROLE guest IN DATABASE prod SET pg_fork.isolation = off;
         ALTER ROLE worker IN DATABASE prod SET statement_timeout = '7s'",
    );
    get(&mut client, "SELECT fork_create('prod', 'f')");
    get(&mut client, "SELECT fork_create('f', 'g')");
    let settings = |database: &str| {
        cluster.sql(
            "postgres",
            &format!(
                "SELECT s.setrole::regrole, s.setconfig FROM pg_db_role_setting s
                 WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = '{database}') ORDER BY 1"
            ),
        )
    };
    let kept = "-|{work_mem=5MB,application_name=h\u{e9}llo=1}\nworker|{statement_timeout=7s}";
    for fork in ["f", "g"] {
        assert_eq!(settings(fork), kept);
        refused(&mut cluster.client(fork), "CREATE ROLE x");
    }
    // A fork's own freedom goes to no fork of it either.
    run(&mut client, "ALTER DATABASE f SET pg_fork.isolation = off");
    run(&mut client, "ALTER DATABASE f RESET work_mem");
    get(&mut client, "SELECT fork_create('f', 'h')");
    run(&mut cluster.client("f"), "CREATE ROLE x");
    refused(&mut cluster.client("h"), "CREATE ROLE y");
    attach(&mut client, "h");
    refused(&mut client, "CREATE ROLE y");
}
