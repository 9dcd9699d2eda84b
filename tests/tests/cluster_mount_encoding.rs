//! Databases whose encoding is not that of the database they are looked at from.

use pg_fork_tests::Cluster;

fn database(cluster: &Cluster, name: &str, encoding: &str) {
    let sql = format!(
        "CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    );
    cluster.sql("postgres", &sql);
    cluster.sql(name, "CREATE EXTENSION pg_fork");
}

/// A session of psql's that speaks UTF-8.
fn utf8(sql: &str) -> String {
    format!("SET client_encoding = 'UTF8'; {sql}")
}

const TABLES: &str = "CREATE TABLE words (id int PRIMARY KEY, t text, v varchar(5), c char(6), n name, j json, b jsonb, x xml, \
        a text[], ja jsonb[], ts tsvector, p jsonpath, d numeric, y bytea); \
    INSERT INTO words VALUES (1, 'süß', 'äöüßé', 'ñ', 'größe', '{\"ä\": \"é\"}', '{\"z\": 1, \"ä\": [\"é\", {\"ü\": null}]}', '<a>ö</a>', \
        ARRAY['ä', NULL, 'b', 'ß'], ARRAY['\"é\"'::jsonb], '''caf\u{e9}'':3A,17 ''d''''\u{fc}'':2B ''plain'':1', '$.\"ä\" ? (@ == \"é\")', 1.5, '\\xe9'), \
        (2, repeat('é', 30000), 'a', 'b', 'c', '1', '1', '<b/>', '{}', '{}', '', '$', NULL, NULL); \
    CREATE DOMAIN word AS text; CREATE DOMAIN many AS text[]; CREATE TYPE mood AS ENUM ('süß', 'herb'); \
    CREATE TYPE pair AS (a int, b text); CREATE TYPE span AS RANGE (SUBTYPE = text); \
    CREATE TABLE kinds (id int, w word, m many, e mood, p pair, s span, q tsquery, i int4range); \
    INSERT INTO kinds VALUES (1, 'ö', ARRAY['ü'], 'süß', (1, 'ß'), '[a,é]', 'é', '[1,4)'); \
    CREATE TABLE \"größe\" (\"länge\" text, \"zwei\" int); INSERT INTO \"größe\" VALUES ('é', 1); \
    CREATE SCHEMA \"übung\"; CREATE TABLE \"übung\".\"größe\" (id int)";

const WORDS: &str = "SELECT id, md5(convert_to(t, 'UTF8')), v, c || '|', n, j, b, x, a, ja, ts, p, d, y, length(t), b ? 'ä' AS found FROM";

#[test]
fn text_is_converted() {
    let cluster = Cluster::new("autovacuum = off");
    database(&cluster, "latin", "LATIN1");
    database(&cluster, "uni", "UTF8");
    let out = |db: &str, sql: &str| cluster.sql(db, &utf8(sql));
    out("latin", TABLES);
    out("latin", "ALTER TABLE words ADD COLUMN late text DEFAULT 'später', ADD COLUMN lates text[] DEFAULT ARRAY['é', 'z']; SELECT fork_create('latin', 'lf')");
    out("lf", "INSERT INTO words (id, t, late) VALUES (3, 'née', 'früh'); UPDATE words SET v = 'çã' WHERE id = 2");
    // The same type in another database is none: of the server's own types all is shown.
    out(
        "uni",
        "SELECT fork_mount('lf', into_schema => 'm'); SELECT fork_mount('lf', 'cut', 'c')",
    );
    for (here, there) in [("m.words", "lf"), ("c.words", "latin")] {
        let wanted = out(there, &format!("{WORDS} words ORDER BY id"));
        assert_eq!(out("uni", &format!("{WORDS} {here} ORDER BY id")), wanted);
        let late = "SELECT id, late, lates FROM";
        assert_eq!(
            out("uni", &format!("{late} {here} ORDER BY id")),
            out(there, &format!("{late} words ORDER BY id"))
        );
    }
    assert_eq!(
        out(
            "uni",
            "SELECT ts @@ 'café', ts @@ to_tsquery('simple', 'plain') FROM m.words WHERE id = 1"
        ),
        "t|t"
    );
    // What leaves the table is text of this database.
    out(
        "uni",
        "CREATE TABLE copy AS SELECT * FROM m.words; CREATE TABLE row AS SELECT w FROM m.words w",
    );
    assert_eq!(
        out(
            "uni",
            "SELECT md5(string_agg(c::text, ',' ORDER BY id)) FROM copy c"
        ),
        out(
            "uni",
            "SELECT md5(string_agg(c::text, ',' ORDER BY id)) FROM m.words c"
        )
    );
    assert_eq!(
        out(
            "uni",
            "SELECT convert_to((w).v, 'UTF8'), (w).late FROM row WHERE (w).id = 1"
        ),
        "\\xc3a4c3b6c3bcc39fc3a9|später"
    );
    assert_eq!(out("uni", "SELECT attmissingval FROM pg_attribute WHERE attrelid = 'm.words'::regclass AND attname = 'late'"), "{später}");
    assert_eq!(
        out(
            "uni",
            "ANALYZE m.words; SELECT count(*) FROM m.words a JOIN m.words b ON a.t = b.t"
        ),
        "3"
    );
    // Names.
    assert_eq!(out("uni", "SELECT \"länge\" FROM m.\"public.größe\""), "é");
    assert_eq!(
        out("uni", "SELECT to_regclass('m.\"übung.größe\"') IS NOT NULL"),
        "t"
    );
    // In a database of the same encoding nothing is converted, and nothing left out.
    out("latin", "SELECT fork_mount('lf', into_schema => 'm')");
    assert_eq!(
        out("latin", "SELECT w, m, e, (p).b, s, i FROM m.kinds"),
        "ö|{ü}|süß|ß|[a,é]|[1,4)"
    );
    assert_eq!(
        out("latin", &format!("{WORDS} m.words ORDER BY id")),
        out("lf", &format!("{WORDS} words ORDER BY id"))
    );
}

#[test]
fn what_has_no_equal_is_told() {
    let cluster = Cluster::new("autovacuum = off");
    database(&cluster, "latin", "LATIN1");
    database(&cluster, "uni", "UTF8");
    database(&cluster, "raw", "SQL_ASCII");
    let out = |db: &str, sql: &str| cluster.sql(db, &utf8(sql));
    out(
        "uni",
        "CREATE TABLE signs (id int, v text, q tsquery); INSERT INTO signs VALUES (1, 'é', 'a'), (2, 'Ω', 'b'); \
         CREATE TABLE \"Ω\" (id int); CREATE TABLE half (id int, \"Ω\" int, \"é\" int); INSERT INTO half VALUES (1, 2, 3); \
         CREATE TABLE dated (d timestamptz DEFAULT now(), n numeric[], y bytea); INSERT INTO dated VALUES (DEFAULT, '{1,2}', '\\xff'); \
         CREATE TABLE late (id int); INSERT INTO late VALUES (1); \
         ALTER TABLE late ADD o text DEFAULT 'Ω', ADD os text[] DEFAULT '{a,Ω}', ADD oj jsonb DEFAULT '{\"Ω\": 1}', ADD ot tsvector DEFAULT 'Ω', ADD e text[] DEFAULT '{é}'; SELECT fork_create('uni', 'uf')",
    );
    let warned = |db: &str, sql: &str| {
        let out = cluster.script(db, &format!("SET client_encoding = 'UTF8';\n{sql};"));
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let told = warned("latin", "SELECT fork_mount('uf', into_schema => 'm')");
    assert!(told.matches("WARNING:  22P05").count() == 6, "{told}");
    assert_eq!(out("latin", "SELECT * FROM m.late"), "1|{é}");
    assert!(
        told.contains("WARNING:  0A000") && told.contains("\"q\""),
        "{told}"
    );
    assert!(!told.contains("ERROR"), "{told}");
    assert_eq!(out("latin", "SELECT id, \"é\" FROM m.half"), "1|3");
    assert_eq!(
        out("latin", "SELECT v FROM m.signs WHERE id = 1"),
        "é\n".trim()
    );
    cluster.expect_error("latin", "SELECT v FROM m.signs", "22P05");
    assert_eq!(
        out(
            "latin",
            "SELECT count(*) FROM m.signs; SELECT n, y FROM m.dated"
        ),
        "2\n{1,2}|\\xff"
    );
    // Bytes without an encoding are looked at; where there is none, they are taken as they are.
    let mut bytes = cluster.client("raw");
    bytes
        .batch_execute("CREATE TABLE blob (id int, v text, k \"char\")")
        .expect("made");
    drop(bytes);
    cluster.sql(
        "raw",
        "INSERT INTO blob VALUES (1, 'a', 'k'), (2, E'\\xe9', 'k'); SELECT fork_create('raw', 'rf')",
    );
    cluster.sql("uni", "SELECT fork_mount('rf', into_schema => 'r')");
    assert_eq!(out("uni", "SELECT id, v FROM r.blob WHERE id = 1"), "1|a");
    cluster.expect_error("uni", "SELECT v FROM r.blob", "22021");
    cluster.sql("raw", "SELECT fork_mount('uf', into_schema => 'u')");
    assert_eq!(
        cluster.sql(
            "raw",
            "SELECT encode(v::bytea, 'hex') FROM u.signs WHERE id = 2"
        ),
        "cea9"
    );
    // A partitioned table of another encoding.
    out("uni", "CREATE TABLE parts (id int, \"é\" text) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts DEFAULT; CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (5) TO (6); INSERT INTO parts VALUES (1, 'ü'), (5, 'ö'); SELECT fork_create('uni', 'ug')");
    out(
        "latin",
        "SELECT fork_mount('ug', into_schema => 'g', tables => '{parts}')",
    );
    assert_eq!(
        out("latin", "SELECT id, \"é\" FROM g.parts ORDER BY id"),
        "1|ü\n5|ö"
    );
}
