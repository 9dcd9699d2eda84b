//! Looking into a fork from wherever one is: from within, under any settings, in any encoding, with whatever
//! stands in the extension's schema.

use pg_fork_tests::Cluster;

const DIFF: &str = "SELECT object, change, before, after FROM fork_diff_schema('f')";

fn with_fork(settings: &str) -> Cluster {
    let cluster = Cluster::new(settings);
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE EXTENSION pg_fork; CREATE TABLE item (id int PRIMARY KEY, note text, born timestamptz DEFAULT '2020-02-03 04:05:06+00')",
    );
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster
}

fn rows(client: &mut postgres::Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).expect("rows");
    let text = |row: &postgres::Row, n| row.get::<_, Option<String>>(n).unwrap_or_default();
    let lines = rows.iter().map(|row| {
        let columns = (0..row.len()).map(|n| text(row, n));
        columns.collect::<Vec<_>>().join("|")
    });
    lines.collect()
}

#[test]
fn a_transaction_in_the_fork_is_told_what_it_did() {
    let cluster = with_fork("lock_timeout = 20s");
    let mut inside = cluster.client("f");
    inside
        .batch_execute(
            "BEGIN; LOCK TABLE item; ALTER TABLE item ADD price numeric(8, 2); DROP TABLE IF EXISTS gone;
             CREATE TABLE fresh (a int); INSERT INTO fresh SELECT generate_series(1, 1000); DELETE FROM item;
             CREATE TEMP TABLE pg_class (a int); CREATE TEMP TABLE passing (a int);
             COMMENT ON TABLE passing IS 'x'; COMMENT ON COLUMN passing.a IS 'x';
             CREATE FUNCTION pg_temp.passing() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE TYPE pg_temp.passing_type AS ENUM ('a'); COMMENT ON FUNCTION pg_temp.passing() IS 'x'",
        )
        .expect("changed");
    let told = rows(&mut inside, DIFF);
    assert_eq!(
        told,
        [
            "table column public.fresh.a|created||a integer",
            "table column public.item.price|created||price numeric(8,2)",
            "table public.fresh|created||TABLE public.fresh USING heap OWNER TO postgres",
        ]
    );
    let blocks = "SELECT relation::text, (total > 3)::text FROM fork_blocks('f') WHERE relation = 'fresh' AND fork_number = 'main'";
    assert_eq!(rows(&mut inside, blocks), ["fresh|true"]);
    // What a savepoint took back is not told any more.
    inside
        .batch_execute("SAVEPOINT s; COMMENT ON TABLE item IS 'x'")
        .expect("changed");
    assert_eq!(rows(&mut inside, DIFF).len(), 4);
    inside.batch_execute("ROLLBACK TO s").expect("rolled back");
    assert_eq!(rows(&mut inside, DIFF), told);
    inside.batch_execute("ROLLBACK").expect("rolled back");
    assert!(rows(&mut inside, DIFF).is_empty());
    // The same for a session that attached, and under REPEATABLE READ.
    let mut attached = cluster.client("prod");
    attached
        .batch_execute("SELECT fork_attach('f')")
        .expect("attached");
    attached
        .batch_execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; CREATE VIEW w AS SELECT id FROM item",
        )
        .expect("changed");
    let told = rows(&mut attached, DIFF);
    assert!(
        told.len() == 1 && told[0].starts_with("view public.w|created||"),
        "{told:?}"
    );
    attached.batch_execute("ROLLBACK").expect("rolled back");
    // A worker that does have to wait for its own session says so.
    let mut waits = cluster.client("f");
    waits
        .batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_class")
        .expect("locked");
    let error = waits.query(DIFF, &[]).expect_err("waits for itself");
    assert_eq!(error.code().map(|it| it.code()), Some("40P01"), "{error:?}");
}

/// Whatever a session can set that could change what is printed, or how a query is read.
const SETTINGS: &[(&str, &str)] = &[
    ("DateStyle", "'SQL, DMY'"),
    ("IntervalStyle", "'sql_standard'"),
    ("TimeZone", "'Asia/Kolkata'"),
    ("extra_float_digits", "-15"),
    ("bytea_output", "'escape'"),
    ("xmloption", "'document'"),
    ("xmlbinary", "'hex'"),
    ("quote_all_identifiers", "on"),
    ("standard_conforming_strings", "off"),
    ("transform_null_equals", "on"),
    ("array_nulls", "off"),
    ("search_path", "evil, public, pg_catalog"),
    ("force_parallel_mode", "on"),
    ("default_transaction_isolation", "'serializable'"),
    ("default_transaction_read_only", "on"),
    ("statement_timeout", "'1h'"),
    ("lock_timeout", "'1ms'"),
    ("work_mem", "'64kB'"),
    ("role", "'nobody_here'"),
    ("client_min_messages", "'debug5'"),
    ("debug_print_plan", "on"),
    ("client_encoding", "'LATIN1'"),
];

