//! Partitioned tables, mounted as views of their mounted partitions.

use pg_fork_tests::Cluster;
use postgres::Client;

const TABLES: &str = "CREATE TABLE sales (day date NOT NULL, shop int, note text COLLATE \"C\", amount numeric(10,2)) PARTITION BY RANGE (day); \
    CREATE TABLE sales_1 PARTITION OF sales FOR VALUES FROM ('2020-01-01') TO ('2021-01-01'); \
    CREATE TABLE sales_2 (amount numeric(10,2), gone int, shop int, note text COLLATE \"C\", day date NOT NULL); \
    ALTER TABLE sales_2 DROP COLUMN gone; \
    ALTER TABLE sales ATTACH PARTITION sales_2 FOR VALUES FROM ('2021-01-01') TO ('2022-01-01'); \
    CREATE TABLE sales_3 PARTITION OF sales FOR VALUES FROM ('2022-01-01') TO ('2023-01-01') PARTITION BY LIST (shop); \
    CREATE TABLE sales_3_a PARTITION OF sales_3 FOR VALUES IN (1, 2); \
    CREATE TABLE sales_3_b PARTITION OF sales_3 DEFAULT; \
    INSERT INTO sales SELECT '2020-01-01'::date + n * 10, n % 5, 'note ' || n, n * 1.25 FROM generate_series(0, 100) n; \
    CREATE TABLE bare (id int) PARTITION BY RANGE (id); \
    CREATE TABLE single (id int, v text) PARTITION BY RANGE (id); \
    CREATE TABLE single_1 PARTITION OF single DEFAULT; \
    INSERT INTO single VALUES (1, 'one')";

