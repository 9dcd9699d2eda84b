//! fork_diff and fork_diff_rows, against both sides read whole.

use pg_fork_tests::Cluster;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Key (empty without one) and row of each row.
fn read(cluster: &Cluster, db: &str, table: &str, key: &str) -> Vec<(String, String)> {
    let mut client = cluster.client(db);
    let sql = format!("SELECT ({key})::text, to_jsonb(t)::text FROM {table} t");
    let rows = client.query(&sql, &[]).unwrap();
    let text = |value: Option<String>| value.unwrap_or_default();
    rows.iter()
        .map(|row| (text(row.get(0)), row.get(1)))
        .collect()
}

type Change = (String, String, String, String);

/// What a comparison of all rows comes to.
fn expected(before: &[(String, String)], after: &[(String, String)], keyed: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    if keyed {
        let old: HashMap<_, _> = before.iter().cloned().collect();
        let new: HashMap<_, _> = after.iter().cloned().collect();
        for (key, row) in &old {
            match new.get(key) {
                None => changes.push(("deleted".into(), key.clone(), row.clone(), String::new())),
                Some(now) if now != row => {
                    changes.push(("updated".into(), key.clone(), row.clone(), now.clone()))
                }
                _ => {}
            }
        }
        for (key, row) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
            changes.push(("inserted".into(), key.clone(), String::new(), row.clone()));
        }
    } else {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        before
            .iter()
            .for_each(|(_, row)| *counts.entry(row).or_default() -= 1);
        after
            .iter()
            .for_each(|(_, row)| *counts.entry(row).or_default() += 1);
        for (row, count) in counts {
            for _ in 0..count.abs() {
                let none = String::new();
                changes.push(match count < 0 {
                    true => ("deleted".into(), none.clone(), row.into(), none),
                    false => ("inserted".into(), none.clone(), none, row.into()),
                });
            }
        }
    }
    changes.sort();
    changes
}

fn told(cluster: &Cluster, db: &str, fork: &str, table: &str) -> Vec<Change> {
    let mut client = cluster.client(db);
    let sql = format!(
        "SELECT change, key::text, before::text, after::text FROM fork_diff_rows('{fork}', '{table}')"
    );
    let rows = client.query(&sql, &[]).unwrap();
    let mut changes: Vec<Change> = rows
        .iter()
        .map(|row| {
            let text = |n| row.get::<_, Option<String>>(n).unwrap_or_default();
            (text(0), text(1), text(2), text(3))
        })
        .collect();
    changes.sort();
    changes
}

const TABLES: [(&str, &str); 3] = [
    ("keyed", "jsonb_build_object('id', id)"),
    ("two", "jsonb_build_object('the key', \"the key\", 'b', b)"),
    ("keyless", "NULL"),
];

/// A step somewhere in the fork.
fn step(random: &mut Random) -> String {
    let n = random.below(3000);
    let big = "repeat(md5(random()::text), 200)";
    let wide = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 200))";
    match random.below(20) {
        0 => format!("INSERT INTO keyed SELECT g, 'new', {wide} FROM generate_series({0}, {0} + 5) g ON CONFLICT DO NOTHING", 5000 + n),
        1 => format!("UPDATE keyed SET v = v || 'x' WHERE id % 97 = {}", n % 97),
        2 => format!("UPDATE keyed SET v = v WHERE id % 31 = {}", n % 31),
        3 => format!("UPDATE keyed SET big = {big} WHERE id = {n}"),
        4 => format!("DELETE FROM keyed WHERE id BETWEEN {n} AND {n} + 7"),
        5 => format!("DELETE FROM keyed WHERE id = {n}; INSERT INTO keyed VALUES ({n}, 'again', NULL)"),
        6 => format!("UPDATE two SET v = v + 0.10 WHERE b = {}", n % 40),
        7 => format!("INSERT INTO two VALUES ('k{n}', {}, 1.50) ON CONFLICT DO NOTHING", n % 9),
        8 => format!("DELETE FROM two WHERE b = {}", n % 400),
        9 => format!("INSERT INTO keyless SELECT a, b FROM keyless WHERE a = {}", n % 200),
        10 => format!("DELETE FROM keyless WHERE ctid IN (SELECT ctid FROM keyless WHERE a = {} LIMIT 2)", n % 200),
        11 => format!("UPDATE keyless SET b = 'changed' WHERE a = {}", n % 200),
        12 => format!("UPDATE keyless SET b = b WHERE a = {}", n % 200),
        13 => "VACUUM FREEZE keyed".into(),
        14 => "VACUUM".into(),
        15 => "CHECKPOINT".into(),
        16 => format!("BEGIN; UPDATE keyed SET v = 'undone' WHERE id < {n}; ROLLBACK"),
        17 if n < 400 => "VACUUM FULL keyless".into(),
        17 if n < 500 => "TRUNCATE two".into(),
        18 if n < 300 => "CLUSTER keyed USING keyed_pkey".into(),
        _ => "SELECT count(*) FROM keyed, keyless WHERE id = a".into(),
    }
}

