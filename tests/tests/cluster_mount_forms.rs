//! What a mounted table's columns are, and how it is called.

use pg_fork_tests::Cluster;

fn prod() -> Cluster {
    let cluster = Cluster::new("autovacuum = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql("prod", "CREATE EXTENSION pg_fork");
    cluster
}

fn warnings(cluster: &Cluster, db: &str, sql: &str) -> String {
    let out = cluster.script(db, &format!("{sql};"));
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!told.contains("ERROR"), "{told}");
    told
}

/// Rows from before a column was added show what it began with, of whatever type, and nothing is called for it.
#[test]
fn columns_that_were_added_later() {
    let cluster = prod();
    cluster.sql(
        "prod",
        "CREATE TYPE pair AS (a int, b text); CREATE TYPE mood AS ENUM ('low', 'high'); CREATE DOMAIN code AS varchar(4); \
         CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 3); \
         ALTER TABLE t ADD b bool DEFAULT true, ADD i2 smallint DEFAULT -2, ADD i8 bigint DEFAULT 1234567890123, ADD f float8 DEFAULT 0.1, \
           ADD n numeric(6,2) DEFAULT 1.5, ADD s text DEFAULT repeat('long ', 900), ADD e text DEFAULT '', ADD c char(5) DEFAULT 'c', \
           ADD nm name DEFAULT 'nm', ADD y bytea DEFAULT '\\x00ff', ADD ts timestamptz DEFAULT '2020-02-03 04:05:06+00', ADD iv interval DEFAULT '1 mon', \
           ADD u uuid DEFAULT '11111111-2222-3333-4444-555555555555', ADD ip inet DEFAULT '10.0.0.1', ADD bt bit(3) DEFAULT B'101', \
           ADD j jsonb DEFAULT '{\"a\": [1, null]}', ADD p pair DEFAULT (1, 'x'), ADD m mood DEFAULT 'high', ADD d code DEFAULT 'abcd', \
           ADD ai int[] DEFAULT '{{1,2},{3,4}}', ADD at text[] DEFAULT ARRAY['a', NULL], ADD ap pair[] DEFAULT ARRAY[(1,NULL)::pair], \
           ADD am mood[] DEFAULT '{low}', ADD r int4range DEFAULT '[1,5)', ADD \"char\" \"char\" DEFAULT 'x', ADD tid tid DEFAULT '(1,2)', ADD pt point DEFAULT '(1,2)'; \
         INSERT INTO t (id, s) VALUES (4, NULL); SELECT fork_create('prod', 'f')",
    );
    cluster.sql("f", "ALTER TABLE t ADD late text DEFAULT 'late', DROP COLUMN e, DROP COLUMN am; INSERT INTO t (id) VALUES (5)");
    cluster.sql(
        "prod",
        "SELECT fork_mount('f'); SELECT fork_mount('f', 'cut')",
    );
    let all = |table: &str| format!("SELECT t::text FROM {table} t ORDER BY id");
    assert_eq!(
        cluster.sql("prod", &all("f.t")),
        cluster.sql("f", &all("t"))
    );
    assert_eq!(
        cluster.sql("prod", &all("f_cut.t")),
        cluster.sql("prod", &all("t"))
    );
    let form = |table: &str| {
        format!("SELECT attname, format_type(atttypid, atttypmod), attndims, attcollation::regcollation FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum")
    };
    assert_eq!(
        cluster.sql("prod", &form("f.t")),
        cluster.sql("f", &form("t"))
    );
    // The fork rewrites the table: its rows are whole then.
    cluster.sql("f", "VACUUM FULL t; UPDATE t SET i2 = 7 WHERE id = 1");
    assert_eq!(
        cluster.sql("prod", &all("f.t")),
        cluster.sql("f", &all("t"))
    );
}