fn prod() -> Cluster {
    let cluster = Cluster::new("autovacuum = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql("prod", "CREATE EXTENSION pg_fork");
    cluster.sql("prod", TABLES);
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    cluster
}

fn state(client: &mut Client, sql: &str) -> String {
    let error = client.batch_execute(sql).err();
    error.map_or_else(String::new, |error| {
        error.code().expect("an SQLSTATE").code().to_string()
    })
}

fn rows(table: &str) -> String {
    format!("SELECT count(*), md5(string_agg(t::text, ',' ORDER BY t::text COLLATE \"C\")) FROM {table} t")
}

const EXTENSION: &str = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_fork'";

#[test]
fn a_partitioned_table_is_read_as_a_whole() {
    let cluster = prod();
    cluster.sql(
        "f",
        "DELETE FROM sales WHERE shop = 3; INSERT INTO sales VALUES ('2022-06-01', 4, 'new', 7)",
    );
    cluster.sql(
        "prod",
        "SELECT fork_mount('f'); SELECT fork_mount('f', 'cut')",
    );
    for table in ["sales", "sales_3", "single", "bare"] {
        assert_eq!(
            cluster.sql("prod", &rows(&format!("f.{table}"))),
            cluster.sql("f", &rows(table)),
            "{table}"
        );
        assert_eq!(
            cluster.sql("prod", &rows(&format!("f_cut.{table}"))),
            cluster.sql("prod", &rows(table)),
            "{table}"
        );
    }
    // Columns keep type, modifier and collation.
    let form = |table: &str| {
        format!("SELECT string_agg(concat(attname, format_type(atttypid, atttypmod), attcollation), ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0")
    };
    assert_eq!(
        cluster.sql("prod", &form("f.sales")),
        cluster.sql("prod", &form("sales"))
    );
    // Members of the extension, of their owner, and nobody else's; pg_dump passes over them.
    let of = "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.deptype = 'e' \
              WHERE relnamespace = 'f'::regnamespace AND relkind = 'v' AND relacl IS NULL AND pg_get_userbyid(relowner) = 'postgres'";
    assert_eq!(cluster.sql("prod", of), "bare,sales,sales_3,single");
    let dump = cluster.must("pg_dump", &["-d", "prod"]);
    assert!(
        !dump.contains("CREATE VIEW") && !dump.contains("SCHEMA f"),
        "{dump}"
    );
    // A name brings the partitions along.
    cluster.sql(
        "prod",
        "SELECT fork_mount('f', into_schema => 'more', tables => '{sales_3}')",
    );
    let names = "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'more'::regnamespace";
    assert_eq!(cluster.sql("prod", names), "sales_3,sales_3_a,sales_3_b");
    // No statement writes through it, and it stays what it is.
    for (sql, code) in [
        ("INSERT INTO f.sales VALUES ('2020-01-01')", "55000"),
        ("DELETE FROM f.single", "25006"),
        ("INSERT INTO f.single VALUES (2)", "25006"),
        ("SELECT * FROM f.sales FOR UPDATE", "25006"),
        ("SELECT * FROM f.single s FOR KEY SHARE", "25006"),
        ("CREATE OR REPLACE VIEW f.single AS SELECT 1 AS id, ''::text AS v", "0A000"),
        ("CREATE RULE r AS ON INSERT TO f.sales DO INSTEAD NOTHING", "0A000"),
        ("CREATE TRIGGER g INSTEAD OF INSERT ON f.sales FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()", "0A000"),
    ] {
        cluster.expect_error("prod", sql, code);
    }
    cluster.sql("prod", "DROP VIEW f.bare; DROP VIEW f.sales, f.single; SELECT fork_unmount('f'); DROP SCHEMA f_cut CASCADE; DROP SCHEMA more CASCADE");
    assert_eq!(cluster.sql("prod", EXTENSION), "1");
}

/// What depends on a mounted view or partition takes it along, not the extension that it is a member of.
#[test]
fn nothing_takes_the_extension_along() {
    let cluster = prod();
    cluster.sql(
        "prod",
        "CREATE TYPE state AS ENUM ('on', 'off'); CREATE COLLATION plain_c (LOCALE = 'C')",
    );
    cluster.sql("prod", "CREATE TABLE parts (id int, s state, t text COLLATE plain_c) PARTITION BY RANGE (id); \
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE parts_2 PARTITION OF parts DEFAULT; \
        INSERT INTO parts VALUES (1, 'on', 'a'), (20, 'off', 'b')");
    cluster.sql(
        "prod",
        "SELECT fork_create('prod', 'g'); CREATE SCHEMA elsewhere; CREATE ROLE keeper",
    );
    let still = |what: &str| assert_eq!(cluster.sql("prod", EXTENSION), "1", "{what}");
    let mount = "SELECT fork_mount('g', into_schema => 'm', tables => '{parts}')";
    cluster.sql("prod", mount);
    cluster.expect_error("prod", "DROP TABLE m.parts_1", "2BP01");
    cluster.sql("prod", "DROP TABLE m.parts_1 CASCADE");
    assert_eq!(cluster.sql("prod", "SELECT to_regclass('m.parts')"), "");
    still("a partition");
    cluster.sql("prod", "SELECT fork_unmount('m')");
    cluster.sql(
        "prod",
        &format!(
            "{mount}; ALTER TABLE m.parts_2 SET SCHEMA elsewhere; DROP SCHEMA elsewhere CASCADE"
        ),
    );
    still("a schema");
    cluster.sql("prod", &format!("SELECT fork_unmount('m'); {mount}; ALTER TABLE m.parts_2 OWNER TO keeper; DROP OWNED BY keeper CASCADE"));
    still("an owner");
    cluster.sql("prod", &format!("SELECT fork_unmount('m'); {mount}; CREATE VIEW own AS SELECT * FROM m.parts; DROP VIEW m.parts CASCADE"));
    assert_eq!(cluster.sql("prod", "SELECT to_regclass('own')"), "");
    still("a view");
    // The types of columns: the mounted tables lose these columns.
    cluster.sql("prod", &format!("SELECT fork_unmount('m'); {mount}; DROP TYPE state CASCADE; DROP COLLATION plain_c CASCADE"));
    still("a type");
    assert_eq!(cluster.sql("prod", "SELECT count(*) FROM m.parts_1"), "1");
    assert_eq!(
        cluster.sql("prod", "SELECT id FROM m.parts ORDER BY id"),
        "1\n20"
    );
    cluster.sql(
        "prod",
        "SELECT fork_unmount('m'); DROP EXTENSION pg_fork CASCADE",
    );
    assert_eq!(
        cluster.sql(
            "prod",
            "SELECT count(*) FROM pg_namespace WHERE nspname IN ('m', 'fork_internal')"
        ),
        "0"
    );
}

/// SELECT on the partitioned table is what reads it, and its partitions with it, as in its own database.
#[test]
fn rights_are_those_on_the_partitioned_table() {
    let cluster = prod();
    cluster.sql(
        "postgres",
        "CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN; GRANT CREATE ON DATABASE prod TO ann, bob",
    );
    cluster.sql("f", "GRANT SELECT ON sales TO ann; GRANT SELECT ON sales_1, sales_2, sales_3_a, sales_3_b TO bob; \
        CREATE TABLE veiled (id int, v text) PARTITION BY RANGE (id); CREATE TABLE veiled_1 PARTITION OF veiled DEFAULT; \
        ALTER TABLE veiled ENABLE ROW LEVEL SECURITY; GRANT SELECT ON veiled, veiled_1 TO ann, bob; \
        CREATE TABLE inside (id int) PARTITION BY RANGE (id); CREATE TABLE inside_1 PARTITION OF inside DEFAULT; \
        ALTER TABLE inside_1 ENABLE ROW LEVEL SECURITY; GRANT SELECT ON inside TO ann");
    let mut ann = cluster.client_as("ann", "prod");
    ann.batch_execute("SELECT fork_mount('f', into_schema => 'a')")
        .expect("mounted");
    let names = |schema: &str| {
        let sql = format!("SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind IN ('r', 'v')");
        cluster.sql("prod", &sql)
    };
    // Through the parent, whose rows her policies do not hide.
    assert_eq!(
        names("a"),
        "inside,inside_1,sales,sales_1,sales_2,sales_3,sales_3_a,sales_3_b,veiled_1"
    );
    assert_eq!(state(&mut ann, "SELECT count(*) FROM a.sales; SELECT count(*) FROM a.sales_2; SELECT count(*) FROM a.inside"), "");
    let mut bob = cluster.client_as("bob", "prod");
    bob.batch_execute("SELECT fork_mount('f', into_schema => 'b')")
        .expect("mounted");
    assert_eq!(names("b"), "sales_1,sales_2,sales_3_a,sales_3_b,veiled_1");
    assert_eq!(
        state(
            &mut bob,
            "SELECT fork_mount('f', into_schema => 'c', tables => '{sales}')"
        ),
        "42501"
    );
    // Nobody else reads it, but by a grant of hers.
    assert_eq!(state(&mut bob, "SELECT * FROM a.sales"), "42501");
    ann.batch_execute("GRANT USAGE ON SCHEMA a TO bob; GRANT SELECT ON a.sales TO bob")
        .expect("granted");
    assert_eq!(state(&mut bob, "SELECT count(*) FROM a.sales"), "");
    assert_eq!(state(&mut bob, "SELECT count(*) FROM a.sales_1"), "42501");
    // What is taken from her in the fork is taken here: from the parent alone too.
    cluster.sql("f", "GRANT SELECT ON sales_1, sales_2, sales_3_a, sales_3_b TO ann; REVOKE SELECT ON sales FROM ann");
    for client in [&mut ann, &mut bob] {
        assert_eq!(state(client, "SELECT count(*) FROM a.sales"), "42501");
    }
    assert_eq!(state(&mut ann, "SELECT count(*) FROM a.sales_1"), "");
    assert_eq!(cluster.sql("prod", "SELECT count(*) FROM pg_class WHERE relnamespace = 'a'::regnamespace AND relacl IS NOT NULL"), "1");
}

#[test]
fn partitions_that_come_and_go_are_told() {
    let cluster = prod();
    cluster.sql(
        "prod",
        "SELECT fork_mount('f'); SELECT fork_mount('f', 'cut')",
    );
    let before = cluster.sql("prod", &rows("f_cut.sales"));
    cluster.sql(
        "f",
        "CREATE TABLE sales_4 PARTITION OF sales FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
    );
    cluster.expect_error("prod", "SELECT * FROM f.sales", "42804");
    cluster.sql("f", "DROP TABLE sales_4");
    assert_eq!(
        cluster.sql("prod", &rows("f.sales")),
        cluster.sql("f", &rows("sales"))
    );
    cluster.sql("f", "ALTER TABLE sales DETACH PARTITION sales_2");
    cluster.expect_error("prod", "SELECT * FROM f.sales", "42804");
    assert_eq!(
        cluster.sql("prod", &rows("f.sales_2")),
        cluster.sql("f", &rows("sales_2"))
    );
    cluster.sql("f", "DROP TABLE sales");
    cluster.expect_error("prod", "SELECT * FROM f.sales", "42P01");
    assert_eq!(cluster.sql("prod", &rows("f_cut.sales")), before);
    // One that cannot be mounted: a foreign table's rows lie elsewhere.
    cluster.sql("f", "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; \
        CREATE TABLE mixed (id int) PARTITION BY RANGE (id); CREATE TABLE mixed_1 PARTITION OF mixed DEFAULT; \
        CREATE FOREIGN TABLE mixed_2 PARTITION OF mixed FOR VALUES FROM (1) TO (2) SERVER files OPTIONS (filename '/dev/null')");
    let out = cluster.script("prod", "SELECT fork_mount('f', into_schema => 'again');");
    let warned = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        warned.contains("WARNING:  0A000: a partition of table \"public.mixed\" cannot be mounted"),
        "{warned}"
    );
    assert_eq!(
        cluster.sql(
            "prod",
            "SELECT to_regclass('again.mixed'), to_regclass('again.mixed_1')"
        ),
        "|again.mixed_1"
    );
    cluster.expect_error(
        "prod",
        "SELECT fork_mount('f', into_schema => 'third', tables => '{mixed}')",
        "0A000",
    );
}

