//! Whose rights count where another database is looked into: those that a login there would have.

use pg_fork_tests::Cluster;
use postgres::Client;

fn prod(settings: &str) -> Cluster {
    let cluster = Cluster::new(&format!("autovacuum = off\n{settings}"));
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql("prod", "CREATE EXTENSION pg_fork");
    cluster
}

/// The SQLSTATE that the statement fails with; empty if it does not.
fn state(client: &mut Client, sql: &str) -> String {
    let error = client.batch_execute(sql).err();
    error.map_or_else(String::new, |error| {
        let code = error.code().expect("an SQLSTATE");
        code.code().to_string()
    })
}

/// `pg_database_owner` is who owns the database that is looked into, not the one that it is looked from.
#[test]
fn the_owner_of_a_database_is_its_own_owner() {
    let cluster = prod("");
    cluster.sql(
        "postgres",
        "CREATE ROLE rival LOGIN; CREATE ROLE boss LOGIN; CREATE ROLE deputy LOGIN IN ROLE boss; \
         ALTER DATABASE prod OWNER TO boss; CREATE DATABASE mine OWNER rival",
    );
    cluster.sql(
        "mine",
        "CREATE EXTENSION pg_fork; GRANT CREATE ON DATABASE mine TO boss, deputy",
    );
    cluster.sql(
        "prod",
        "CREATE TABLE granted (v text); INSERT INTO granted VALUES ('granted'); GRANT SELECT ON granted TO pg_database_owner; \
         CREATE TABLE owned (v text); INSERT INTO owned VALUES ('owned'); ALTER TABLE owned OWNER TO pg_database_owner; \
         CREATE TABLE partly (v text, w text); INSERT INTO partly VALUES ('partly', 'no'); GRANT SELECT (v) ON partly TO pg_database_owner; \
         CREATE SCHEMA inner_room; GRANT USAGE ON SCHEMA inner_room TO pg_database_owner; \
         CREATE TABLE inner_room.open (v text); INSERT INTO inner_room.open VALUES ('open'); GRANT SELECT ON inner_room.open TO PUBLIC; \
         CREATE TABLE filtered (v text); ALTER TABLE filtered OWNER TO pg_database_owner, ENABLE ROW LEVEL SECURITY; \
         SELECT fork_create('prod', 'f')",
    );
    cluster.sql("f", "UPDATE granted SET v = 'changed'");
    let tables = ["granted", "owned", "partly", "inner_room.open", "filtered"];
    let mut rival = cluster.client_as("rival", "mine");
    for (db, at) in [("prod", "now"), ("f", "now"), ("f", "cut")] {
        for table in tables {
            let mount = format!("SELECT fork_mount('{db}', '{at}', 'm', '{{{table}}}')");
            let refused = state(&mut rival, &mount);
            assert!(
                ["42501", "42P01"].contains(&refused.as_str()),
                "{mount}: {refused:?}"
            );
        }
        let mount = format!("SELECT fork_mount('{db}', '{at}', 'm')");
        assert_eq!(state(&mut rival, &mount), "");
        let count = "SELECT count(*) FROM pg_class WHERE relnamespace = 'm'::regnamespace";
        let seen: i64 = rival.query_one(count, &[]).expect("counted").get(0);
        assert_eq!(seen, 0, "{db} {at}");
        rival
            .batch_execute("SELECT fork_unmount('m')")
            .expect("gone");
    }
    let rows = "SELECT * FROM fork_diff_rows('f', 'granted')";
    assert_eq!(state(&mut rival, rows), "42501");
    // A fork's owner is its own: the source's owner has no more there than its rights say.
    for role in ["boss", "deputy"] {
        let mut client = cluster.client_as(role, "mine");
        client
            .batch_execute("SELECT fork_mount('prod')")
            .expect("mounted");
        for (table, shown) in [
            ("granted", "granted"),
            ("owned", "owned"),
            ("partly", "partly"),
            ("open", "open"),
        ] {
            let read = format!("SELECT v FROM prod.{table}");
            let row = client.query_one(&read, &[]).expect("reads");
            assert_eq!(row.get::<_, String>(0), shown);
        }
        assert_eq!(state(&mut client, "SELECT w FROM prod.partly"), "42703");
        client
            .batch_execute("SELECT count(*) FROM prod.filtered; SELECT fork_unmount('prod')")
            .expect("gone");
        assert_eq!(
            state(&mut client, "SELECT fork_mount('f', tables => '{granted}')"),
            "42501"
        );
    }
    // What was mounted follows the database's owner.
    let mut boss = cluster.client_as("boss", "mine");
    boss.batch_execute("SELECT fork_mount('prod'); SELECT v FROM prod.granted")
        .expect("reads");
    cluster.sql("postgres", "ALTER DATABASE prod OWNER TO rival");
    assert_eq!(state(&mut boss, "SELECT v FROM prod.granted"), "42501");
    rival
        .batch_execute("SELECT fork_mount('prod', into_schema => 'p'); SELECT v FROM p.granted")
        .expect("reads");
    // The right to connect is looked up in the same way.
    cluster.sql(
        "postgres",
        "REVOKE CONNECT ON DATABASE f FROM PUBLIC; GRANT CONNECT ON DATABASE f TO pg_database_owner",
    );
    for call in [
        "SELECT fork_mount('f')",
        "SELECT * FROM fork_diff('f')",
        rows,
    ] {
        assert_eq!(state(&mut rival, call), "42501", "{call}");
    }
}

