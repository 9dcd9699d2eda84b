//! Values in fork_diff_rows: of every type, the same from every database and under every setting, against
//! what the server itself makes of them in their own database.

use pg_fork_tests::Cluster;
use postgres::Client;
use std::collections::HashMap;

/// Two values of each type that a table can have.
const VALUES: [(&str, &str, &str); 72] = [
    ("circle", "<(0,0),1>", "<(0.1,0),2>"),
    ("bool", "t", "f"),
    ("bytea", "\\x00ff5c", "\\x27"),
    ("char", "a", "\""),
    ("name", "a name", "\"q\""),
    ("int8", "9223372036854775807", "-1"),
    ("int2", "32767", "-32768"),
    ("int2vector", "1 2", "3"),
    ("int4", "7", "-2147483648"),
    ("regproc", "now", "fork_own.f"),
    ("text", "a\\b \"c\" {d}, e", "NULL"),
    ("oid", "1", "4294967295"),
    ("tid", "(1,2)", "(0,1)"),
    ("xid", "3", "4"),
    ("cid", "5", "6"),
    ("oidvector", "1 2", "3"),
    ("json", "{\"a\": [1, 2.50, null]}", "[]"),
    ("xml", "<a>b</a>", "<c/>"),
    ("xid8", "12345678901", "1"),
    ("point", "(0.1,0.2)", "(1e300,-1)"),
    ("lseg", "[(0,0),(1,1)]", "[(0.1,0),(1,1)]"),
    ("path", "((0,0),(1,1))", "[(0,0),(1,0.1)]"),
    ("box", "(1,1),(0,0)", "(2,2),(0.1,0)"),
    ("polygon", "((0,0),(1,1),(1,0))", "((0,0.1),(1,1),(1,0))"),
    ("line", "{1,2,3}", "{1,0.1,3}"),
    ("float4", "0.1", "0.10000001"),
    ("float8", "0.1", "0.10000000000000002"),
    ("money", "1.50", "-1234567.89"),
    ("macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:04"),
    ("inet", "10.0.0.1/8", "::1"),
    ("cidr", "10.0.0.0/8", "::/0"),
    (
        "macaddr8",
        "08:00:2b:01:02:03:04:05",
        "08:00:2b:01:02:03:04:06",
    ),
    ("aclitem", "postgres=r/postgres", "=w/postgres"),
    ("bpchar", "ab  ", "c"),
    ("varchar", "ab  ", "\t"),
    ("date", "2024-02-29", "infinity"),
    ("time", "12:34:56.789", "24:00:00"),
    (
        "timestamp",
        "2024-02-29 12:34:56.789",
        "0044-03-15 12:00:00 BC",
    ),
    ("timestamptz", "2024-02-29 12:34:56.789+05", "-infinity"),
    ("interval", "1 year 2 mons -3 days 04:05:06.7", "-00:00:01"),
    ("timetz", "12:34:56+05", "00:00:00-03"),
    ("bit", "1", "0"),
    ("varbit", "10101", ""),
    ("numeric", "12345678901234567890.12300", "NaN"),
    ("refcursor", "a", "b"),
    (
        "regprocedure",
        "pg_catalog.abs(integer)",
        "fork_own.f(int, text[])",
    ),
    ("regoper", "pg_catalog.||/", "fork_own.<+>"),
    ("regoperator", "+(integer,integer)", "fork_own.<+>(int,int)"),
    ("regclass", "pg_class", "fork_own.\"A table\""),
    ("regcollation", "\"C\"", "fork_own.coll"),
    ("regtype", "integer[]", "fork_own.\"A type\"[]"),
    ("regrole", "postgres", "pg_monitor"),
    ("regnamespace", "pg_catalog", "fork_own"),
    (
        "uuid",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "00000000-0000-0000-0000-000000000000",
    ),
    ("pg_lsn", "16/B374D848", "0/0"),
    ("tsvector", "'a':1A 'fat cat':2", "'it''s':3"),
    ("tsquery", "'a' & !'b'", "'it''s' <-> 'c'"),
    ("regconfig", "english", "fork_own.conf"),
    ("regdictionary", "simple", "fork_own.dict"),
    ("jsonb", "{\"a\": [1, 2.50, null]}", "\"x\""),
    ("jsonpath", "$.a[*] ? (@ > 1)", "strict $"),
    ("txid_snapshot", "10:20:10,14", "1:1:"),
    ("pg_snapshot", "10:20:10,14", "1:1:"),
    ("int4range", "[1,5)", "empty"),
    ("numrange", "(,1.50]", "[0,)"),
    ("tsrange", "[2024-01-01 00:00,)", "empty"),
    ("tstzrange", "[2024-01-01 00:00+05,)", "empty"),
    ("daterange", "[2024-01-01,2024-01-02)", "empty"),
    ("int8range", "[1,5)", "(,)"),
    ("int4multirange", "{[1,5),[7,9)}", "{}"),
    ("nummultirange", "{(,1.5]}", "{}"),
    ("int8multirange", "{[1,5)}", "{}"),
];
/// The ranges of times are made of the types above, whose forms they share.
const MORE: [(&str, &str, &str); 3] = [
    (
        "tsmultirange",
        "{[2024-01-01 00:00,2024-01-02 00:00)}",
        "{}",
    ),
    (
        "tstzmultirange",
        "{[2024-01-01 00:00+05,2024-01-02 00:00+05)}",
        "{}",
    ),
    ("datemultirange", "{[2024-01-01,2024-01-02)}", "{}"),
];
/// No value of these can be put into a table by a user.
const NO_VALUES: [&str; 7] = [
    "pg_node_tree",
    "pg_ndistinct",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "gtsvector",
];
/// What a session may have set; each changes how some value prints.
const SETTINGS: [&str; 12] = [
    "SET extra_float_digits = -15",
    "SET DateStyle = 'German, YMD'",
    "SET IntervalStyle = 'iso_8601'",
    "SET bytea_output = 'escape'",
    "SET TimeZone = 'Asia/Tokyo'",
    "SET lc_monetary = 'C.UTF-8'",
    "SET search_path = pg_temp, fork_own",
    "SET quote_all_identifiers = on",
    "SET xmloption = 'document'",
    "SET xmlbinary = 'hex'",
    "SET transform_null_equals = on",
    "SET enable_sort = off",
];

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