/// A tree of so many partitions does not exhaust the stack.
#[test]
fn a_thousand_partitions() {
    let cluster = prod();
    cluster.sql("f", "CREATE TABLE wide (id int, v text) PARTITION BY RANGE (id); \
        DO $$ BEGIN FOR n IN 0..999 LOOP EXECUTE format('CREATE TABLE wide_%s PARTITION OF wide FOR VALUES FROM (%s) TO (%s)', n, n, n + 1);\nEND LOOP;\nEND $$; \
        INSERT INTO wide SELECT n, 'v' || n FROM generate_series(0, 999) n");
    cluster.sql("prod", "SELECT fork_mount('f', tables => '{wide}')");
    assert_eq!(
        cluster.sql(
            "prod",
            "SET max_stack_depth = '500kB'; SELECT count(*), sum(id), max(v) FROM f.wide"
        ),
        "1000|499500|v999"
    );
    cluster.sql("prod", "SELECT fork_unmount('f')");
}

/// The server's own error for a statement that means no mounted view.
#[test]
fn a_temporary_view_in_a_schema_is_told_by_the_server() {
    let cluster = Cluster::new("");
    let sql = "CREATE SCHEMA s CREATE TEMP VIEW v AS SELECT 1";
    let error = cluster.expect_error("postgres", sql, "42P16");
    assert!(error.contains("non-temporary schema"), "{error}");
    cluster.sql("postgres", "CREATE TEMP VIEW v AS SELECT 1");
}
