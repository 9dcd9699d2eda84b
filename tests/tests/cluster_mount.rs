//! Mounted tables: what they show, and what they refuse.

use pg_fork_tests::Cluster;

const TYPES: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); \
    CREATE TYPE pair AS (a int, b text); \
    CREATE DOMAIN posint AS int CHECK (VALUE > 0); \
    CREATE TYPE span AS RANGE (subtype = int4); \
    CREATE TABLE plain (id int PRIMARY KEY, v text); \
    INSERT INTO plain SELECT i, 'v' || i FROM generate_series(1, 3000) i; \
    CREATE TABLE toasted (id int, compressed text, external text, main text, n int); \
    ALTER TABLE toasted ALTER external SET STORAGE external; \
    ALTER TABLE toasted ALTER main SET STORAGE main; \
    INSERT INTO toasted SELECT i, repeat('abc' || i, 9000), (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 300) j), repeat(md5(i::text), 20), i FROM generate_series(1, 30) i; \
    CREATE TABLE kinds (m mood, p pair, d posint, r span, a int[], t text[], j jsonb, n numeric, ts timestamptz, u uuid, b bytea, c char(9), e mood[], pp pair[], i inet, tv tsvector); \
    INSERT INTO kinds SELECT (ARRAY['sad','ok','happy'])[1 + i % 3]::mood, (i, 'p' || i)::pair, i, span(i, i + 5), ARRAY[i, NULL, i + 1], CASE WHEN i % 5 = 0 THEN (SELECT array_agg(md5(j::text)) FROM generate_series(1, 400) j) END, jsonb_build_object('k', repeat('x' || i, i * 300)), i / 7.0, '2020-01-01'::timestamptz + i * '1 hour'::interval, md5(i::text)::uuid, decode(md5(i::text), 'hex'), 'c' || i, ARRAY['sad', 'happy']::mood[], ARRAY[(i, NULL)::pair], '10.0.0.1', to_tsvector('simple', 'a b c ' || i) FROM generate_series(1, 40) i; \
    CREATE TABLE made (a int, b int GENERATED ALWAYS AS (a * 2) STORED, gone text, c text); \
    INSERT INTO made (a, gone, c) SELECT i, 'gone', 'c' || i FROM generate_series(1, 10) i; \
    ALTER TABLE made DROP COLUMN gone; \
    ALTER TABLE made ADD COLUMN d text DEFAULT 'added', ADD COLUMN e pair DEFAULT (1, 'x'), ADD COLUMN f int[] DEFAULT '{1,2}'; \
    INSERT INTO made (a, c, d) VALUES (11, 'c11', NULL); \
    CREATE TABLE parts (k int, v text) PARTITION BY RANGE (k); \
    CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10); \
    CREATE TABLE part_2 PARTITION OF parts FOR VALUES FROM (10) TO (20); \
    INSERT INTO parts SELECT i, 'p' || i FROM generate_series(0, 19) i; \
    CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS n, sum(id) FROM plain; \
    CREATE TABLE empty (a int, b text); \
    CREATE TABLE no_columns (); \
    INSERT INTO no_columns DEFAULT VALUES; \
    CREATE UNLOGGED TABLE unlogged (a int); \
    INSERT INTO unlogged SELECT generate_series(1, 50); \
    CREATE SCHEMA other; \
    CREATE TABLE other.plain (x int); \
    INSERT INTO other.plain VALUES (77); \
    CREATE TABLE \"Odd \"\"name\" (\"a b\" int, \"select\" text); \
    INSERT INTO \"Odd \"\"name\" VALUES (1, 'x')";

/// Each table, as the fork and as the mounted schema name it.
const TABLES: &[(&str, &str)] = &[
    ("public.plain", "\"public.plain\""),
    ("other.plain", "\"other.plain\""),
    ("toasted", "toasted"),
    ("kinds", "kinds"),
    ("made", "made"),
    ("part_1", "part_1"),
    ("part_2", "part_2"),
    ("mv", "mv"),
    ("empty", "empty"),
    ("no_columns", "no_columns"),
    ("unlogged", "unlogged"),
    ("\"Odd \"\"name\"", "\"Odd \"\"name\""),
];

fn prod(settings: &str) -> Cluster {
    let cluster = Cluster::new(settings);
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql("prod", "CREATE EXTENSION pg_fork");
    cluster.sql("prod", TYPES);
    cluster
}

/// Rows, counted and as text, in the order of their text.
fn all(table: &str) -> String {
    format!("SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\")) FROM {table} t")
}

fn same(cluster: &Cluster, there: &str, here: &str, schema: &str) {
    for (table, mounted) in TABLES {
        let shown = cluster.sql(here, &all(&format!("{schema}.{mounted}")));
        assert_eq!(
            cluster.sql(there, &all(table)),
            shown,
            "{table} of {there} in {schema}"
        );
    }
}

