//! Databases that are not UTF-8: values, names and messages of ours, from themselves and from one that is.

use pg_fork_tests::Cluster;
use postgres::Client;

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

fn all(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = client
        .query(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

fn message(client: &mut Client, sql: &str) -> String {
    let error = client
        .query(sql, &[])
        .err()
        .unwrap_or_else(|| panic!("{sql} did not fail"));
    error
        .as_db_error()
        .unwrap_or_else(|| panic!("{sql}: {error:?}"))
        .message()
        .to_string()
}

/// Encoding, and three words that it has.
const ENCODINGS: [(&str, [&str; 3]); 5] = [
    ("LATIN1", ["größe", "naïf", "Ñandú"]),
    ("LATIN2", ["zażółć", "őrült", "číslo"]),
    ("EUC_JP", ["日本語", "表示", "値段"]),
    ("WIN1251", ["имя", "строка", "цена"]),
    ("UTF8", ["ключ", "日本", "größe€"]),
];

#[test]
fn what_is_told_is_right_in_each_encoding() {
    let cluster = Cluster::new("autovacuum = off");
    for (encoding, [table, first, second]) in ENCODINGS {
        let db = format!("db_{}", encoding.to_lowercase());
        cluster.sql("postgres", &format!("CREATE DATABASE {db} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"));
        let mut source = cluster.client(&db);
        run(
            &mut source,
            &format!(
                "CREATE EXTENSION pg_fork; CREATE SCHEMA \"{second}\";
                 CREATE TYPE \"e{table}\" AS ENUM ('{first}', '{second}');
                 CREATE TABLE \"{table}\" (id int PRIMARY KEY, \"{first}\" text, e \"e{table}\", j jsonb, x json, a text[], t tsvector);
                 INSERT INTO \"{table}\" VALUES (1, '{first}', '{first}', '{{\"{first}\": \"{first}\"}}', '\"{first}\"', '{{{first},b}}', '{first}');
                 CREATE TABLE \"{second}\".\"{first}\" (id int)"
            ),
        );
        run(
            &mut source,
            &format!("SELECT fork_create('{db}', '{db}_f')"),
        );
        let mut fork = cluster.client(&format!("{db}_f"));
        run(
            &mut fork,
            &format!(
                "UPDATE \"{table}\" SET \"{first}\" = '{second}', e = '{second}', j = '{{\"{second}\": \"{second}\"}}', x = '\"{second}\"', a = '{{{second}}}', t = '{second}';
                 INSERT INTO \"{second}\".\"{first}\" VALUES (1)"
            ),
        );
        for from in [db.clone(), format!("{db}_f"), "postgres".into()] {
            let mut client = cluster.client(&from);
            let rows = all(
                &mut client,
                &format!("SELECT concat_ws(' ', change, before->>'{first}', after->>'{first}', after->>'e', after->>'j', after->>'x', after->>'a', after->>'t') FROM fork_diff_rows('{db}_f', '\"{table}\"')"),
            );
            let wanted = format!("updated {first} {second} {second} {{\"{second}\": \"{second}\"}} {second} [\"{second}\"] '{second}'");
            assert_eq!(rows, [wanted], "{encoding} from {from}");
            let lines = all(&mut client, &format!("SELECT concat_ws('.', schema, \"table\", rows_inserted, rows_updated) FROM fork_diff('{db}_f')"));
            let mut wanted = [
                format!("public.{table}.0.1"),
                format!("{second}.{first}.1.0"),
            ];
            wanted.sort();
            let mut lines = lines;
            lines.sort();
            assert_eq!(lines, wanted, "{encoding} from {from}");
            let told = message(
                &mut client,
                &format!("SELECT * FROM fork_diff_rows('{db}_f', '\"{table}{second}\"')"),
            );
            assert_eq!(
                told,
                format!("table \"\"{table}{second}\"\" exists neither in the fork nor at its cut"),
                "{encoding} from {from}"
            );
        }
        // Names of databases are the bytes that they were given.
        let name = format!("{table}_f");
        run(
            &mut source,
            &format!("SELECT fork_create('{db}', '{name}')"),
        );
        let named = all(
            &mut source,
            &format!("SELECT name::text FROM pg_forks WHERE name = '{name}'"),
        );
        assert_eq!(named, [name.as_str()], "{encoding}");
        let told = message(
            &mut source,
            &format!("SELECT fork_create('{db}', '{name}')"),
        );
        assert_eq!(
            told,
            format!("database \"{name}\" already exists"),
            "{encoding}"
        );
        let told = message(&mut source, &format!("SELECT fork_attach('{name}x')"));
        assert_eq!(
            told,
            format!("database \"{name}x\" does not exist"),
            "{encoding}"
        );
        run(&mut source, &format!("SELECT fork_drop('{name}')"));
        let told = message(&mut source, &format!("SELECT fork_drop('{name}')"));
        assert_eq!(
            told,
            format!("database \"{name}\" does not exist"),
            "{encoding}"
        );
    }
}

/// A database without an encoding holds any bytes; one that has not all characters is looked at, and looks.
#[test]
fn what_an_encoding_does_not_have_is_written_out() {
    let cluster = Cluster::new("autovacuum = off");
    for (db, encoding) in [("latin", "LATIN1"), ("none", "SQL_ASCII")] {
        cluster.sql("postgres", &format!("CREATE DATABASE {db} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"));
        cluster.sql(db, "CREATE EXTENSION pg_fork");
    }
    cluster.sql("postgres", "CREATE DATABASE wide TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'; CREATE DATABASE plain");
    cluster.sql("wide", "CREATE EXTENSION pg_fork; CREATE TABLE t (id int PRIMARY KEY, v text, j json); INSERT INTO t VALUES (1, 'a', '\"\\u20ac\"')");
    cluster.sql(
        "none",
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')",
    );
    cluster.sql(
        "postgres",
        "SELECT fork_create('wide', 'wide_f'); SELECT fork_create('none', 'none_f')",
    );
    run(&mut cluster.client("wide_f"), "UPDATE t SET v = '5 € é'");
    // Bytes that are no UTF-8, as they are.
    cluster.sql(
        "none_f",
        "SET client_encoding = 'SQL_ASCII'; UPDATE t SET v = E'\\xe9\\xff!'",
    );
    let after = |db: &str, fork: &str| {
        let sql = format!(
            "SET client_encoding = 'UTF8'; SELECT after->>'v' FROM fork_diff_rows('{fork}', 't')"
        );
        cluster.sql(db, &sql)
    };
    assert_eq!(after("wide", "wide_f"), "5 € é");
    assert_eq!(after("latin", "wide_f"), "5 \\u{20AC} é");
    assert_eq!(after("wide", "none_f"), "\\xE9\\xFF!");
    assert_eq!(after("latin", "none_f"), "éÿ!");
    let bytes = "SELECT (after->>'v')::bytea FROM fork_diff_rows('none_f', 't')";
    assert_eq!(cluster.sql("none", bytes), "\\xe9ff21");
    // Names and definitions too.
    run(
        &mut cluster.client("wide_f"),
        "CREATE TABLE \"t€\" (\"ñ\" int)",
    );
    let column = "SELECT object FROM fork_diff_schema('wide_f') WHERE object LIKE 'table column%'";
    assert_eq!(
        cluster.sql("wide", column),
        "table column public.\"t€\".\"ñ\""
    );
    let column = format!("SET client_encoding = 'UTF8'; {column}");
    assert_eq!(
        cluster.sql("latin", &column),
        "table column public.\"t\\u{20AC}\".\"ñ\""
    );
    let table = "SELECT \"table\" FROM fork_diff('wide_f') WHERE change = 'created'";
    assert_eq!(cluster.sql("latin", table), "t\\u{20AC}");
    let block = "SELECT count(*) FROM fork_blocks('wide_f') WHERE relation = E't\\\\u{20AC}'";
    assert_eq!(cluster.sql("latin", block), "1");
    // JSON that says what the encoding does not have is kept as a string.
    let json = "SELECT jsonb_typeof(before->'j') FROM fork_diff_rows('wide_f', 't')";
    assert_eq!(cluster.sql("latin", json), "string");
    assert_eq!(
        cluster.sql(
            "wide",
            "SELECT before->>'j' FROM fork_diff_rows('wide_f', 't')"
        ),
        "€"
    );
}

/// The server has no conversion between some encodings but by way of UTF-8.
#[test]
fn objects_are_told_between_encodings_without_a_conversion() {
    let cluster = Cluster::new("autovacuum = off");
    let pairs = [
        ("western", "LATIN1"),
        ("eastern", "WIN1251"),
        ("far", "EUC_JP"),
    ];
    for (db, encoding) in pairs {
        cluster.sql("postgres", &format!("CREATE DATABASE {db} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"));
        cluster.sql(db, "CREATE EXTENSION pg_fork; CREATE TABLE t (id int)");
        cluster.sql("postgres", &format!("SELECT fork_create('{db}', '{db}_f')"));
        cluster.sql(&format!("{db}_f"), "ALTER TABLE t ADD COLUMN more int");
    }
    for (from, _) in pairs {
        for (db, _) in pairs {
            assert_eq!(
                cluster.sql(
                    from,
                    &format!("SELECT object FROM fork_diff_schema('{db}_f')")
                ),
                "table column public.t.more",
                "{db} from {from}"
            );
            let sql = format!("SELECT count(*) > 0 FROM fork_blocks('{db}_f')");
            assert_eq!(cluster.sql(from, &sql), "t", "{db} from {from}");
        }
    }
}