/// Columns that are not shown take their places, whatever their size is.
#[test]
fn hidden_columns_of_odd_sizes() {
    let cluster = prod();
    cluster.sql(
        "postgres",
        "CREATE ROLE ann LOGIN; GRANT CREATE ON DATABASE prod TO ann",
    );
    cluster.sql(
        "prod",
        "CREATE TYPE six; CREATE FUNCTION six_in(cstring) RETURNS six IMMUTABLE STRICT LANGUAGE internal AS 'macaddr_in'; \
         CREATE FUNCTION six_out(six) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'macaddr_out'; \
         CREATE TYPE six (INPUT = six_in, OUTPUT = six_out, INTERNALLENGTH = 6, ALIGNMENT = char); \
         CREATE TYPE wide; CREATE FUNCTION wide_in(cstring) RETURNS wide IMMUTABLE STRICT LANGUAGE internal AS 'interval_in'; \
         CREATE FUNCTION wide_out(wide) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'uuid_out'; \
         CREATE TYPE wide (INPUT = wide_in, OUTPUT = wide_out, INTERNALLENGTH = 16, ALIGNMENT = int2); \
         CREATE TABLE t (id int, o six, a \"char\", w wide, z text, o2 six, last bigint); \
         INSERT INTO t SELECT n, '08:00:2b:01:02:03', 'a', '1 day', 'z' || n, '08:00:2b:01:02:04', n * 10 FROM generate_series(1, 5) n; \
         GRANT SELECT (id, a, z, last) ON t TO ann; SELECT fork_create('prod', 'f')",
    );
    cluster.sql("f", "ALTER TABLE t DROP COLUMN o, DROP COLUMN o2; INSERT INTO t VALUES (6, 'b', '2 days', 'z6', 60)");
    let mut ann = cluster.client_as("ann", "prod");
    ann.batch_execute(
        "SELECT fork_mount('f', into_schema => 'a'); SELECT fork_mount('f', 'cut', 'c')",
    )
    .expect("mounted");
    for (schema, count) in [("a", 6), ("c", 5)] {
        let sql = format!("SELECT count(*), max(z), sum(last)::bigint FROM {schema}.t");
        let row = ann.query_one(&sql, &[]).expect("read");
        assert_eq!(row.get::<_, i64>(0), count);
        assert_eq!(row.get::<_, String>(1), format!("z{count}"));
        assert_eq!(row.get::<_, i64>(2), (1..=count).sum::<i64>() * 10);
    }
    cluster.sql("prod", "SELECT fork_mount('f')");
    assert_eq!(
        cluster.sql("prod", "SELECT count(w::text), sum(last) FROM f.t"),
        "6|210"
    );
}

#[test]
fn collations_that_are_the_same_are_kept() {
    let cluster = prod();
    cluster.sql(
        "prod",
        "CREATE COLLATION blind (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false); CREATE COLLATION goes (LOCALE = 'C'); \
         CREATE DOMAIN tagged AS text COLLATE \"C\"; \
         CREATE TABLE t (id int, b text COLLATE blind, c text COLLATE \"C\", p varchar(9) COLLATE \"POSIX\", d tagged, e tagged COLLATE \"POSIX\", g text COLLATE goes); \
         INSERT INTO t VALUES (1, 'ABC', 'c', 'p', 'd', 'e', 'g'); SELECT fork_create('prod', 'f')",
    );
    cluster.sql(
        "f",
        "CREATE COLLATION later (LOCALE = 'C'); ALTER TABLE t ADD l text COLLATE later DEFAULT 'l'",
    );
    cluster.sql(
        "prod",
        "ALTER TABLE t DROP COLUMN g; DROP COLLATION goes; SELECT fork_mount('f')",
    );
    let of = "SELECT string_agg(collname, ',' ORDER BY attnum) FROM pg_attribute JOIN pg_collation c ON c.oid = attcollation WHERE attrelid = 'f.t'::regclass AND attnum > 0";
    assert_eq!(
        cluster.sql("prod", of),
        "blind,C,POSIX,C,POSIX,default,default"
    );
    assert_eq!(
        cluster.sql("prod", "SELECT id, g, l FROM f.t WHERE b = 'abc'"),
        "1|g|l"
    );
}

