//! fork_diff and fork_diff_rows where the migration itself changes what tells rows apart.

use pg_fork_tests::attach::{attach, get};
use pg_fork_tests::Cluster;
use postgres::Client;
use std::collections::BTreeMap;

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

fn setup() -> Cluster {
    let cluster = Cluster::new("autovacuum = off");
    for name in ["prod", "third"] {
        cluster.sql("postgres", &format!("CREATE DATABASE {name}"));
        cluster.sql(name, "CREATE EXTENSION pg_fork");
    }
    cluster
}

/// Lines of fork_diff: table, change, counts.
fn lines(client: &mut Client) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', \"table\", change, coalesce(rows_inserted || '/' || rows_updated || '/' || rows_deleted, '?')) FROM fork_diff('f')";
    client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// change and key (or the row, for want of a key) of each row.
fn rows(client: &mut Client, table: &str) -> Vec<String> {
    let sql = format!("SELECT change || ' ' || coalesce(key, before, after)::text FROM fork_diff_rows('f', '{table}')");
    let rows = client
        .query(&sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// What a migration comes to: the lines of fork_diff, and the rows of some tables.
struct Case {
    before: &'static str,
    migration: &'static [&'static str],
    lines: &'static [&'static str],
    rows: &'static [(&'static str, &'static [&'static str])],
}