/// A database that lets nobody in lets nobody look in, superusers neither.
#[test]
fn databases_that_accept_no_connections() {
    let cluster = prod("");
    cluster.sql(
        "prod",
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); SELECT fork_create('prod', 'f'); \
         SELECT fork_mount('f'); SELECT fork_mount('f', 'cut')",
    );
    cluster.sql("f", "INSERT INTO t VALUES (2)");
    cluster.sql(
        "f",
        "CREATE EXTENSION IF NOT EXISTS pg_fork; SELECT fork_mount('prod')",
    );
    for (close, open) in [
        ("ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true"),
        ("-2", "-1"),
    ] {
        let change = |db: &str, what: &str| match what.parse::<i32>() {
            Ok(limit) => {
                format!("UPDATE pg_database SET datconnlimit = {limit} WHERE datname = '{db}'")
            }
            Err(_) => format!("ALTER DATABASE {db} {what}"),
        };
        cluster.sql("postgres", &change("f", close));
        for sql in [
            "SELECT * FROM f.t",
            "SELECT * FROM f_cut.t",
            "SELECT fork_mount('f', into_schema => 'again')",
            "SELECT * FROM fork_diff('f')",
            "SELECT * FROM fork_diff_rows('f', 't')",
        ] {
            cluster.expect_error("prod", sql, "55000");
        }
        cluster.sql("postgres", &change("f", open));
        assert_eq!(cluster.sql("prod", "SELECT count(*) FROM f.t"), "2");
    }
    let mut inside = cluster.client("f");
    cluster.sql("postgres", "ALTER DATABASE prod ALLOW_CONNECTIONS false");
    assert_eq!(state(&mut inside, "SELECT * FROM prod.t"), "55000");
    cluster.sql("postgres", "ALTER DATABASE prod ALLOW_CONNECTIONS true");
    assert_eq!(state(&mut inside, "SELECT * FROM prod.t"), "");
}