/// Random changes, in the fork and in the source beside it, against both sides read whole.
#[test]
fn random_changes_are_told_exactly() {
    let seed = std::env::var("PG_FORK_SEED")
        .ok()
        .and_then(|it| it.parse().ok())
        .unwrap_or(7);
    let rounds = std::env::var("PG_FORK_ROUNDS")
        .ok()
        .and_then(|it| it.parse().ok())
        .unwrap_or(12);
    println!("PG_FORK_SEED={seed}");
    let mut random = Random(seed * 0x9E37_79B9 + 1);
    let cluster = Cluster::new("autovacuum = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.script(
        "prod",
        "CREATE EXTENSION pg_fork;
         CREATE TABLE keyed (id int PRIMARY KEY, v text, big text);
         INSERT INTO keyed SELECT g, 'v' || g, CASE WHEN g % 50 = 0 THEN
             (SELECT string_agg(md5((g * x)::text), '') FROM generate_series(1, 200) x) END
             FROM generate_series(1, 3000) g;
         CREATE TABLE two (\"the key\" text, b int, v numeric, PRIMARY KEY (\"the key\", b));
         INSERT INTO two SELECT 'k' || g, g % 400, g * 1.10 FROM generate_series(1, 2000) g;
         CREATE TABLE keyless (a int, b text);
         INSERT INTO keyless SELECT g % 200, 'b' || g % 7 FROM generate_series(1, 2000) g;",
    );
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    let before: Vec<_> = TABLES
        .iter()
        .map(|(table, key)| read(&cluster, "f", table, key))
        .collect();
    let mut seen = 0;
    for round in 0..rounds {
        let mut steps = Vec::new();
        for _ in 0..1 + random.below(12) {
            let (here, there) = (step(&mut random), step(&mut random));
            cluster.script("f", &format!("{here};"));
            cluster.script("prod", &format!("{there};"));
            steps.push(here);
        }
        // From the source, from the fork itself, and from a database of neither.
        let from = ["prod", "postgres"][round % 2];
        let mut client = cluster.client(from);
        let counted: HashMap<String, [i64; 3]> = client
            .query("SELECT \"table\"::text, rows_inserted, rows_updated, rows_deleted FROM fork_diff('f')", &[])
            .unwrap()
            .iter()
            .map(|row| (row.get(0), [row.get(1), row.get(2), row.get(3)]))
            .collect();
        for (n, (table, key)) in TABLES.iter().enumerate() {
            let after = read(&cluster, "f", table, key);
            let wanted = expected(&before[n], &after, *key != "NULL");
            let found = told(&cluster, from, "f", table);
            seen += found.len();
            assert!(
                wanted == found,
                "seed {seed} round {round} {table} after {steps:#?}: {} wanted, {} told: {:?}",
                wanted.len(),
                found.len(),
                found.iter().find(|it| !wanted.contains(it))
            );
            let count = |what: &str| wanted.iter().filter(|it| it.0 == what).count() as i64;
            let wanted = [count("inserted"), count("updated"), count("deleted")];
            let found = counted.get(*table).copied().unwrap_or_default();
            assert_eq!(
                wanted, found,
                "seed {seed} round {round} {table} after {steps:#?}"
            );
        }
    }
    println!("{seen} differences");
    assert!(seen > 100, "{seen}");
}

/// Tables that came, went, were made anew, rewritten, renamed; columns added and dropped.
#[test]
fn changes_of_tables_are_told() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.script(
        "prod",
        "CREATE EXTENSION pg_fork;
         CREATE TYPE mood AS ENUM ('sad', 'ok');
         CREATE TABLE users (id int PRIMARY KEY, gone int, name text, m mood);
         INSERT INTO users SELECT g, g, 'n' || g, 'ok' FROM generate_series(1, 100) g;
         ALTER TABLE users ADD COLUMN old text DEFAULT 'first';
         CREATE TABLE dropped (a int PRIMARY KEY); INSERT INTO dropped VALUES (1), (2);
         CREATE TABLE anew (a int PRIMARY KEY, b text); INSERT INTO anew VALUES (1, 'one'), (2, 'two');
         CREATE TABLE rewritten (a int PRIMARY KEY); INSERT INTO rewritten VALUES (1);
         CREATE TABLE emptied (a int PRIMARY KEY); INSERT INTO emptied VALUES (1), (2);
         CREATE TABLE renamed (a int); CREATE TABLE same (a int); INSERT INTO same VALUES (1);",
    );
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    assert_eq!(
        cluster.sql("prod", "SELECT count(*) FROM fork_diff('f')"),
        "0"
    );
    cluster.script(
        "f",
        "ALTER TABLE users ADD COLUMN extra int DEFAULT 7; UPDATE users SET extra = 8 WHERE id = 5;
         UPDATE users SET extra = 7 WHERE id = 6; UPDATE users SET old = 'second' WHERE id = 7;
         ALTER TABLE users DROP COLUMN gone;
         DROP TABLE dropped; DROP TABLE anew;
         CREATE TABLE anew (a int PRIMARY KEY, b text, c int); INSERT INTO anew VALUES (1, 'one'), (3, 'three');
         VACUUM FULL rewritten; TRUNCATE emptied; ALTER TABLE renamed RENAME TO other;
         CREATE TABLE created (x int); INSERT INTO created VALUES (1), (1); SELECT * FROM same; VACUUM same;",
    );
    let wanted = "anew|recreated|1|0|1|t
created|created|2|0|0|f
dropped|dropped|0|0|2|f
emptied|rows|0|0|2|t
other|altered|0|0|0|f
rewritten|rewritten|0|0|0|t
users|altered|0|2|0|f";
    let sql = "SELECT \"table\", change, rows_inserted, rows_updated, rows_deleted, rewritten FROM fork_diff('f')";
    // In `postgres` there is no type mood: a worker in the fork tells.
    for db in ["prod", "f", "postgres"] {
        let mut rows = Vec::new();
        for row in cluster.client(db).simple_query(sql).unwrap() {
            if let postgres::SimpleQueryMessage::Row(row) = row {
                let cells: Vec<&str> = (0..6).map(|n| row.get(n).unwrap_or("")).collect();
                rows.push(cells.join("|"));
            }
        }
        assert_eq!(rows.join("\n"), wanted, "from {db}");
        let users = told(&cluster, db, "f", "users");
        assert_eq!(users.len(), 2, "{users:?}");
        assert!(
            users[0].2.contains("\"gone\": 5") && !users[0].2.contains("extra"),
            "{users:?}"
        );
        assert!(
            users[0].3.contains("\"extra\": 8") && !users[0].3.contains("gone"),
            "{users:?}"
        );
        assert!(users[1].3.contains("\"old\": \"second\""), "{users:?}");
    }
    assert_eq!(told(&cluster, "prod", "f", "public.anew").len(), 2);
    assert_eq!(told(&cluster, "prod", "f", "dropped").len(), 2);
    assert_eq!(
        cluster.sql(
            "prod",
            "SELECT count(*) FROM fork_diff_rows('f', 'emptied', 1)"
        ),
        "1"
    );
}