const CASES: &[Case] = &[
    // A key is added to a table in which it was not unique.
    Case {
        before: "CREATE TABLE seat (place int, who text); INSERT INTO seat VALUES (1, 'a'), (1, 'b'), (1, 'c'), (2, 'd'), (2, 'd'), (3, 'e')",
        migration: &[
            "DELETE FROM seat WHERE who IN ('b', 'c')",
            "DELETE FROM seat WHERE ctid = (SELECT min(ctid) FROM seat WHERE who = 'd')",
            "ALTER TABLE seat ADD PRIMARY KEY (place)",
            "UPDATE seat SET who = 'x' WHERE place = 3",
        ],
        lines: &["seat rows 0/1/3"],
        rows: &[("seat", &["deleted {\"place\": 1}", "deleted {\"place\": 1}", "deleted {\"place\": 2}", "updated {\"place\": 3}"])],
    },
    // A key is dropped, and rows that share it come.
    Case {
        before: "CREATE TABLE seat (place int PRIMARY KEY, who text); INSERT INTO seat VALUES (1, 'a'), (2, 'b')",
        migration: &["ALTER TABLE seat DROP CONSTRAINT seat_pkey", "INSERT INTO seat VALUES (1, 'z')", "UPDATE seat SET who = 'B' WHERE place = 2"],
        lines: &["seat rows 1/1/0"],
        rows: &[("seat", &["inserted {\"place\": 1}", "updated {\"place\": 2}"])],
    },
    // Another key: the rows are still known by the one they had.
    Case {
        before: "CREATE TABLE seat (place int PRIMARY KEY, code text NOT NULL, who text); INSERT INTO seat SELECT g, 'c' || g, 'w' FROM generate_series(1, 9) g",
        migration: &["ALTER TABLE seat DROP CONSTRAINT seat_pkey, ADD PRIMARY KEY (code)", "UPDATE seat SET code = 'other' WHERE place = 4", "VACUUM FULL seat"],
        lines: &["seat rows 0/1/0"],
        rows: &[("seat", &["updated {\"place\": 4}"])],
    },
    // The key's type changes; so does that of another column, in a way that reads the same.
    Case {
        before: "CREATE TABLE seat (place int PRIMARY KEY, fee numeric(8,2), pad char(5), doc json); INSERT INTO seat SELECT g, g, 'p' || g, '{\"a\":  1}' FROM generate_series(1, 9) g",
        migration: &["ALTER TABLE seat ALTER place TYPE text, ALTER fee TYPE numeric(12,4), ALTER pad TYPE text, ALTER doc TYPE jsonb", "UPDATE seat SET fee = 4.5 WHERE place = '4'"],
        lines: &["seat altered 0/1/0"],
        rows: &[("seat", &["updated {\"place\": \"4\"}"])],
    },
    // A column that is made anew under its name, by way of another.
    Case {
        before: "CREATE TABLE seat (place int PRIMARY KEY, n int); INSERT INTO seat SELECT g, g * 10 FROM generate_series(1, 9) g",
        migration: &[
            "ALTER TABLE seat ADD COLUMN n2 bigint", "UPDATE seat SET n2 = n", "ALTER TABLE seat DROP COLUMN n", "ALTER TABLE seat RENAME n2 TO n",
            "UPDATE seat SET n = 7 WHERE place = 7",
        ],
        lines: &["seat altered 0/1/0"],
        rows: &[("seat", &["updated {\"place\": 7}"])],
    },
    // Added columns, rewritten: a default that was dropped or changed again, a value for each row, one made of others.
    Case {
        before: "CREATE TABLE seat (place int PRIMARY KEY); INSERT INTO seat SELECT generate_series(1, 2000);
                 CREATE TABLE keyless (v text); INSERT INTO keyless SELECT 'v' || g % 7 FROM generate_series(1, 50) g",
        migration: &[
            "ALTER TABLE seat ADD COLUMN a int NOT NULL DEFAULT 5, ADD COLUMN b text DEFAULT 'x', ADD COLUMN c uuid DEFAULT gen_random_uuid(),
               ADD COLUMN d timestamptz DEFAULT clock_timestamp(), ADD COLUMN e int GENERATED ALWAYS AS (place * 2) STORED, ADD COLUMN g serial, ADD COLUMN h text",
            "ALTER TABLE seat ALTER a DROP DEFAULT, ALTER b SET DEFAULT 'y'",
            "VACUUM FULL seat",
            "INSERT INTO seat (place, a) VALUES (3000, 1)",
            "UPDATE seat SET h = 'h' WHERE place = 1999",
            "ALTER TABLE keyless ADD COLUMN id bigserial PRIMARY KEY",
        ],
        lines: &["keyless altered 0/0/0", "seat altered 1/1/0"],
        rows: &[("seat", &["updated {\"place\": 1999}", "inserted {\"place\": 3000}"]), ("keyless", &[])],
    },
    // A default that was changed before the rewrite says nothing of the rows that were there.
    Case {
        before: "CREATE TABLE tariff (id int PRIMARY KEY); INSERT INTO tariff SELECT generate_series(1, 90)",
        migration: &[
            "ALTER TABLE tariff ADD COLUMN rate int DEFAULT 7, ADD COLUMN unit text DEFAULT 'kg'",
            "ALTER TABLE tariff ALTER rate SET DEFAULT 8, ALTER unit DROP DEFAULT",
            "VACUUM FULL tariff",
            "UPDATE tariff SET rate = 9 WHERE id = 12",
            "UPDATE tariff SET unit = 't' WHERE id = 13",
        ],
        lines: &["tariff altered 0/2/0"],
        rows: &[("tariff", &["updated {\"id\": 12}", "updated {\"id\": 13}"])],
    },
    // A table without a key gets a column that is filled: the rows are the rows they were.
    Case {
        before: "CREATE TABLE keyless (v text); INSERT INTO keyless VALUES ('a'), ('b'), ('b')",
        migration: &["ALTER TABLE keyless ADD COLUMN n int", "UPDATE keyless SET n = 1 WHERE v = 'b'", "INSERT INTO keyless VALUES ('c', NULL)"],
        lines: &["keyless altered 1/2/0"],
        rows: &[("keyless", &["inserted {\"n\": null, \"v\": \"c\"}", "updated {\"v\": \"b\"}", "updated {\"v\": \"b\"}"])],
    },
    // A default that was there for the rows of then only, and a rewrite later; a column filled in row by row.
    Case {
        before: "CREATE TABLE guest (id int PRIMARY KEY); INSERT INTO guest SELECT generate_series(1, 60)",
        migration: &[
            "ALTER TABLE guest ADD COLUMN state text NOT NULL DEFAULT 'asked', ADD COLUMN code text",
            "ALTER TABLE guest ALTER state DROP DEFAULT",
            "UPDATE guest SET code = 'c' || id",
            "ALTER TABLE guest ALTER code SET NOT NULL, ALTER id TYPE bigint",
            "UPDATE guest SET state = 'came' WHERE id = 7",
        ],
        lines: &["guest altered 0/1/0"],
        rows: &[("guest", &["updated {\"id\": 7}"])],
    },
    // Renamed, swapped, made anew.
    Case {
        before: "CREATE TABLE one (id int PRIMARY KEY, v text); INSERT INTO one VALUES (1, 'a'), (2, 'b');
                 CREATE TABLE two (id int PRIMARY KEY, v text); INSERT INTO two VALUES (1, 'x'), (5, 'y');
                 CREATE TABLE anew (id int PRIMARY KEY, v text); INSERT INTO anew VALUES (1, 'p'), (2, 'q')",
        migration: &[
            "BEGIN; ALTER TABLE one RENAME TO three; ALTER TABLE two RENAME TO one; ALTER TABLE three RENAME TO two; COMMIT",
            "UPDATE one SET v = 'Y' WHERE id = 5",
            "CREATE TABLE n AS SELECT * FROM anew WHERE id = 2; DROP TABLE anew; ALTER TABLE n RENAME TO anew; INSERT INTO anew VALUES (3, 'r')",
        ],
        lines: &["anew recreated 1/0/1", "one altered 0/1/0", "two altered 0/0/0"],
        rows: &[("one", &["updated {\"id\": 5}"]), ("two", &[]), ("anew", &["deleted {\"id\": 1}", "inserted {\"id\": 3}"])],
    },
    // A plain table becomes a partitioned one, by copying.
    Case {
        before: "CREATE TABLE log (id int PRIMARY KEY, v text); INSERT INTO log SELECT g, 'v' || g FROM generate_series(1, 100) g",
        migration: &[
            "ALTER TABLE log RENAME TO log_old",
            "CREATE TABLE log (v text, id int PRIMARY KEY) PARTITION BY RANGE (id)",
            "CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (50)",
            "CREATE TABLE log_2 (id int NOT NULL, v text)",
            "ALTER TABLE log ATTACH PARTITION log_2 FOR VALUES FROM (50) TO (1000)",
            "INSERT INTO log (id, v) SELECT * FROM log_old WHERE id <> 60",
            "DROP TABLE log_old",
            "UPDATE log SET v = 'new' WHERE id IN (49, 70)",
        ],
        lines: &["log recreated 0/2/1", "log_1 created 49/0/0", "log_2 created 50/0/0"],
        rows: &[("log", &["updated {\"id\": 49}", "deleted {\"id\": 60}", "updated {\"id\": 70}"])],
    },
    // A plain table becomes a partition of one of its name; rows move.
    Case {
        before: "CREATE TABLE log (id int PRIMARY KEY, v text); INSERT INTO log SELECT g, 'v' || g FROM generate_series(1, 20) g;
                 CREATE TABLE part (id int, d int, PRIMARY KEY (id, d)) PARTITION BY LIST (d);
                 CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1); CREATE TABLE part_2 PARTITION OF part FOR VALUES IN (2);
                 INSERT INTO part SELECT g, 1 FROM generate_series(1, 5) g",
        migration: &[
            "ALTER TABLE log RENAME TO log_all",
            "CREATE TABLE log (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
            "ALTER TABLE log ATTACH PARTITION log_all FOR VALUES FROM (0) TO (1000)",
            "UPDATE log SET v = 'new' WHERE id = 3",
            "UPDATE part SET d = 2 WHERE id = 5",
        ],
        lines: &["log recreated 0/1/0", "log_all altered 0/1/0", "part rows 1/0/1", "part_1 rows 0/0/1", "part_2 rows 1/0/0"],
        rows: &[("log", &["updated {\"id\": 3}"]), ("log_all", &["updated {\"id\": 3}"]), ("part", &["deleted {\"d\": 1, \"id\": 5}", "inserted {\"d\": 2, \"id\": 5}"])],
    },
    // Found by the name that it has on either side.
    Case {
        before: "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.bill (id int PRIMARY KEY); CREATE TABLE b.bill (id int PRIMARY KEY); CREATE TABLE old (id int PRIMARY KEY); CREATE TABLE public.both (id int); CREATE TABLE a.both (id int)",
        migration: &["INSERT INTO a.bill VALUES (1)", "ALTER TABLE old RENAME TO fresh", "INSERT INTO fresh VALUES (2)", "INSERT INTO public.both VALUES (3)"],
        lines: &["bill rows 1/0/0", "both rows 1/0/0", "fresh altered 1/0/0"],
        rows: &[("a.bill", &["inserted {\"id\": 1}"]), ("old", &["inserted {\"id\": 2}"]), ("fresh", &["inserted {\"id\": 2}"]), ("both", &["inserted {\"id\": 3}"]), ("b.bill", &[])],
    },
];