#[test]
fn a_mounted_table_shows_what_the_fork_shows() {
    let cluster = prod("autovacuum = off");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    assert_eq!(cluster.sql("prod", "SELECT fork_mount('f')"), "f");
    assert_eq!(
        cluster.sql("prod", "SELECT fork_mount('f', 'cut')"),
        "f_cut"
    );
    same(&cluster, "f", "prod", "f");
    same(&cluster, "f", "prod", "f_cut");
    // The source from inside the fork, the fork's own base, and a fork of a fork from all of them.
    cluster.sql(
        "f",
        "SELECT fork_mount('prod'); SELECT fork_mount('f', 'cut'); SELECT fork_create('f', 'g')",
    );
    same(&cluster, "prod", "f", "prod");
    same(&cluster, "f", "f", "f_cut");
    cluster.sql("prod", "SELECT fork_mount('g')");
    same(&cluster, "g", "prod", "g");

    // The fork goes its own way; its base, the source and the fork of the fork stay.
    cluster.sql(
        "f",
        "UPDATE plain SET v = v || '!' WHERE id % 3 = 0; DELETE FROM plain WHERE id > 2500; VACUUM plain; \
         UPDATE toasted SET compressed = compressed || 'x', external = reverse(external) WHERE id < 10; \
         VACUUM FULL toasted; TRUNCATE kinds; INSERT INTO made (a, c) VALUES (12, 'new'); VACUUM FULL made; \
         DELETE FROM parts WHERE k % 2 = 0; REFRESH MATERIALIZED VIEW mv; INSERT INTO empty VALUES (1, 'x'); \
         UPDATE unlogged SET a = -a; INSERT INTO no_columns DEFAULT VALUES",
    );
    same(&cluster, "f", "prod", "f");
    same(&cluster, "prod", "prod", "f_cut");
    same(&cluster, "prod", "f", "f_cut");
    same(&cluster, "prod", "f", "prod");
    same(&cluster, "g", "prod", "g");
    same(&cluster, "prod", "prod", "g");
    cluster.sql("f", "DROP TABLE plain CASCADE; DROP TABLE empty");
    let gone = cluster.expect_error("prod", "SELECT * FROM f.\"public.plain\"", "42P01");
    assert!(
        gone.contains("does not exist in the fork any more"),
        "{gone}"
    );
    cluster.sql("prod", "DROP TABLE f.\"public.plain\"");
    assert_eq!(
        cluster.sql("prod", "SELECT count(*) FROM f_cut.\"public.plain\""),
        "3000"
    );
    cluster.sql(
        "prod",
        "SELECT fork_unmount('f'); SELECT fork_unmount('f_cut'); SELECT fork_unmount('g')",
    );
    assert_eq!(cluster.sql("prod", "SELECT count(*) FROM pg_class WHERE relam = (SELECT oid FROM pg_am WHERE amname = 'fork')"), "0");
    for db in ["f", "g"] {
        assert_eq!(
            cluster.sql("prod", &format!("SELECT * FROM fork_check('{db}')")),
            ""
        );
    }
}