/// What was taken from a role in the fork is not to be had by looking at the fork's cut.
#[test]
fn rights_that_were_taken_since_the_cut() {
    let cluster = prod("");
    cluster.sql(
        "postgres",
        "CREATE ROLE ann LOGIN; GRANT CREATE ON DATABASE prod TO ann",
    );
    cluster.sql(
        "prod",
        "CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2); CREATE TABLE kept (a int); INSERT INTO kept VALUES (3); \
         CREATE TABLE veiled (a int); CREATE SCHEMA room; CREATE TABLE room.inner (a int); CREATE TABLE parts (a int) PARTITION BY RANGE (a); \
         CREATE TABLE parts_1 PARTITION OF parts DEFAULT; \
         GRANT USAGE ON SCHEMA room TO ann; GRANT SELECT ON t, kept, veiled, room.inner, parts TO ann; SELECT fork_create('prod', 'f')",
    );
    let mut ann = cluster.client_as("ann", "prod");
    let mount = "SELECT fork_mount('f', 'cut', 'before')";
    ann.batch_execute(mount).expect("mounted");
    let all = ["t", "kept", "veiled", "inner", "parts", "parts_1"];
    let read = |ann: &mut Client, table: &str| state(ann, &format!("SELECT * FROM before.{table}"));
    for table in all {
        assert_eq!(read(&mut ann, table), "", "{table}");
    }
    cluster.sql(
        "f",
        "REVOKE SELECT ON t FROM ann; GRANT SELECT (a) ON t TO ann; DROP TABLE kept; ALTER TABLE veiled ENABLE ROW LEVEL SECURITY; \
         REVOKE USAGE ON SCHEMA room FROM ann; REVOKE SELECT ON parts FROM ann",
    );
    for (table, code) in all
        .into_iter()
        .zip(["42501", "", "42501", "42501", "42501", "42501"])
    {
        assert_eq!(read(&mut ann, table), code, "{table}");
    }
    ann.batch_execute(&format!("SELECT fork_unmount('before'); {mount}"))
        .expect("mounted again");
    let shown = "SELECT string_agg(relname || ':' || relnatts, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'before'::regnamespace";
    assert_eq!(cluster.sql("prod", shown), "kept:1,t:2");
    let row = ann.query_one("SELECT * FROM before.t", &[]).expect("read");
    assert_eq!((row.len(), row.get::<_, i32>(0)), (1, 1));
    // What the source takes is the source's.
    cluster.sql("prod", "REVOKE SELECT ON kept FROM ann");
    assert_eq!(read(&mut ann, "kept"), "");
}

/// The list of rights on a schema may be so long that it lies in the other database's TOAST table.
#[test]
fn schemas_with_long_lists_of_rights() {
    let cluster = prod("");
    cluster.sql(
        "postgres",
        "CREATE ROLE last LOGIN; CREATE ROLE out LOGIN; GRANT CREATE ON DATABASE prod TO last, out",
    );
    cluster.sql(
        "prod",
        "CREATE SCHEMA crowded; CREATE TABLE crowded.t (id int); INSERT INTO crowded.t VALUES (1); GRANT SELECT ON crowded.t TO PUBLIC",
    );
    let crowd = "SELECT format('CREATE ROLE crowd_%s; GRANT USAGE ON SCHEMA crowded TO crowd_%s', n, n) FROM generate_series(1, 1500) n \\gexec\n";
    let made = cluster.script("prod", &format!("SET client_min_messages = error; {crowd}"));
    assert!(made.status.success());
    cluster.sql(
        "prod",
        "GRANT USAGE ON SCHEMA crowded TO last; SELECT fork_create('prod', 'f')",
    );
    let outside = "SELECT pg_column_size(nspacl) > 2000, (SELECT count(*) > 0 FROM pg_toast.pg_toast_2615) FROM pg_namespace WHERE nspname = 'crowded'";
    assert_eq!(cluster.sql("f", outside), "t|t");
    // The source's own list goes.
    cluster.sql(
        "prod",
        "REVOKE ALL ON SCHEMA crowded FROM last; VACUUM FULL pg_namespace",
    );
    for (at, db) in [("now", "f"), ("cut", "f")] {
        let mount = format!("SELECT fork_mount('{db}', '{at}', 'm', '{{crowded.t}}')");
        let mut last = cluster.client_as("last", "prod");
        assert_eq!(
            state(
                &mut last,
                &format!("{mount}; SELECT * FROM m.t; SELECT fork_unmount('m')")
            ),
            ""
        );
        let mut out = cluster.client_as("out", "prod");
        assert_eq!(state(&mut out, &mount), "42P01");
        cluster.sql(
            "prod",
            &format!("{mount}; SELECT fork_unmount('m'); SELECT * FROM fork_diff('f')"),
        );
    }
}