#[test]
fn migrations_are_told_as_what_they_are() {
    let cluster = setup();
    for case in CASES {
        cluster.sql("postgres", "DROP DATABASE prod; CREATE DATABASE prod");
        let mut prod = cluster.client("prod");
        run(&mut prod, "CREATE EXTENSION pg_fork");
        run(&mut prod, case.before);
        get(&mut prod, "SELECT fork_create('prod', 'f')");
        let mut inside = cluster.client("f");
        for step in case.migration {
            run(&mut inside, step);
        }
        for db in ["prod", "f", "third"] {
            let mut client = cluster.client(db);
            assert_eq!(
                lines(&mut client),
                case.lines,
                "from {db}: {:?}",
                case.migration
            );
            for (table, wanted) in case.rows {
                assert_eq!(
                    rows(&mut client, table),
                    *wanted,
                    "{table} from {db}: {:?}",
                    case.migration
                );
            }
        }
        if case.before.contains("a.bill") {
            let error =
                cluster.expect_error("prod", "SELECT * FROM fork_diff_rows('f', 'bill')", "42P09");
            assert!(error.contains("schemas a, b"), "{error}");
            cluster.expect_error("prod", "SELECT * FROM fork_diff_rows('f', 'none')", "42P01");
            cluster.expect_error(
                "prod",
                "SELECT * FROM fork_diff_rows('f', 'a.b.c')",
                "42601",
            );
            cluster.expect_error("prod", "SELECT * FROM fork_diff_rows('f', '')", "42602");
            cluster.expect_error("prod", "SELECT * FROM fork_diff_rows('f', NULL)", "22004");
            cluster.expect_error(
                "prod",
                "SELECT * FROM fork_diff_rows(NULL, 'bill')",
                "22004",
            );
            cluster.expect_error("prod", "SELECT * FROM fork_diff(NULL)", "22004");
            cluster.expect_error(
                "prod",
                "SELECT * FROM fork_diff_rows('f', 'a.bill', -1)",
                "2201W",
            );
            assert_eq!(
                cluster.sql(
                    "prod",
                    "SELECT count(*) FROM fork_diff_rows('f', 'a.bill', 0)"
                ),
                "0"
            );
        }
        drop((prod, inside));
        cluster.sql("postgres", "SELECT fork_drop('f')");
    }
}