#[test]
fn no_setting_changes_what_is_told() {
    let cluster = with_fork("");
    cluster.sql(
        "postgres",
        "CREATE ROLE nobody_here; CREATE ROLE other LOGIN",
    );
    let made = cluster.script(
        "f",
        "CREATE SCHEMA evil;
         CREATE FUNCTION evil.eq(oid, oid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''called''; END';
         CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.eq);
         CREATE FUNCTION evil.format_type(oid, int) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''called''; END';
         ALTER TABLE item ADD d date DEFAULT '2021-03-04', ADD i interval DEFAULT '1 day 2 hours',
            ADD f float8 DEFAULT 0.1, ADD b bytea DEFAULT '\\x00ff', ADD \"Odd\" float8[] DEFAULT '{0.1,NULL}',
            ADD z timestamptz DEFAULT '2021-03-04 05:06:07+00', ADD CHECK (f < 1.1e10 OR note = E'a\\\\b' OR note IS NULL);
         CREATE VIEW v AS SELECT '2021-03-04'::date AS d, '\\x01'::bytea AS b, note FROM item WHERE note ~ '^\\d';
         COMMENT ON TABLE item IS 'naïve \\d';",
    );
    assert!(made.stderr.is_empty(), "{made:?}");
    let plain = rows(&mut cluster.client("postgres"), DIFF);
    assert!(plain.len() > 12, "{plain:#?}");
    for (name, value) in SETTINGS {
        let set = format!("SET {name} = {value}");
        let skip = ["client_encoding", "role"].contains(name);
        // The session's own, from elsewhere and from within.
        for db in ["postgres", "prod", "f"] {
            if skip {
                continue;
            }
            let mut client = cluster.client(db);
            client.batch_execute(&set).expect("set");
            assert_eq!(
                rows(&mut client, &DIFF.replace("fork_diff", "public.fork_diff")),
                plain,
                "{db}: {set}"
            );
            let now = format!("SELECT setting FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) '{name}'");
            let left = rows(&mut client, &now);
            assert_eq!(left, rows(&mut client, &now), "{set}");
            let path = rows(&mut client, "SHOW search_path");
            assert_eq!(path[0].contains("evil"), *name == "search_path", "{path:?}");
        }
        // What the database's owner, or the role, has set for sessions.
        for whose in ["DATABASE f", "ROLE postgres", "ROLE postgres IN DATABASE f"] {
            if whose.ends_with("postgres") && skip {
                continue;
            }
            cluster.sql("postgres", &format!("ALTER {whose} {set}"));
            let told = rows(
                &mut cluster.client("prod"),
                &DIFF.replace("fork_diff", "public.fork_diff"),
            );
            assert_eq!(told, plain, "{whose}: {set}");
            let reset = format!("SET default_transaction_read_only = off; SET role = none; ALTER {whose} RESET {name}");
            cluster.sql("postgres", &reset);
        }
    }
}

#[test]
fn a_database_that_lets_nobody_in_is_not_looked_into() {
    let cluster = with_fork("");
    cluster.sql("postgres", "CREATE ROLE someone LOGIN");
    let both = [
        "SELECT * FROM fork_diff_schema('f')",
        "SELECT * FROM fork_blocks('f')",
    ];
    let code = |client: &mut postgres::Client, sql: &str| {
        let error = client.query(sql, &[]).expect_err("refused");
        error
            .code()
            .map(|it| it.code().to_string())
            .unwrap_or_default()
    };
    for sql in both {
        cluster.sql("postgres", "ALTER DATABASE f ALLOW_CONNECTIONS off");
        for role in ["postgres", "someone"] {
            assert_eq!(code(&mut cluster.client_as(role, "postgres"), sql), "55000");
        }
        cluster.sql("postgres", "ALTER DATABASE f ALLOW_CONNECTIONS on");
        cluster.sql("postgres", "SET pg_fork.isolation = off; UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'f'");
        assert_eq!(code(&mut cluster.client("postgres"), sql), "55000");
        cluster.sql(
            "postgres",
            "UPDATE pg_database SET datconnlimit = -1 WHERE datname = 'f'",
        );
        cluster.sql("postgres", "REVOKE CONNECT ON DATABASE f FROM PUBLIC");
        assert_eq!(
            code(&mut cluster.client_as("someone", "postgres"), sql),
            "42501"
        );
        cluster.sql("postgres", "GRANT CONNECT ON DATABASE f TO PUBLIC");
        let mut someone = cluster.client_as("someone", "postgres");
        someone.query(sql, &[]).expect("rows");
    }
    // No name: no rows, but an error.
    for sql in ["fork_diff_schema", "fork_blocks", "fork_check"] {
        let sql = format!("SELECT * FROM {sql}(NULL)");
        assert_eq!(code(&mut cluster.client("postgres"), &sql), "22004");
    }
}