/// A transaction with one snapshot for all its statements sees the same differences again, from here and
/// from a worker in the fork; and rows that only it still sees are kept there. Blocks are counted as they
/// are.
#[test]
fn a_transaction_with_one_snapshot_sees_the_same_again() {
    let cluster = Cluster::new("autovacuum = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.script(
        "prod",
        "CREATE EXTENSION pg_fork; CREATE TABLE t (id int PRIMARY KEY, v int);
         INSERT INTO t SELECT g, 0 FROM generate_series(1, 1000) g;",
    );
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    // `postgres` does not have the type: a worker tells.
    cluster.script(
        "f",
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE m (id int PRIMARY KEY, m mood);
         INSERT INTO m VALUES (1, 'ok'), (2, 'sad'); UPDATE t SET v = 1 WHERE id < 10;",
    );
    for db in ["prod", "postgres"] {
        let mut client = cluster.client(db);
        // The first look of a session makes its later snapshots good.
        client.batch_execute("SELECT fork_diff('f')").unwrap();
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; CREATE TEMP TABLE own (a int)")
            .unwrap();
        let told = |client: &mut postgres::Client| -> Vec<String> {
            let sql = "SELECT (\"table\", change, rows_inserted, rows_updated, rows_deleted)::text FROM fork_diff('f') \
                       UNION ALL SELECT d::text FROM fork_diff_rows('f', 'm') d \
                       UNION ALL SELECT d::text FROM fork_diff_rows('f', 't') d";
            let rows = client.query(sql, &[]).unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        };
        let before = told(&mut client);
        assert!(before.len() >= 2 + 2 + 9, "{before:?}");
        for sql in [
            "UPDATE m SET m = 'ok'; INSERT INTO m SELECT max(id) + 1, 'sad' FROM m; DELETE FROM m WHERE id = 1",
            "UPDATE t SET v = v + 1",
            "VACUUM m",
            "VACUUM t",
        ] {
            cluster.sql("f", sql);
        }
        assert_eq!(told(&mut client), before, "from {db}");
        client.batch_execute("COMMIT").unwrap();
        assert_ne!(told(&mut client), before, "from {db}");
    }
}