#[test]
fn what_the_transaction_did_is_told_in_it() {
    let cluster = setup();
    let mut prod = cluster.client("prod");
    run(&mut prod, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' FROM generate_series(1, 10) g");
    get(&mut prod, "SELECT fork_create('prod', 'f')");
    attach(&mut prod, "f");
    run(
        &mut prod,
        "BEGIN; UPDATE t SET v = 'mine' WHERE id = 3; DELETE FROM t WHERE id = 4",
    );
    assert_eq!(
        rows(&mut prod, "t"),
        ["updated {\"id\": 3}", "deleted {\"id\": 4}"]
    );
    run(&mut prod, "SAVEPOINT s; UPDATE t SET v = 'undone' WHERE id = 5; INSERT INTO t VALUES (99, 'undone'); ROLLBACK TO s");
    run(
        &mut prod,
        "SAVEPOINT r; UPDATE t SET v = 'kept' WHERE id = 6; RELEASE r",
    );
    assert_eq!(
        rows(&mut prod, "t"),
        [
            "updated {\"id\": 3}",
            "deleted {\"id\": 4}",
            "updated {\"id\": 6}"
        ]
    );
    run(&mut prod, "ALTER TABLE t ADD COLUMN n int DEFAULT 1; CREATE TYPE kind AS ENUM ('x'); CREATE TABLE mine (k kind); INSERT INTO mine VALUES ('x')");
    assert_eq!(lines(&mut prod), ["mine created 1/0/0", "t altered 0/2/1"]);
    assert_eq!(rows(&mut prod, "mine"), ["inserted {\"k\": \"x\"}"]);
    // Rewritten in the transaction; others see nothing of it.
    run(&mut prod, "ALTER TABLE t ALTER id TYPE bigint");
    assert_eq!(lines(&mut prod), ["mine created 1/0/0", "t altered 0/2/1"]);
    run(&mut prod, "ROLLBACK");
    assert_eq!(lines(&mut prod), Vec::<String>::new());
    run(
        &mut prod,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; UPDATE t SET v = 'again' WHERE id = 1",
    );
    assert_eq!(rows(&mut prod, "t"), ["updated {\"id\": 1}"]);
    let mut other = cluster.client("third");
    assert_eq!(lines(&mut other), Vec::<String>::new(), "not committed");
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A step of a migration; some fail in the state that they find, and do nothing then.
fn step(random: &mut Random) -> String {
    let n = random.below(40);
    match random.below(22) {
        0 => format!("UPDATE t SET a = a || 'x' WHERE k % 7 = {}", n % 7),
        1 => format!("DELETE FROM t WHERE k = {n}"),
        2 => format!("INSERT INTO t (k, u) VALUES ({n}, {n})"),
        3 => "ALTER TABLE t DROP CONSTRAINT t_pkey".into(),
        4 => "ALTER TABLE t ADD PRIMARY KEY (k)".into(),
        5 => "ALTER TABLE t ADD PRIMARY KEY (u)".into(),
        6 => "ALTER TABLE t ADD PRIMARY KEY (u, k)".into(),
        7 => "DELETE FROM t x USING t y WHERE x.k = y.k AND x.ctid > y.ctid".into(),
        8 => "ALTER TABLE t ALTER k TYPE bigint".into(),
        9 => format!("ALTER TABLE t ADD COLUMN n{n} int DEFAULT {n}"),
        10 => format!("ALTER TABLE t ADD COLUMN n{n} text"),
        11 => "ALTER TABLE t DROP COLUMN b".into(),
        12 => "VACUUM FULL t".into(),
        13 => "CREATE TABLE x AS SELECT * FROM t; DROP TABLE t; ALTER TABLE x RENAME TO t".into(),
        14 => format!("INSERT INTO t SELECT * FROM t WHERE u % 9 = {}", n % 9),
        15 => format!("UPDATE t SET u = u + 100 WHERE k = {n}"),
        16 => "ALTER TABLE t RENAME TO y; ALTER TABLE y RENAME TO t".into(),
        17 => "ALTER TABLE t ALTER u TYPE text USING u::text; ALTER TABLE t ALTER u TYPE int USING u::int".into(),
        18 => format!("UPDATE t SET k = {n} WHERE u = {n}"),
        19 => "VACUUM t".into(),
        20 => "ALTER TABLE t REPLICA IDENTITY FULL".into(),
        _ => format!("UPDATE t SET a = a WHERE k > {n}"),
    }
}

type Bag = BTreeMap<String, i64>;

/// Rows as their columns' texts, of the columns that both sides have.
fn bag(client: &mut Client, sql: &str, columns: &[String]) -> Bag {
    let mut bag = Bag::new();
    for row in client.query(sql, &[]).unwrap() {
        let row: Option<serde_json::Value> = row
            .get::<_, Option<String>>(0)
            .map(|it| serde_json::from_str(&it).unwrap());
        let Some(row) = row else { continue };
        let texts: Vec<String> = columns.iter().map(|it| row[it].to_string()).collect();
        *bag.entry(texts.join(",")).or_default() += 1;
    }
    bag
}

fn less(mut a: Bag, b: &Bag) -> Bag {
    for (row, count) in b {
        *a.entry(row.clone()).or_default() -= count;
    }
    a.retain(|_, count| *count != 0);
    a
}

/// Whatever the steps: what is not told is the same on both sides, and the counts add up.
#[test]
fn random_migrations_add_up() {
    let number = |name: &str, usual: u64| {
        std::env::var(name)
            .ok()
            .and_then(|it| it.parse().ok())
            .unwrap_or(usual)
    };
    let (seed, rounds) = (number("PG_FORK_SEED", 11), number("PG_FORK_ROUNDS", 25));
    println!("PG_FORK_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9) + 1);
    let cluster = setup();
    for round in 0..rounds {
        let mut prod = cluster.client("prod");
        let key = ["", ", PRIMARY KEY (k)", ", PRIMARY KEY (u)"][random.below(3) as usize];
        run(&mut prod, &format!(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (k int NOT NULL, u int NOT NULL, a text, b text DEFAULT 'b'{key});
             INSERT INTO t SELECT g, g, 'a' || g % 3, NULL FROM generate_series(1, 35) g"));
        if key.is_empty() {
            run(&mut prod, "INSERT INTO t SELECT * FROM t WHERE k < 9");
        }
        get(&mut prod, "SELECT fork_create('prod', 'f')");
        let mut inside = cluster.client("f");
        let mut steps = Vec::new();
        for _ in 0..1 + random.below(8) {
            let step = step(&mut random);
            let _ = inside.batch_execute(&step);
            steps.push(step);
        }
        let names = "SELECT attname::text FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped";
        let of = |client: &mut Client| -> Vec<String> {
            client
                .query(names, &[])
                .unwrap()
                .iter()
                .map(|row| row.get(0))
                .collect()
        };
        let mine = of(&mut inside);
        let both: Vec<String> = of(&mut prod)
            .into_iter()
            .filter(|name| mine.contains(name))
            .collect();
        let all = "SELECT to_jsonb(t)::text FROM t";
        let (before, after) = (bag(&mut prod, all, &both), bag(&mut inside, all, &both));
        let mut third = cluster.client("third");
        let told = |side: &str| format!("SELECT {side}::text FROM fork_diff_rows('f', 't')");
        let (gone, come) = (
            bag(&mut third, &told("before"), &both),
            bag(&mut third, &told("after"), &both),
        );
        let what = format!("round {round}: {key} {steps:#?}");
        assert_eq!(
            less(before.clone(), &gone),
            less(after.clone(), &come),
            "{what}"
        );
        let sum = |bag: &Bag| bag.values().sum::<i64>();
        let sql =
            "SELECT coalesce(sum(rows_inserted - rows_deleted), 0)::bigint FROM fork_diff('f')";
        let difference: i64 = third.query_one(sql, &[]).unwrap().get(0);
        assert_eq!(difference, sum(&after) - sum(&before), "{what}");
        let sql = "SELECT count(*) FROM fork_diff_rows('f', 't') WHERE change = 'updated' AND before = after";
        assert_eq!(
            third.query_one(sql, &[]).unwrap().get::<_, i64>(0),
            0,
            "{what}"
        );
        drop((prod, inside, third));
        cluster.sql("postgres", "SELECT fork_drop('f')");
    }
}