#[test]
fn names_and_texts_are_right_in_every_encoding() {
    let cluster = Cluster::new("");
    // A table, and a comment; the database's own bytes of them.
    for (encoding, table, comment) in [
        ("LATIN1", "größe", "né à Zürich"),
        ("LATIN9", "prix", "12 €"),
        ("WIN1252", "preis", "„12 €“"),
        ("EUC_JP", "表", "漢字とカナ"),
        ("EUC_KR", "표", "한국어"),
        ("UTF8", "größe", "漢字 né"),
    ] {
        cluster.sql(
            "postgres",
            &format!("CREATE DATABASE prod TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"),
        );
        let mut prod = cluster.client("prod");
        prod.batch_execute("CREATE EXTENSION pg_fork; SELECT fork_create('prod', 'f')")
            .expect("made");
        cluster
            .client("f")
            .batch_execute(&format!(
                "CREATE TABLE \"{table}\" (id int); COMMENT ON TABLE \"{table}\" IS '{comment}'"
            ))
            .expect("made");
        let name = match table.is_ascii() {
            true => table.to_string(),
            false => format!("\"{table}\""),
        };
        for db in ["prod", "postgres"] {
            let mut client = cluster.client(db);
            assert_eq!(
                rows(&mut client, DIFF),
                [
                    format!("comment on table public.{name}|created||{comment}"),
                    format!("table column public.{name}.id|created||id integer"),
                    format!("table public.{name}|created||TABLE public.{name} USING heap OWNER TO postgres"),
                ],
                "{encoding} from {db}"
            );
            let blocks =
                format!("SELECT schema::text FROM fork_blocks('f') WHERE relation = '{table}'");
            assert_eq!(rows(&mut client, &blocks), ["public"]);
            let tree = rows(&mut client, "SELECT tree FROM fork_tree()");
            assert!(tree[0] == "prod" && tree[1].ends_with(" f"), "{tree:?}");
        }
        // The bytes that the database stores are the encoding's own.
        let bytes = format!("SELECT (convert_to(after, '{encoding}') = convert_to('{comment}', '{encoding}'))::text FROM fork_diff_schema('f') WHERE object LIKE 'comment%'");
        assert_eq!(rows(&mut prod, &bytes), ["true"]);
        drop(prod);
        cluster.sql("postgres", "SELECT fork_drop('f'); DROP DATABASE prod");
    }
}

#[test]
fn bytes_of_no_encoding_come_back_as_they_were() {
    let cluster = Cluster::new("");
    cluster.sql(
        "postgres",
        "CREATE DATABASE prod TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'",
    );
    cluster.sql(
        "prod",
        "CREATE EXTENSION pg_fork; SELECT fork_create('prod', 'f')",
    );
    let made = cluster.script(
        "f",
        "CREATE TABLE t (id int);
         DO $$ BEGIN EXECUTE 'COMMENT ON TABLE t IS ''a' || convert_from('\\xe9ff80', 'SQL_ASCII') || 'b'''; END $$;",
    );
    assert!(made.stderr.is_empty(), "{made:?}");
    let after = "SELECT encode(after::bytea, 'hex') FROM fork_diff_schema('f') WHERE object LIKE 'comment%'";
    assert_eq!(cluster.sql("prod", after), "61e9ff8062");
}