/// Errors, and who may see what.
#[test]
fn rows_are_for_those_who_may_read_them() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.script(
        "prod",
        "CREATE EXTENSION pg_fork; CREATE ROLE someone LOGIN;
         CREATE TABLE open (a int PRIMARY KEY); CREATE TABLE secret (a int PRIMARY KEY, b int);
         CREATE TABLE rows (a int PRIMARY KEY); ALTER TABLE rows ENABLE ROW LEVEL SECURITY;
         GRANT SELECT ON open, rows TO someone; GRANT SELECT (a) ON secret TO someone;",
    );
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.script("f", "INSERT INTO open VALUES (1); INSERT INTO secret VALUES (1, 2); INSERT INTO rows VALUES (1);");
    let as_someone = |sql: &str| format!("SET ROLE someone; {sql}");
    let sql = as_someone("SELECT string_agg(\"table\" || ':' || coalesce(rows_inserted::text, '?'), ' ' ORDER BY 1) FROM fork_diff('f')");
    let mut client = cluster.client_as("someone", "prod");
    let told: String = client
        .query_one(sql.trim_start_matches("SET ROLE someone; "), &[])
        .unwrap()
        .get(0);
    assert_eq!(told, "open:1 rows:? secret:?");
    for table in ["secret", "rows"] {
        cluster.expect_error(
            "prod",
            &as_someone(&format!("SELECT * FROM fork_diff_rows('f', '{table}')")),
            "42501",
        );
    }
    assert_eq!(
        cluster.sql("prod", "SELECT count(*) FROM fork_diff_rows('f', 'open')"),
        "1"
    );
    cluster.expect_error(
        "prod",
        "SELECT * FROM fork_diff_rows('f', 'nothing')",
        "42P01",
    );
    cluster.expect_error("prod", "SELECT * FROM fork_diff('nothing')", "3D000");
    cluster.expect_error("prod", "SELECT * FROM fork_diff('prod')", "42809");
    cluster.sql("postgres", "REVOKE CONNECT ON DATABASE f FROM PUBLIC");
    cluster.expect_error("prod", &as_someone("SELECT * FROM fork_diff('f')"), "42501");
    // A base is made for the diff: it goes with the fork, and a restart makes it anew.
    cluster.stop("fast");
    cluster.start();
    assert_eq!(
        cluster.sql("prod", "SELECT count(*) FROM fork_diff_rows('f', 'open')"),
        "1"
    );
    assert_eq!(cluster.sql("prod", "SELECT fork_drop('f')"), "t");
    cluster.wait_for_folders(0);
}

/// The cost goes with the changed blocks, not with the table.
#[test]
fn a_few_changes_of_a_large_table_cost_little() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.script(
        "prod",
        "CREATE EXTENSION pg_fork; CREATE TABLE large (id int PRIMARY KEY, pad text);
         INSERT INTO large SELECT g, repeat('x', 200) FROM generate_series(1, 400000) g; VACUUM ANALYZE large;",
    );
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.script(
        "f",
        "UPDATE large SET pad = 'changed' WHERE id % 40000 = 0;",
    );
    cluster.script(
        "prod",
        "SELECT fork_mount('f', into_schema => 'now'); SELECT fork_mount('f', 'cut', 'base');",
    );
    let took = |sql: &str| {
        let mut client = cluster.client("prod");
        let began = Instant::now();
        let rows: i64 = client.query_one(sql, &[]).unwrap().get(0);
        assert_eq!(rows, 10);
        began.elapsed()
    };
    let whole = "SELECT count(*) FROM base.large b FULL JOIN now.large n USING (id) WHERE b IS DISTINCT FROM n";
    let few = "SELECT count(*) FROM fork_diff_rows('f', 'large')";
    let (whole, few) = (took(whole), took(few).min(took(few)));
    println!("whole {whole:?}, changed blocks only {few:?}");
    assert!(few * 10 < whole, "{few:?} against {whole:?}");
}