fn one(client: &mut Client, sql: &str) -> String {
    let row = client
        .query_one(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    row.get::<_, Option<String>>(0)
        .unwrap_or_else(|| "null".into())
}

/// A server with the databases `prod` and `third`, both with the extension.
fn setup() -> Cluster {
    let cluster = Cluster::new("max_prepared_transactions = 0\nautovacuum = off");
    for name in ["prod", "third"] {
        cluster.sql("postgres", &format!("CREATE DATABASE {name}"));
        cluster.sql(name, "CREATE EXTENSION pg_fork");
    }
    cluster
}

/// `prod` forked as `f`, with the extension's functions there too.
fn fork(cluster: &Cluster) {
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
}

/// change, key, before, after of each row, as text.
fn rows(client: &mut Client, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT concat_ws('|', change, coalesce(key::text, '-'), coalesce(before::text, '-'), coalesce(after::text, '-'))
         FROM fork_diff_rows('f', '{table}')"
    );
    let rows = client
        .query(&sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

fn counts(cluster: &Cluster, db: &str, table: &str) -> String {
    let sql = format!(
        "SELECT coalesce(string_agg(change || ' ' || coalesce(rows_inserted || '/' || rows_updated || '/' || rows_deleted, '?'), ', '), 'none')
         FROM fork_diff('f') WHERE \"table\" = '{table}'"
    );
    cluster.sql(db, &sql)
}

#[test]
fn each_type_is_told_the_same_from_everywhere() {
    let cluster = setup();
    let mut prod = cluster.client("prod");
    let known: HashMap<&str, (&str, &str)> = VALUES
        .iter()
        .chain(&MORE)
        .map(|(kind, a, b)| (*kind, (*a, *b)))
        .collect();
    let types = "SELECT typname FROM pg_type t WHERE typnamespace = 'pg_catalog'::regnamespace AND typisdefined
                 AND typtype IN ('b', 'r', 'm') AND typcategory NOT IN ('A', 'Z') AND typname !~ '^_' ORDER BY 1";
    let found: Vec<String> = prod
        .query(types, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let internal = "SELECT typname FROM pg_type t WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typcategory = 'Z' ORDER BY 1";
    let internal: Vec<String> = prod
        .query(internal, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let all: Vec<&String> = found.iter().chain(&internal).collect();
    for kind in &all {
        let kind = kind.as_str();
        assert!(
            known.contains_key(kind) != NO_VALUES.contains(&kind),
            "{kind} has no values in this test, or is not needed"
        );
    }
    let usable: Vec<&str> = all
        .iter()
        .map(|kind| kind.as_str())
        .filter(|kind| known.contains_key(kind))
        .collect();
    run(
        &mut prod,
        "CREATE SCHEMA fork_own; CREATE TABLE fork_own.\"A table\" (); CREATE TYPE fork_own.\"A type\" AS ENUM ('x');
         CREATE FUNCTION fork_own.f(int, text[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION fork_own.plus(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
         CREATE OPERATOR fork_own.<+> (LEFTARG = int, RIGHTARG = int, FUNCTION = fork_own.plus);
         CREATE COLLATION fork_own.coll FROM \"C\";
         CREATE TEXT SEARCH CONFIGURATION fork_own.conf (COPY = simple);
         CREATE TEXT SEARCH DICTIONARY fork_own.dict (TEMPLATE = simple)",
    );
    // Casts and more columns than one wide row needs: one table for each type.
    for kind in &usable {
        let (first, _) = known[kind];
        run(
            &mut prod,
            &format!(
                "CREATE TABLE \"t_{kind}\" (id int PRIMARY KEY, v pg_catalog.\"{kind}\", a pg_catalog.\"{kind}\"[], n pg_catalog.\"{kind}\");
                 INSERT INTO \"t_{kind}\" VALUES (1, {0}::pg_catalog.\"{kind}\", ARRAY[{0}::pg_catalog.\"{kind}\", NULL], NULL)",
                quoted(first)
            ),
        );
    }
    fork(&cluster);
    let mut inside = cluster.client("f");
    for kind in &usable {
        let (_, second) = known[kind];
        run(
            &mut inside,
            &format!("UPDATE \"t_{kind}\" SET v = {0}::pg_catalog.\"{kind}\", a = ARRAY[[{0}::pg_catalog.\"{kind}\"]], n = v", quoted(second)),
        );
    }
    // What is called so is another object in the fork by now.
    run(&mut inside, "ALTER SCHEMA fork_own RENAME TO \"other one\"");
    run(&mut inside, "ALTER SCHEMA \"other one\" RENAME TO fork_own");
    let plain = "SET TimeZone = 'UTC'; SET search_path = pg_catalog; SET lc_monetary = 'C'";
    let mut wanted = HashMap::new();
    for kind in &usable {
        let sql = format!("SELECT to_jsonb(t)::text FROM public.\"t_{kind}\" t");
        let [before, after] = [&mut prod, &mut inside].map(|client| {
            run(client, plain);
            let told = one(client, &sql);
            run(client, "RESET ALL");
            told
        });
        wanted.insert(
            *kind,
            vec![format!("updated|{{\"id\": 1}}|{before}|{after}")],
        );
    }
    for db in ["prod", "f", "third"] {
        let mut client = cluster.client(db);
        for settings in [vec![], SETTINGS.to_vec()] {
            settings
                .iter()
                .for_each(|setting| run(&mut client, setting));
            // Found by the extension's own schema, whatever the search path is.
            let call = "SELECT string_agg(change || '|' || key || '|' || before || '|' || after, ';') FROM public.fork_diff_rows('f', $1)";
            for kind in &usable {
                let row = client.query_one(call, &[&format!("\"t_{kind}\"")]);
                let row = row.unwrap_or_else(|error| panic!("{kind} from {db}: {error:?}"));
                let told: Option<String> = row.get(0);
                assert_eq!(
                    told.as_deref(),
                    Some(wanted[kind][0].as_str()),
                    "{kind} from {db}"
                );
            }
            let sql = "SELECT count(*) FROM public.fork_diff('f') WHERE change = 'rows' AND rows_updated = 1";
            let count: i64 = client.query_one(sql, &[]).unwrap().get(0);
            assert_eq!(count, usable.len() as i64, "from {db}");
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Types that only the fork has, or only its cut, taken apart by the catalogs of their own side.
#[test]
fn types_of_users_are_told_where_they_do_not_exist() {
    let cluster = setup();
    let make = "CREATE TYPE mood AS ENUM ('so so', 'q\"{', 'ok');
         CREATE DOMAIN few AS int[] CHECK (cardinality(VALUE) < 9);
         CREATE DOMAIN feeling AS mood;
         CREATE TYPE pair AS (\"a b\" text, m mood, n few);
         CREATE TYPE nested AS (p pair, ps pair[], at timestamptz);
         CREATE TYPE span AS RANGE (SUBTYPE = text, COLLATION = \"C\");
         CREATE TYPE moods AS RANGE (SUBTYPE = mood);";
    let fill = "INSERT INTO zoo SELECT g, 'ok', ARRAY['so so', NULL, 'q\"{']::mood[], '{1,2}', 'ok', ROW('x, \"y\"', 'ok', '{3}')::pair,
           ROW(ROW(NULL, 'q\"{', NULL)::pair, ARRAY[ROW('', 'ok', '{}')::pair, NULL], '2024-01-02 03:04:05+06')::nested,
           '[\"a b\",c)', '{(,a],[b,b]}', '[\"so so\",ok]', '{[ok,ok]}', '[2:3]={ok,ok}', ARRAY['ok'::feeling, NULL]
         FROM generate_series(1, 3) g;";
    let table = "CREATE TABLE zoo (id int PRIMARY KEY, m mood, ms mood[], f few, fe feeling, p pair, n nested, s span, sm span_multirange,
                   mo moods, mm moods_multirange, low mood[], fs feeling[]);";
    run(
        &mut cluster.client("prod"),
        &format!(
            "{make} {} {}",
            table.replace("zoo", "gone"),
            fill.replace("zoo", "gone")
        ),
    );
    fork(&cluster);
    let mut inside = cluster.client("f");
    run(
        &mut inside,
        "DROP TYPE mood, feeling, few, pair, nested, span, moods CASCADE; DROP TABLE gone",
    );
    run(&mut inside, &format!("{make} {table} {fill} CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
         CREATE TABLE ext (id int PRIMARY KEY, h hstore, c citext, l ltree[]);
         INSERT INTO ext VALUES (1, 'a=>\"b c\"', 'Text', '{{a.b,c}}')"));
    let sql = "SELECT to_jsonb(t)::text FROM gone t ORDER BY id";
    let before: Vec<String> = cluster
        .client("prod")
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    for db in ["prod", "f", "third"] {
        let mut client = cluster.client(db);
        run(&mut client, "SET TimeZone = 'Asia/Tokyo'");
        let told = rows(&mut client, "zoo");
        let told: Vec<&str> = told
            .iter()
            .map(|row| row.rsplit('|').next().unwrap())
            .collect();
        run(&mut inside, "SET TimeZone = 'UTC'");
        let wanted: Vec<String> = inside
            .query("SELECT to_jsonb(t)::text FROM zoo t ORDER BY id", &[])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(told, wanted, "zoo from {db}");
        let told = rows(&mut client, "gone");
        let told: Vec<&str> = told
            .iter()
            .map(|row| row.split('|').nth(2).unwrap())
            .collect();
        let same: Vec<String> = before
            .iter()
            .map(|row| row.replace("T03:04:05+06:00", "T21:04:05+00:00"))
            .collect();
        assert_eq!(told.len(), same.len(), "gone from {db}");
        let told = rows(&mut client, "ext");
        let ltree = r#"{"c": "Text", "h": "\"a\"=>\"b c\"", "l": ["a.b", "c"], "id": 1}"#;
        assert_eq!(
            told,
            [format!("inserted|{{\"id\": 1}}|-|{ltree}")],
            "ext from {db}"
        );
        assert_eq!(counts(&cluster, db, "zoo"), "created 3/0/0", "from {db}");
        assert_eq!(counts(&cluster, db, "gone"), "dropped 0/0/3", "from {db}");
    }
}

/// A value reads the same as the text that a migration makes of it: arrays, rows and ranges are printed here
/// as the server prints them.
#[test]
fn a_column_that_becomes_text_reads_the_same() {
    let cluster = setup();
    let odd = "'', ' ', 'a b', 'NULL', 'null', '\"', '\\', '{}', 'a,b', '(x)', '[y]', E'\\t', E'line\\nbreak', 'ä', NULL, '''', ';', 'a:b', '\"\"'";
    run(
        &mut cluster.client("prod"),
        &format!(
            "CREATE TYPE two AS (a text, b text);
             CREATE TYPE span AS RANGE (SUBTYPE = text, COLLATION = \"C\");
             CREATE TYPE rows AS RANGE (SUBTYPE = two);
             CREATE DOMAIN dom AS text;
             CREATE TABLE odd AS SELECT row_number() OVER () AS id, a, b FROM unnest(ARRAY[{odd}]) a, unnest(ARRAY[{odd}]) b;
             ALTER TABLE odd ADD PRIMARY KEY (id);
             CREATE TABLE t AS SELECT id, ARRAY[a, b] AS arr, ARRAY[[a, b], [b, a]] AS arr2, ARRAY[a, b]::dom[] AS doms,
               array_fill(a, ARRAY[2, 1], ARRAY[0, 5]) AS low,
               ROW(a, b)::two AS r, ARRAY[ROW(a, b)::two] AS rs, ROW(ROW(a, b)::two::text, b)::two AS nested,
               CASE WHEN a IS NULL OR b IS NULL OR a COLLATE \"C\" <= b COLLATE \"C\" THEN span(a, b, '[]') END AS s,
               CASE WHEN a COLLATE \"C\" <= b COLLATE \"C\" THEN span_multirange(span(a, b, '[]')) END AS sm,
               CASE WHEN a = b THEN rows(ROW(a, b)::two, ROW(a, b)::two, '[]') END AS rr,
               ARRAY[]::text[] AS none, decode(md5(coalesce(a, '')), 'hex') AS by, id::numeric / 3 AS n
             FROM odd;
             ALTER TABLE t ADD PRIMARY KEY (id)"
        ),
    );
    fork(&cluster);
    let columns = [
        "arr", "arr2", "doms", "low", "r", "rs", "nested", "s", "sm", "rr", "none", "by", "n",
    ];
    let alter: Vec<String> = columns
        .iter()
        .map(|it| format!("ALTER COLUMN \"{it}\" TYPE text USING \"{it}\"::text"))
        .collect();
    run(
        &mut cluster.client("f"),
        &format!("ALTER TABLE t {}", alter.join(", ")),
    );
    for db in ["prod", "f", "third"] {
        let told = rows(&mut cluster.client(db), "t");
        assert_eq!(told, Vec::<String>::new(), "from {db}");
        assert_eq!(counts(&cluster, db, "t"), "altered 0/0/0", "from {db}");
    }
    // And a row that does not is told.
    run(
        &mut cluster.client("f"),
        "UPDATE t SET arr = arr || ' ' WHERE id = 9",
    );
    assert_eq!(counts(&cluster, "third", "t"), "altered 0/1/0");
}

#[test]
fn values_that_jsonb_does_not_hold() {
    let cluster = setup();
    run(
        &mut cluster.client("prod"),
        "CREATE TABLE j (id int PRIMARY KEY, v json, n int);
         INSERT INTO j VALUES (1, '{\"a\": \"\\u0000\"}', 1), (2, '[1e999999]', 1), (3, '\"\\ud83d\"', 1), (4, '{\"a\": 1}', 1);
         CREATE TABLE big (id int PRIMARY KEY, a text, b text, c text, d bytea, e json, n int);
         INSERT INTO big SELECT 1, repeat('a', 58000000), repeat('\"', 40000000), repeat('ab', 35000000),
             decode(repeat('ab', 68000000), 'hex'), to_json(repeat('e', 66000000)), 1",
    );
    fork(&cluster);
    run(
        &mut cluster.client("f"),
        "UPDATE j SET n = 2; UPDATE big SET n = 2",
    );
    for db in ["prod", "third"] {
        let told = rows(&mut cluster.client(db), "j");
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(
            told[0].contains(r#""v": "{\"a\": \"\\u0000\"}""#),
            "{}",
            told[0]
        );
        assert!(
            told[3].ends_with(r#"{"n": 2, "v": {"a": 1}, "id": 4}"#),
            "{}",
            told[3]
        );
    }
    let mut client = cluster.client("third");
    let sql = "SELECT change || ' ' || (before->>'n') || ' ' || (after->>'n') || ' ' || length(after->>'a') || ' ' || (after->>'c') || ' ' ||
               (before->>'d') FROM fork_diff_rows('f', 'big')";
    let told = one(&mut client, sql);
    assert!(
        told.starts_with("updated 1 2 58000000 (70000000 bytes, md5 "),
        "{told}"
    );
    assert!(told.contains("(68000000 bytes, md5 "), "{told}");
    assert_eq!(counts(&cluster, "prod", "big"), "rows 0/1/0");
}