/// Names as long as names can be, names that are equal once they are cut, and names that others were to get.
#[test]
fn long_and_clashing_names() {
    let cluster = prod();
    let long = "x".repeat(60);
    let umlauts = "ä".repeat(31);
    cluster.sql(
        "prod",
        &format!(
            "CREATE SCHEMA \"{long}_a\"; CREATE SCHEMA \"{long}_b\"; CREATE SCHEMA \"{umlauts}\"; CREATE SCHEMA s; CREATE SCHEMA q; \
             CREATE TABLE \"{long}_a\".t (id int); INSERT INTO \"{long}_a\".t VALUES (1); CREATE TABLE \"{long}_b\".t (id int); INSERT INTO \"{long}_b\".t VALUES (2); \
             CREATE TABLE \"{umlauts}\".t (id int); INSERT INTO \"{umlauts}\".t VALUES (3); CREATE TABLE \"{umlauts}\".\"{umlauts}\" (id int); INSERT INTO \"{umlauts}\".\"{umlauts}\" VALUES (4); \
             CREATE TABLE s.r (id int); INSERT INTO s.r VALUES (5); CREATE TABLE q.r (id int); INSERT INTO q.r VALUES (6); \
             CREATE TABLE \"s.r\" (id int); INSERT INTO \"s.r\" VALUES (7); CREATE TABLE q.\"s.r\" (id int); INSERT INTO q.\"s.r\" VALUES (8); \
             CREATE TABLE _t (id int); INSERT INTO _t VALUES (9); CREATE TABLE \"a\"\"b'c;\" (id int, \"d\"\"e\" int); INSERT INTO \"a\"\"b'c;\" VALUES (10, 1); \
             SELECT fork_create('prod', 'f'); SELECT fork_mount('f')"
        ),
    );
    let tables = "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'f' AND relkind = 'r' ORDER BY 1";
    let tables = cluster.sql("prod", tables);
    let mut ids: Vec<i32> = tables
        .lines()
        .map(|table| cluster.sql("prod", &format!("TABLE {table}")))
        .map(|row| {
            row.split('|')
                .next()
                .expect("a column")
                .parse()
                .expect("a number")
        })
        .collect();
    ids.sort();
    assert_eq!(ids, (1..=10).collect::<Vec<_>>(), "{tables}");
    for name in ["f._t", "f.\"a\"\"b'c;\"", "f.\"q.r\""] {
        assert!(
            tables.lines().any(|table| table == name),
            "{name}: {tables}"
        );
    }
    let nothing = "SELECT (SELECT count(*) FROM pg_depend WHERE objid = 0), (SELECT count(*) FROM pg_seclabel WHERE objoid = 0)";
    assert_eq!(cluster.sql("prod", nothing), "0|0");
    // A schema's name is cut behind whole characters.
    cluster.sql("prod", &format!("SELECT fork_create('prod', '{umlauts}'); SELECT fork_mount('{umlauts}', 'cut', tables => '{{_t}}')"));
    let schema = format!("{}_cut", "ä".repeat(29));
    assert_eq!(
        cluster.sql("prod", &format!("SELECT count(*) FROM \"{schema}\"._t")),
        "1"
    );
    cluster.sql(
        "prod",
        "SELECT fork_unmount('f'); DROP EXTENSION pg_fork CASCADE",
    );
    assert_eq!(
        cluster.sql("prod", "SELECT count(*) FROM pg_class WHERE relname = '_t'"),
        "1"
    );
}