/// Functions and operators that fit a call better than the catalog's own, in the schema that the extension is
/// made in. Each says that it was called.
fn planted() -> String {
    let mut sql = String::from(
        "CREATE SCHEMA own AUTHORIZATION mallory; CREATE TABLE own.called (what text); GRANT INSERT, SELECT ON own.called TO PUBLIC;
         SET ROLE mallory;",
    );
    let body = |name: &str, result: &str| {
        format!("LANGUAGE plpgsql AS $$ BEGIN INSERT INTO own.called VALUES ('{name}'); RETURN NULL::{result}; END $$;")
    };
    for (name, arguments, result) in [
        ("format", "text, text, text", "text"),
        ("upper", "text", "text"),
        ("to_hex", "bigint", "text"),
        ("cardinality", "text[]", "int"),
        ("repeat", "text, int", "text"),
        ("date_trunc", "text, interval", "interval"),
        ("pg_size_pretty", "bigint", "text"),
        ("now", "", "timestamptz"),
        ("pg_get_userbyid", "oid", "name"),
        ("fork_diff_schema", "text", "int"),
        ("fork_blocks", "text", "int"),
        ("fork_check", "text", "int"),
        ("count", "text", "int"),
        ("pg_identify_object", "regclass, oid, int", "text"),
        ("quote_ident", "name", "text"),
        ("format_type", "oid, int", "text"),
    ] {
        sql += &format!(
            "CREATE FUNCTION own.{name}({arguments}) RETURNS {result} {}\n",
            body(name, result)
        );
    }
    for (operator, left, right, result) in [
        ("=", "oid", "oid", "boolean"),
        ("=", "oid", "int", "boolean"),
        ("=", "name", "text", "boolean"),
        ("=", "\"char\"", "text", "boolean"),
        ("=", "\"char\"", "unknown", "boolean"),
        ("||", "text", "name", "text"),
        ("||", "text", "text", "text"),
        ("||", "text", "bigint", "text"),
        ("||", "text[]", "text", "text[]"),
        (">>", "bigint", "int", "bigint"),
        ("&", "bigint", "bigint", "bigint"),
        (">=", "oid", "int", "boolean"),
        ("<>", "name", "text", "boolean"),
        ("-", "timestamptz", "timestamptz", "interval"),
        ("-", "int", "int", "int"),
    ] {
        if left == "\"char\"" && right == "unknown" {
            continue;
        }
        let function = format!("own.op_{}", sql.len());
        sql += &format!(
            "CREATE FUNCTION {function}({left}, {right}) RETURNS {result} {}
             CREATE OPERATOR own.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {function});\n",
            body(&format!("{left} {operator} {right}"), result)
        );
    }
    sql
}

#[test]
fn nothing_that_stood_in_the_extensions_schema_is_called() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE ROLE mallory; CREATE DATABASE prod");
    let made = cluster.script("prod", &planted());
    assert!(made.stderr.is_empty(), "{made:?}");
    let mut client = cluster.client("prod");
    // One that makes the extension's own ambiguous keeps the extension out.
    let make = "CREATE EXTENSION pg_fork SCHEMA own";
    client
        .batch_execute("CREATE FUNCTION own.fork_list(n int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT 1 / 0'")
        .expect("planted");
    let error = client.batch_execute(make).expect_err("ambiguous");
    assert_eq!(error.code().map(|it| it.code()), Some("42725"), "{error:?}");
    client
        .batch_execute("DROP FUNCTION own.fork_list(int)")
        .expect("dropped");
    client
        .batch_execute("CREATE EXTENSION pg_fork SCHEMA own; CREATE TABLE t (id int); SET search_path = own, pg_catalog")
        .expect("made");
    client
        .batch_execute("SELECT own.fork_create('prod'::name, 'f'::name)")
        .expect("a fork");
    cluster.sql("f", "ALTER TABLE public.t ADD x int");
    for db in ["prod", "f"] {
        let mut client = cluster.client(db);
        client
            .batch_execute("SET search_path = own, public, pg_catalog")
            .expect("set");
        for call in [
            "own.pg_forks",
            "own.pg_fork_stats",
            "own.fork_tree()",
            "own.fork_list()",
            "own.fork_counters()",
            "own.fork_diff_schema('f'::name)",
            "own.fork_blocks('f'::name)",
            "own.fork_check('f'::name)",
        ] {
            let found = client.query(&format!("SELECT * FROM {call}"), &[]);
            let found = found.unwrap_or_else(|error| panic!("{call}: {error:?}"));
            assert_eq!(found.is_empty(), call.contains("fork_check"), "{call}");
        }
        let called = client
            .query("SELECT DISTINCT what FROM own.called", &[])
            .expect("rows");
        let called: Vec<String> = called.iter().map(|row| row.get(0)).collect();
        assert!(called.is_empty(), "{db}: {called:?}");
    }
    // What it would look like.
    cluster.sql("prod", "SELECT own.upper('x'::text)");
    assert_eq!(cluster.sql("prod", "SELECT * FROM own.called"), "upper");
    // None of the extension's functions is one whose body is read anew.
    let bodies = "SELECT p.proname FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid JOIN pg_language l ON l.oid = p.prolang
        WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e' AND l.lanname <> 'c'
          AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_fork') AND p.proname ~ '^fork_(list|counters|tree|check|blocks|diff_schema)'";
    assert_eq!(cluster.sql("prod", bodies), "");
}