#[test]
fn every_kind_of_scan_and_statement() {
    let cluster = prod("autovacuum = off");
    cluster.sql("prod", "SELECT fork_create('prod', 'f'); SELECT fork_mount('f'); CREATE TABLE local (id int PRIMARY KEY, v text)");
    cluster.sql("f", "UPDATE plain SET v = 'F' || id WHERE id <= 100; DELETE FROM plain WHERE id BETWEEN 101 AND 200");
    let p = "f.\"public.plain\"";
    let check = |sql: &str, expected: &str| {
        let sql = sql.replace("@", p);
        assert_eq!(cluster.sql("prod", &sql), expected, "{sql}");
    };
    check(
        "SELECT count(*), count(DISTINCT v), min(id), max(id) FROM @",
        "2900|2900|1|3000",
    );
    check(
        "SELECT id, v FROM @ WHERE ctid = (SELECT ctid FROM @ WHERE id = 7)",
        "7|F7",
    );
    check(
        "SELECT count(*) FROM @ a JOIN @ b ON a.ctid = b.ctid",
        "2900",
    );
    check("SELECT count(*) FROM @ WHERE ctid = '(99999,1)'", "0");
    check("SELECT count(*) FROM @ TABLESAMPLE SYSTEM (100)", "2900");
    check("SELECT count(*) FROM @ TABLESAMPLE BERNOULLI (100)", "2900");
    check(
        "SELECT count(*) FROM @ a FULL JOIN public.plain b USING (id, v)",
        "3100",
    );
    check(
        "SELECT count(*) FROM (SELECT * FROM public.plain EXCEPT SELECT * FROM @) d",
        "200",
    );
    check(
        "SELECT count(*) FROM @ a WHERE NOT EXISTS (SELECT FROM public.plain b WHERE b.id = a.id)",
        "0",
    );
    check(
        "SELECT tableoid::regclass FROM @ LIMIT 1",
        "f.\"public.plain\"",
    );
    check("SELECT m FROM @ m WHERE id = 5", "(5,F5)");
    check(
        "SELECT row_to_json(m) FROM f.made m WHERE a = 3",
        "{\"a\":3,\"b\":6,\"c\":\"c3\",\"d\":\"added\",\"e\":{\"a\":1,\"b\":\"x\"},\"f\":[1,2]}",
    );
    // Sorted, hashed, materialized and held TOASTed values.
    for (set, sql) in [
        ("SET work_mem = '64kB'", "SELECT md5(string_agg(md5(compressed || external), '' ORDER BY external)) FROM @"),
        ("SET enable_hashagg = on", "SELECT md5(string_agg(md5(external), '' ORDER BY n)) FROM (SELECT external, max(n) AS n FROM @ GROUP BY external) g"),
        ("SET enable_hashjoin = off", "SELECT count(*), md5(string_agg(md5(a.external), '' ORDER BY a.n)) FROM @ a JOIN @ b ON a.external = b.external"),
        ("SET enable_mergejoin = off", "SELECT count(*), md5(string_agg(md5(a.external), '' ORDER BY a.n)) FROM @ a JOIN @ b ON a.compressed = b.compressed"),
        ("SET enable_nestloop = on", "SELECT md5(string_agg(md5(x::text), '' ORDER BY (x).n)) FROM (SELECT m AS x FROM @ m OFFSET 0) s"),
        ("SET jit = off", "SELECT sum(n), sum(length(main)), max(octet_length(external)), md5(max(compressed)), min(substr(external, 5, 9)) FROM @"),
        ("SET jit_above_cost = 0", "SELECT sum(n), sum(length(main)), max(octet_length(external)), md5(max(compressed)) FROM @"),
        ("SET jit = off", "SELECT md5(string_agg(v, '' ORDER BY n)) FROM (SELECT n, first_value(external) OVER (ORDER BY n ROWS 3 PRECEDING) AS v FROM @) w"),
    ] {
        let mounted = cluster.sql("prod", &format!("{set}; {}", sql.replace('@', "f.toasted")));
        let own = cluster.sql("f", &format!("{set}; {}", sql.replace('@', "toasted")));
        assert_eq!(own, mounted, "{sql}");
    }
    // Parallel.
    let parallel = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; \
                    SET max_parallel_workers_per_gather = 3; ";
    let plan = cluster.sql(
        "prod",
        &format!("{parallel}EXPLAIN (ANALYZE, COSTS off, TIMING off) SELECT sum(id) FROM {p}"),
    );
    assert!(
        plan.contains("Parallel Seq Scan") && plan.contains("Workers Launched"),
        "{plan}"
    );
    assert_eq!(
        cluster.sql(
            "prod",
            &format!("{parallel}SELECT count(*), sum(id), count(DISTINCT v) FROM {p}")
        ),
        cluster.sql(
            "f",
            "SELECT count(*), sum(id), count(DISTINCT v) FROM plain"
        )
    );
    assert_eq!(
        cluster.sql(
            "prod",
            &format!("{parallel}SELECT md5(string_agg(external, '' ORDER BY n)) FROM f.toasted")
        ),
        cluster.sql(
            "f",
            "SELECT md5(string_agg(external, '' ORDER BY n)) FROM toasted"
        )
    );

    // Into tables of this database, and rows of them by mounted ones.
    cluster.sql("prod", &format!("INSERT INTO local SELECT * FROM {p}; CREATE TABLE copy AS SELECT * FROM f.toasted; \
        CREATE TABLE kinds_copy AS SELECT * FROM f.kinds; UPDATE local SET v = m.v || '?' FROM {p} m WHERE m.id = local.id AND m.id < 10; \
        DELETE FROM local USING {p} m WHERE m.id = local.id AND m.id > 2990; \
        MERGE INTO local USING {p} m ON m.id = local.id WHEN MATCHED AND m.id = 50 THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (m.id, 'merged')"));
    assert_eq!(cluster.sql("prod", "SELECT count(*), count(*) FILTER (WHERE v LIKE '%?'), count(*) FILTER (WHERE v = 'merged') FROM local"), "2899|9|10");
    assert_eq!(
        cluster.sql("prod", &all("copy")),
        cluster.sql("f", &all("toasted"))
    );
    assert_eq!(
        cluster.sql("prod", &all("kinds_copy")),
        cluster.sql("f", &all("kinds"))
    );
    assert_eq!(
        cluster.sql("prod", "COPY f.kinds TO STDOUT"),
        cluster.sql("f", "COPY kinds TO STDOUT")
    );
    assert_eq!(
        cluster.sql(
            "prod",
            "COPY (SELECT * FROM f.toasted ORDER BY id) TO STDOUT"
        ),
        cluster.sql("f", "COPY toasted TO STDOUT")
    );

    // Estimates.
    cluster.sql("f", "ANALYZE plain");
    let plan = cluster.sql("prod", &format!("EXPLAIN SELECT * FROM {p}"));
    assert!(plan.contains("rows=2900"), "{plan}");
    cluster.sql("prod", "ANALYZE f.toasted; ANALYZE f.kinds; ANALYZE");
    assert_eq!(
        cluster.sql(
            "prod",
            "SELECT count(*) > 10 FROM pg_stats WHERE schemaname = 'f' AND tablename = 'kinds'"
        ),
        "t"
    );
    let plan = cluster.sql("prod", "EXPLAIN SELECT * FROM f.kinds WHERE m = 'sad'");
    assert!(plan.contains("rows=13"), "{plan}");

    // A session's state: cursors both ways, prepared statements, loops with exception blocks.
    let out = cluster.script("prod", &format!(
        "BEGIN;
         DECLARE c SCROLL CURSOR FOR SELECT id FROM {p} WHERE id < 500;
         MOVE FORWARD ALL IN c; FETCH PRIOR FROM c; FETCH PRIOR FROM c; MOVE BACKWARD ALL IN c; FETCH NEXT FROM c; FETCH ABSOLUTE 300 FROM c; FETCH RELATIVE -299 FROM c; FETCH LAST FROM c;
         SAVEPOINT s; SELECT count(*) FROM f.toasted; SELECT 1/0; ROLLBACK TO s; FETCH FIRST FROM c; SELECT count(*) FROM f.toasted;
         DECLARE h CURSOR WITH HOLD FOR SELECT id, length(external) FROM f.toasted ORDER BY id;
         COMMIT;
         FETCH 2 FROM h;
         PREPARE q(int) AS SELECT v FROM {p} WHERE id = $1;
         EXECUTE q(1); EXECUTE q(2); EXECUTE q(3); EXECUTE q(4); EXECUTE q(5); EXECUTE q(6); EXECUTE q(7);
         DO $$ DECLARE r record; n int := 0; bad int := 0; BEGIN
           FOR r IN SELECT * FROM f.toasted LOOP
             BEGIN n := n + length(r.external); IF r.id % 2 = 0 THEN PERFORM count(*) FROM f.kinds; PERFORM 1 / (r.id - r.id); END IF;
             EXCEPTION WHEN division_by_zero THEN bad := bad + 1; END;
           END LOOP; RAISE NOTICE 'n % bad %', n, bad; END $$;
         SELECT currtid2('f.toasted', '(0,1)') IS NOT NULL;
        "));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(text.contains("n 288000 bad 15"), "{text}");
    assert_eq!(text.matches("ERROR").count(), 1, "{text}");
    let expected = cluster.script("f",
        "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;
         BEGIN; DECLARE c SCROLL CURSOR FOR SELECT id FROM plain WHERE id < 500;
         MOVE FORWARD ALL IN c; FETCH PRIOR FROM c; FETCH PRIOR FROM c; MOVE BACKWARD ALL IN c; FETCH NEXT FROM c; FETCH ABSOLUTE 300 FROM c; FETCH RELATIVE -299 FROM c; FETCH LAST FROM c;");
    let expected = String::from_utf8_lossy(&expected.stdout).into_owned();
    assert!(
        text.starts_with(&expected) && expected.lines().count() == 6,
        "{expected}: {text}"
    );
}

#[test]
fn nothing_changes_a_mounted_table() {
    let cluster = prod("autovacuum = off\nmax_prepared_transactions = 5");
    cluster.sql("prod", "SELECT fork_create('prod', 'f'); SELECT fork_mount('f'); CREATE TABLE local (id int, v text)");
    let p = "f.\"public.plain\"";
    for sql in [
        "INSERT INTO @ VALUES (1, 'x')",
        "INSERT INTO @ VALUES (1, 'x') ON CONFLICT DO NOTHING",
        "UPDATE @ SET v = 'x'",
        "UPDATE @ SET v = 'x' WHERE false",
        "DELETE FROM @",
        "DELETE FROM @ WHERE id = -1",
        "MERGE INTO @ USING local ON true WHEN MATCHED THEN DELETE",
        "SELECT * FROM @ FOR UPDATE",
        "SELECT * FROM @ WHERE id = -1 FOR KEY SHARE",
        "COPY @ FROM '/dev/null'",
    ] {
        let error = cluster.expect_error("prod", &sql.replace('@', p), "25006");
        assert!(error.contains("HINT"), "{error}");
    }
    for sql in [
        "CREATE INDEX ON @ (id)",
        "CREATE INDEX CONCURRENTLY ON @ (id)",
        "ALTER TABLE @ ADD COLUMN x int",
        "ALTER TABLE @ DROP COLUMN v",
        "ALTER TABLE @ ALTER v TYPE varchar",
        "ALTER TABLE @ ADD PRIMARY KEY (id)",
        "ALTER TABLE @ ADD CHECK (id > 0)",
        "ALTER TABLE @ SET TABLESPACE pg_default",
        "ALTER TABLE @ SET ACCESS METHOD heap",
        "ALTER TABLE @ SET UNLOGGED",
        "ALTER TABLE @ ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE @ REPLICA IDENTITY FULL",
        "ALTER TABLE @ INHERIT local",
        "ALTER TABLE local INHERIT @",
        "CREATE TABLE child () INHERITS (@)",
        "CREATE TRIGGER t BEFORE INSERT ON @ EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE RULE \"_RETURN\" AS ON SELECT TO @ DO INSTEAD SELECT * FROM local",
        "CREATE POLICY p ON @",
        "TRUNCATE @",
        "CREATE TABLE x (a int) USING fork",
        "CREATE TABLE x USING fork AS SELECT 1",
        "CREATE MATERIALIZED VIEW x USING fork AS SELECT 1",
        "CREATE TEMP TABLE x (a int) USING fork",
        "ALTER TABLE local SET ACCESS METHOD fork",
        "CLUSTER @",
    ] {
        let sql = sql.replace('@', p);
        let error = cluster.error("prod", &sql);
        let refused = error.contains(" 0A000: ")
            || (sql.starts_with("CLUSTER") && error.contains(" 42704: "));
        assert!(refused, "{sql}: {error}");
    }
    cluster.sql(
        "prod",
        "CREATE TABLE parts2 (id int, v text) PARTITION BY RANGE (id)",
    );
    cluster.expect_error(
        "prod",
        &format!("ALTER TABLE parts2 ATTACH PARTITION {p} DEFAULT"),
        "0A000",
    );
    cluster.expect_error(
        "prod",
        "SECURITY LABEL FOR pg_fork ON TABLE f.made IS '1 now 1'",
        "22023",
    );
    let out = cluster.script(
        "prod",
        &format!("BEGIN; SELECT count(*) FROM {p}; PREPARE TRANSACTION 'x';"),
    );
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("0A000"),
        "{out:?}"
    );
    assert_eq!(
        cluster.sql("prod", &all(p)),
        cluster.sql("f", &all("plain"))
    );
    cluster.sql("prod", "SELECT fork_drop('f', force => false)");
}

#[test]
fn tools_pass_over_mounted_tables() {
    let cluster = prod("autovacuum_naptime = 1s");
    cluster.sql(
        "prod",
        "CREATE TABLE own (id int PRIMARY KEY); INSERT INTO own SELECT generate_series(1, 100); \
        SELECT fork_create('prod', 'f'); SELECT fork_mount('f'); SELECT fork_mount('f', 'cut')",
    );
    let dump = cluster.must("pg_dump", &["-d", "prod"]);
    assert!(
        dump.contains("CREATE TABLE public.own")
            && !dump.contains("f_cut")
            && !dump.contains("SCHEMA f"),
        "{dump}"
    );
    let size = "SELECT sum(pg_relation_size(oid) + pg_table_size(oid) + pg_total_relation_size(oid) + pg_indexes_size(oid)) \
                FROM pg_class WHERE relnamespace = 'f'::regnamespace";
    assert_eq!(cluster.sql("prod", size), "0");
    cluster.sql("prod", "VACUUM; VACUUM ANALYZE; VACUUM FREEZE; VACUUM FULL; VACUUM FULL f.made, own; VACUUM FULL f.made; CHECKPOINT");
    cluster.must("vacuumdb", &["-d", "prod", "--analyze"]);
    cluster.must("vacuumdb", &["-d", "prod", "--full"]);
    cluster.must("vacuumdb", &["-d", "prod", "--freeze", "-j", "2"]);
    cluster.must("reindexdb", &["-d", "prod"]);
    cluster.sql(
        "prod",
        "REINDEX SCHEMA f; REINDEX TABLE f.made; CLUSTER; GRANT SELECT ON f.made TO PUBLIC; \
        COMMENT ON TABLE f.made IS 'x'; CREATE STATISTICS s ON a, b FROM f.made; ANALYZE f.made",
    );
    cluster.amcheck("prod");
    // A full copy has them too; a fork of it as well.
    cluster.sql("prod", "SELECT fork_create('prod', 'g')");
    assert_eq!(cluster.sql("g", "SELECT count(*) FROM f.toasted"), "30");
    assert_eq!(cluster.sql("prod", "SELECT * FROM fork_check('g')"), "");
    cluster.sql(
        "postgres",
        "CREATE DATABASE copy TEMPLATE prod STRATEGY wal_log",
    );
    assert_eq!(cluster.sql("copy", "SELECT count(*) FROM f.toasted"), "30");
    cluster.sql(
        "postgres",
        "DROP DATABASE copy; CREATE DATABASE copy TEMPLATE prod STRATEGY file_copy",
    );
    assert_eq!(cluster.sql("copy", "SELECT count(*) FROM f.toasted"), "30");

    // Renamed, moved, given away, dropped.
    cluster.sql("prod", "CREATE SCHEMA mine; ALTER TABLE f.made SET SCHEMA mine; ALTER TABLE mine.made RENAME TO made2; \
        ALTER SCHEMA f_cut RENAME TO before");
    assert_eq!(cluster.sql("prod", "SELECT count(*) FROM mine.made2"), "11");
    cluster.sql("prod", "DROP SCHEMA mine CASCADE; DROP TABLE f.toasted, f.kinds; DROP SCHEMA f CASCADE; SELECT fork_unmount('before')");
    cluster.expect_error("prod", "SELECT fork_unmount('public')", "42809");
    cluster.expect_error("prod", "SELECT fork_unmount('none')", "3F000");
    cluster.sql(
        "prod",
        "SELECT fork_mount('f', into_schema => 'again', tables => '{made,other.plain}')",
    );
    cluster.expect_error(
        "prod",
        "SELECT fork_mount('f', into_schema => 'again')",
        "42P06",
    );
    cluster.sql("copy", "DROP EXTENSION pg_fork");
    assert_eq!(
        cluster.sql(
            "copy",
            "SELECT count(*) FROM pg_namespace WHERE nspname IN ('f', 'f_cut')"
        ),
        "0"
    );
    // No file of the sources is left over, and none is missing.
    cluster.sql("prod", "SELECT fork_unmount('again'); VACUUM FULL");
}

#[test]
fn rights_are_those_in_the_fork() {
    let cluster = prod("autovacuum = off");
    cluster.sql(
        "prod",
        "CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE eve LOGIN; CREATE ROLE all_reader LOGIN; \
         GRANT pg_read_all_data TO all_reader; CREATE SCHEMA closed; CREATE TABLE closed.t (a int); \
         GRANT SELECT ON closed.t TO ann; CREATE TABLE secret (a int, hidden text, b text); \
         INSERT INTO secret SELECT i, repeat(md5(i::text), 500), 'b' || i FROM generate_series(1, 10) i; \
         ALTER TABLE secret ALTER hidden SET STORAGE external; UPDATE secret SET hidden = hidden || 'x'; \
         GRANT SELECT (a, b) ON secret TO ann; GRANT SELECT ON made, toasted TO ann; CREATE TABLE filtered (a int); \
         ALTER TABLE filtered ENABLE ROW LEVEL SECURITY; GRANT SELECT ON filtered TO ann; \
         GRANT CREATE ON DATABASE prod TO ann, all_reader; SELECT fork_create('prod', 'f'); \
         CREATE TABLE ann_own (v text); ALTER TABLE ann_own OWNER TO ann",
    );
    let mut ann = cluster.client_as("ann", "prod");
    let state = |error: postgres::Error| error.code().expect("an SQLSTATE").code().to_string();
    ann.batch_execute("SELECT fork_mount('f')")
        .expect("mounts what she may read");
    let names = "SELECT string_agg(relname, ',' ORDER BY relname COLLATE \"C\") FROM pg_class WHERE relnamespace = 'f'::regnamespace AND relkind = 'r'";
    assert_eq!(cluster.sql("prod", names), "made,secret,toasted");
    let row = ann.query_one("SELECT count(*), count(m::text), max(m::text), string_agg(b, ',' ORDER BY a) FROM f.secret m", &[]).expect("reads");
    assert_eq!(row.get::<_, i64>(0), 10);
    assert_eq!(row.get::<_, String>(2), "(9,b9)");
    assert_eq!(row.get::<_, String>(3), "b1,b2,b3,b4,b5,b6,b7,b8,b9,b10");
    let hidden = ann.query("SELECT hidden FROM f.secret", &[]);
    assert_eq!(state(hidden.expect_err("no such column")), "42703");
    // Nor does it come with a row that is stored.
    ann.batch_execute("CREATE SCHEMA ann; CREATE TABLE ann.copy AS SELECT m FROM f.secret m; CREATE TABLE ann.sorted AS SELECT * FROM f.secret ORDER BY b").expect("copies");
    assert_eq!(
        cluster.sql(
            "prod",
            "SELECT max(pg_column_size(m)) < 100, pg_relation_size('ann.copy') FROM ann.copy"
        ),
        "t|8192"
    );
    for (tables, code) in [
        ("filtered", "42501"),
        ("closed.t", "42P01"),
        ("plain", "42501"),
        ("none", "42P01"),
    ] {
        let sql = format!("SELECT fork_mount('f', into_schema => 'x', tables => '{{{tables}}}')");
        assert_eq!(
            state(ann.batch_execute(&sql).expect_err("no right")),
            code,
            "{tables}"
        );
    }
    // Others need the right to the mounted table, which is the owner's to give, as for a view.
    let mut bob = cluster.client_as("bob", "prod");
    assert_eq!(
        state(
            bob.batch_execute("SELECT * FROM f.made")
                .expect_err("no right")
        ),
        "42501"
    );
    ann.batch_execute("GRANT USAGE ON SCHEMA f TO bob; GRANT SELECT ON f.made TO bob")
        .expect("grants");
    bob.batch_execute("SELECT * FROM f.made").expect("reads");
    assert_eq!(
        state(
            bob.batch_execute("SELECT fork_unmount('f')")
                .expect_err("not the owner")
        ),
        "42501"
    );
    assert_eq!(
        state(
            bob.batch_execute("DROP TABLE f.made")
                .expect_err("not the owner")
        ),
        "42501"
    );
    bob.batch_execute("SELECT * FROM f.made")
        .expect("is still there");
    // What the owner loses in the fork is lost here.
    cluster.sql("f", "REVOKE SELECT ON made FROM ann; REVOKE SELECT (b) ON secret FROM ann; ALTER TABLE toasted ENABLE ROW LEVEL SECURITY");
    for table in ["made", "secret", "toasted"] {
        let error = ann.batch_execute(&format!("SELECT count(*) FROM f.{table}"));
        assert_eq!(state(error.expect_err("revoked")), "42501", "{table}");
    }
    cluster.sql("prod", "ALTER TABLE f.made OWNER TO postgres");
    bob.batch_execute("SELECT * FROM f.made")
        .expect("the new owner reads it");
    cluster.sql("prod", "REVOKE CONNECT ON DATABASE f FROM PUBLIC");
    assert_eq!(
        state(
            ann.batch_execute("SELECT fork_mount('f', into_schema => 'x')")
                .expect_err("no CONNECT")
        ),
        "42501"
    );
    assert_eq!(
        state(
            ann.batch_execute("SELECT a FROM f.secret")
                .expect_err("no CONNECT")
        ),
        "42501"
    );
    cluster.sql("prod", "GRANT CONNECT ON DATABASE f TO PUBLIC");

    let mut reader = cluster.client_as("all_reader", "prod");
    reader
        .batch_execute(
            "SELECT fork_mount('f', into_schema => 'r'); SELECT * FROM r.secret; SELECT * FROM r.t",
        )
        .expect("reads all");
    let mut eve = cluster.client_as("eve", "prod");
    assert_eq!(
        state(
            eve.batch_execute("SELECT fork_mount('f')")
                .expect_err("no CREATE")
        ),
        "42501"
    );
    assert_eq!(
        state(
            eve.batch_execute("SELECT * FROM r.secret")
                .expect_err("no USAGE")
        ),
        "42501"
    );
    // Roles that own mounted tables can be cleared away.
    cluster.sql(
        "prod",
        "DROP TABLE f.made; DROP OWNED BY ann, all_reader; REVOKE ALL ON ALL TABLES IN SCHEMA public FROM ann",
    );
    assert_eq!(
        cluster.sql(
            "prod",
            "SELECT count(*) FROM pg_namespace WHERE nspname IN ('f', 'r', 'ann')"
        ),
        "0"
    );
}

/// A multirange depends on its range, that on its subtype, and that on its labels.
#[test]
fn what_a_multirange_is_of_counts() {
    let cluster = prod("autovacuum = off");
    cluster.sql(
        "prod",
        "CREATE TYPE step AS ENUM ('low', 'high'); CREATE TYPE steps AS RANGE (SUBTYPE = step, MULTIRANGE_TYPE_NAME = stairs); \
         CREATE TABLE spans (id int, s stairs, r steps); \
         INSERT INTO spans VALUES (1, '{[low,high]}', '[low,high]'); SELECT fork_create('prod', 'f')",
    );
    let mount = "SELECT fork_mount('f', tables => '{spans}')";
    cluster.sql("prod", mount);
    assert_eq!(
        cluster.sql("prod", "SELECT s, r FROM f.spans"),
        "{[low,high]}|[low,high]"
    );
    cluster.sql(
        "f",
        "ALTER TABLE spans DROP r; ALTER TYPE step RENAME VALUE 'low' TO 'deep'",
    );
    cluster.sql("prod", "SELECT fork_unmount('f')");
    let out = cluster.script("prod", &format!("{mount};"));
    let warned = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        warned.contains("WARNING:  42704") && warned.contains("\"s\""),
        "{warned}"
    );
    assert_eq!(cluster.sql("prod", "SELECT * FROM f.spans"), "1");
}

#[test]
fn types_that_differ_are_named() {
    let cluster = prod("autovacuum = off");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    cluster.sql(
        "f",
        "CREATE TYPE color AS ENUM ('red', 'blue'); CREATE TABLE colored (c color); \
         ALTER TABLE empty ADD COLUMN c color NOT NULL DEFAULT 'blue', ADD COLUMN d text DEFAULT 'last', ADD COLUMN e color[]; \
         INSERT INTO empty VALUES (1, 'one'); \
         CREATE TABLE later (a int, r plain); INSERT INTO later SELECT p.id, p FROM plain p LIMIT 3",
    );
    // Of a table what can be shown is shown; one with nothing to show is left out, or an error if it was named.
    let error = cluster.expect_error(
        "prod",
        "SELECT fork_mount('f', tables => '{colored}')",
        "42704",
    );
    assert!(
        error.contains("\"c\"") && error.contains("public.colored"),
        "{error}"
    );
    let out = cluster.script("prod", "SELECT fork_mount('f');");
    let warned = String::from_utf8_lossy(&out.stderr).into_owned();
    for told in [
        "WARNING:  42704: the type of column \"c\" of table \"public.colored\"",
        "column \"c\" of table \"public.empty\" is not a type of this database: column not shown",
        "column \"e\" of table \"public.empty\"",
    ] {
        assert!(warned.contains(told), "{told}: {warned}");
    }
    assert!(!warned.contains("ERROR"), "{warned}");
    assert_eq!(cluster.sql("prod", "SELECT * FROM f.empty"), "1|one|last");
    assert_eq!(
        cluster.sql("prod", "SELECT count(*) FROM f.later WHERE (r).id > 0"),
        "3"
    );
    assert_eq!(cluster.sql("prod", "SELECT to_regclass('f.colored')"), "");

    // Changes of the tables' form after they were mounted.
    let session = |sql: &str| cluster.sql("prod", sql);
    cluster.sql(
        "f",
        "ALTER TYPE mood ADD VALUE 'calm'; ALTER TABLE made ALTER c TYPE varchar(50); ALTER TABLE parts RENAME COLUMN v TO w; \
         ALTER TABLE toasted DROP COLUMN n; ALTER TABLE unlogged ADD COLUMN extra text DEFAULT 'secret', ADD COLUMN two text; \
         INSERT INTO unlogged SELECT i, repeat('z', 3000), 'two' FROM generate_series(51, 60) i; ALTER TABLE other.plain RENAME TO moved",
    );
    cluster.expect_error("prod", "SELECT * FROM f.kinds", "42804");
    cluster.expect_error("prod", "SELECT * FROM f.made", "42804");
    cluster.expect_error("prod", "SELECT * FROM f.toasted", "42804");
    assert_eq!(session("SELECT count(*), max(v) FROM f.part_1"), "10|p9");
    assert_eq!(session("SELECT x FROM f.\"other.plain\""), "77");
    // Columns that the fork added do not come along into a table of this database.
    session("CREATE TABLE local (a int); INSERT INTO local SELECT * FROM f.unlogged; ALTER TABLE local ADD COLUMN b text, ADD COLUMN c text");
    assert_eq!(
        session("SELECT count(*), count(b), count(c), pg_relation_size('local') FROM local"),
        "60|0|0|8192"
    );
    assert_eq!(session("SELECT m FROM f.unlogged m WHERE a = 60"), "(60)");
}

#[test]
fn forks_that_go_and_servers_that_stop() {
    let cluster = prod("autovacuum = off");
    cluster.sql(
        "prod",
        "SELECT fork_create('prod', 'f'); SELECT fork_mount('f'); SELECT fork_mount('f', 'cut')",
    );
    cluster.sql("f", "DELETE FROM made WHERE a > 5");
    let both = "SELECT (SELECT count(*) FROM f.made), (SELECT count(*) FROM f_cut.made)";
    assert_eq!(cluster.sql("prod", both), "5|11");
    cluster.stop("fast");
    cluster.start();
    assert_eq!(cluster.sql("prod", both), "5|11");
    cluster.sql("prod", "UPDATE made SET c = 'later'");
    cluster.stop("immediate");
    cluster.start();
    assert_eq!(cluster.sql("prod", both), "5|11");
    assert_eq!(
        cluster.sql("prod", "SELECT count(*) FROM f_cut.made WHERE c = 'later'"),
        "0"
    );

    // A reader in a transaction keeps the fork, unless force is used; it ends then.
    for table in ["f.made", "f_cut.made"] {
        let mut reader = cluster.client("prod");
        reader
            .batch_execute(&format!("BEGIN; SELECT count(*) FROM {table}"))
            .expect("reads");
        cluster.expect_error("prod", "SELECT fork_drop('f', force => false)", "55006");
        reader
            .batch_execute(&format!("SELECT count(*) FROM {table}; COMMIT"))
            .expect("reads on");
    }
    let mut reader = cluster.client("prod");
    reader
        .batch_execute("BEGIN; SELECT count(*) FROM f_cut.made")
        .expect("reads");
    cluster.sql("prod", "SELECT fork_drop('f', force => true)");
    let ended = reader.batch_execute("SELECT 1").expect_err("ended");
    assert!(
        ended.is_closed() || ended.code().is_some_and(|code| code.code() == "57P01"),
        "{ended:?}"
    );
    for table in ["f.made", "f_cut.made"] {
        cluster.expect_error("prod", &format!("SELECT * FROM {table}"), "3D000");
        cluster.expect_error("prod", &format!("EXPLAIN SELECT * FROM {table}"), "3D000");
    }
    cluster.must("vacuumdb", &["-d", "prod", "--full"]);
    cluster.sql(
        "prod",
        "VACUUM; DROP TABLE f.made; SELECT fork_unmount('f'); DROP SCHEMA f_cut CASCADE",
    );
    cluster.wait_for_folders(0);
}

/// VACUUM FULL writes a TOAST table's rows as its own, and REINDEX waits for who reads through the index.
#[test]
fn one_snapshot_outlives_a_rewrite_of_the_toast_table() {
    let cluster = prod("autovacuum = off");
    cluster.sql(
        "prod",
        "SELECT fork_create('prod', 'f'); SELECT fork_mount('f')",
    );
    let values =
        |table: &str| format!("SELECT md5(string_agg(external, '' ORDER BY n)) FROM {table}");
    let own = cluster.sql("f", &values("toasted"));
    let mut reader = cluster.client("prod");
    reader
        .batch_execute("SELECT count(*) FROM f.made")
        .expect("a first look");
    let begun =
        reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM f.made");
    begun.expect("a snapshot");
    cluster.sql("f", "VACUUM FULL toasted");
    let read = |reader: &mut postgres::Client| {
        let row = reader.query_one(&values("f.toasted"), &[]).expect("reads");
        row.get::<_, String>(0)
    };
    assert_eq!(read(&mut reader), own);
    let waits = "SET lock_timeout = '300ms'; ";
    let toast = cluster.sql(
        "f",
        "SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'toasted'",
    );
    for sql in ["REINDEX TABLE @", "VACUUM FULL @"] {
        let out = cluster.script("f", &format!("{waits}{};", sql.replace('@', &toast)));
        assert!(
            String::from_utf8_lossy(&out.stderr).contains("55P03"),
            "{sql}: {out:?}"
        );
    }
    assert_eq!(read(&mut reader), own);
    reader.batch_execute("COMMIT").expect("ends");
    cluster.sql("f", &format!("REINDEX TABLE {toast}"));
    assert_eq!(read(&mut reader), own);
}

/// A look at whether a table is a mounted one takes no lock: of two statements that had one each, neither
/// could have the stronger one that it needs.
#[test]
fn statements_that_wait_for_the_same_tables_do_not_deadlock() {
    let cluster = prod("deadlock_timeout = 100ms");
    cluster.sql("prod", "CREATE TABLE one (a int); CREATE TABLE two (a int)");
    let mut holder = cluster.client("prod");
    holder
        .batch_execute("BEGIN; LOCK TABLE two")
        .expect("locked");
    let drop = "DROP TABLE IF EXISTS one, two";
    let mut sessions = [(); 2].map(|()| {
        cluster.spawn(
            "psql",
            &["-Xq", "-v", "ON_ERROR_STOP=1", "-d", "prod", "-c", drop],
        )
    });
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'";
    while cluster.sql("prod", waiting) != "2" {
        for session in &mut sessions {
            assert_eq!(
                session.try_wait().expect("asked"),
                None,
                "{}",
                cluster.log_tail()
            );
        }
    }
    holder.batch_execute("COMMIT").expect("over");
    for mut session in sessions {
        assert!(
            session.wait().expect("ended").success(),
            "{}",
            cluster.log_tail()
        );
    }
}

/// What is not to be trusted as a fork is not to be trusted as it was at its cut, and keeps no disk.
#[test]
fn the_cut_of_an_invalid_fork_is_invalid_too() {
    let cluster = prod("pg_fork.min_free_disk = 0");
    cluster.sql(
        "prod",
        "SELECT fork_create('prod', 'f'); SELECT fork_mount('f', 'cut', 'before')",
    );
    cluster.sql("prod", "UPDATE plain SET v = 'later'; CHECKPOINT");
    let count = "SELECT count(*) FROM before.\"public.plain\" WHERE v <> 'later'";
    // Only the first block: what is in the buffers was read while the fork was good.
    let mut reader = cluster.client("prod");
    reader
        .batch_execute(
            "BEGIN; DECLARE c CURSOR FOR SELECT * FROM before.\"public.plain\"; FETCH 1 FROM c",
        )
        .expect("read");
    // The fork, its layer, its base.
    assert_eq!(cluster.folders(), 3);
    let floor = |value: &str| {
        let set = format!("ALTER SYSTEM SET pg_fork.min_free_disk = '{value}'");
        cluster.sql("postgres", &format!("{set}; SELECT pg_reload_conf()"));
    };
    floor("1000000000");
    while cluster.sql("postgres", "SELECT state FROM pg_forks") != "invalid" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    floor("0");
    let error = reader
        .batch_execute("FETCH ALL FROM c")
        .expect_err("an invalid fork");
    let state = error.code().expect("an SQLSTATE").code();
    assert_eq!(state, "55000", "{error:?}");
    drop(reader);
    cluster.expect_error("prod", count, "55000");
    // The layer is what nobody needs any more.
    cluster.wait_for_folders(2);
    cluster.sql("postgres", "SELECT fork_drop('f')");
    cluster.wait_for_folders(0);
}