/// Types that change or go after a table was mounted, here and in the fork.
#[test]
fn types_that_change_afterwards() {
    let cluster = prod();
    cluster.sql(
        "prod",
        "CREATE TYPE mood AS ENUM ('low', 'high'); CREATE TYPE pair AS (a int, b mood); CREATE DOMAIN code AS int; \
         CREATE TABLE t (id int, m mood, p pair, c code, last text); INSERT INTO t VALUES (1, 'low', (1, 'high'), 5, 'last'); \
         SELECT fork_create('prod', 'f'); SELECT fork_mount('f')",
    );
    cluster.sql("prod", "ALTER TYPE mood ADD VALUE 'top'");
    cluster.expect_error("prod", "SELECT * FROM f.t", "42804");
    cluster.sql(
        "prod",
        "ALTER TABLE t DROP p, DROP m; DROP TYPE pair CASCADE; DROP TYPE mood CASCADE",
    );
    assert_eq!(cluster.sql("prod", "SELECT * FROM f.t"), "1|5|last");
    cluster.sql("f", "ALTER DOMAIN code RENAME TO other");
    cluster.expect_error("prod", "SELECT * FROM f.t", "42804");
    let told = warnings(
        &cluster,
        "prod",
        "SELECT fork_mount('f', into_schema => 'again')",
    );
    for column in ["m", "p", "c"] {
        assert!(
            told.contains(&format!("WARNING:  42704: the type of column \"{column}\"")),
            "{told}"
        );
    }
    assert_eq!(cluster.sql("prod", "SELECT * FROM again.t"), "1|last");
    // A type that the role may not use makes no column here.
    cluster.sql("prod", "CREATE ROLE ann LOGIN; GRANT CREATE ON DATABASE prod TO ann; CREATE TYPE own AS ENUM ('x'); CREATE TABLE o (id int, v own); INSERT INTO o VALUES (1, 'x'); \
        GRANT SELECT ON o TO ann; REVOKE USAGE ON TYPE own FROM PUBLIC; SELECT fork_create('prod', 'g')");
    let mut ann = cluster.client_as("ann", "prod");
    ann.batch_execute("SELECT fork_mount('g')")
        .expect("mounted");
    let row = ann.query_one("SELECT * FROM g.o", &[]).expect("read");
    assert_eq!((row.len(), row.get::<_, i32>(0)), (1, 1));
}

/// A table of the fork that has become something else is not read as pages of rows.
#[test]
fn tables_that_became_something_else() {
    let cluster = prod();
    cluster.sql(
        "prod",
        "CREATE TABLE seen (id int); CREATE TABLE moved (id int); INSERT INTO moved VALUES (1); \
         SELECT fork_create('prod', 'f'); SELECT fork_mount('f'); SELECT fork_mount('f', 'cut')",
    );
    cluster.sql(
        "f",
        "CREATE RULE \"_RETURN\" AS ON SELECT TO seen DO INSTEAD SELECT 7 AS id; \
         CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler; ALTER TABLE moved SET ACCESS METHOD other",
    );
    for table in ["seen", "moved"] {
        let error = cluster.expect_error("prod", &format!("SELECT * FROM f.{table}"), "42P01");
        assert!(error.contains("is no table with rows"), "{error}");
    }
    assert_eq!(
        cluster.sql(
            "prod",
            "SELECT count(*) FROM f_cut.seen; SELECT * FROM f_cut.moved"
        ),
        "0\n1"
    );
    cluster.sql(
        "prod",
        "SELECT fork_mount('f', into_schema => 'again'); SELECT fork_unmount('f')",
    );
    assert_eq!(
        cluster.sql(
            "prod",
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'again'::regnamespace"
        ),
        "0"
    );
}

/// What is done to a type here that mounted columns have, and to the rows that it is checked against.
#[test]
fn domains_are_checked_against_mounted_rows_too() {
    let cluster = prod();
    cluster.sql(
        "prod",
        "CREATE DOMAIN code AS int; CREATE TABLE t (id int, c code); INSERT INTO t VALUES (1, 5); \
         SELECT fork_create('prod', 'f'); SELECT fork_mount('f')",
    );
    cluster.sql("f", "INSERT INTO t VALUES (2, 50)");
    cluster.sql("prod", "ALTER DOMAIN code ADD CHECK (VALUE < 100)");
    cluster.expect_error("prod", "ALTER DOMAIN code ADD CHECK (VALUE < 10)", "23514");
    cluster.sql("prod", "ALTER DOMAIN code ADD CHECK (VALUE < 10) NOT VALID; SELECT * FROM f.t; ALTER DOMAIN code DROP NOT NULL");
}
