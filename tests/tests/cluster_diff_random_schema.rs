//! fork_diff_schema under random statements, against dumps of both sides. `PG_FORK_ROUNDS` (18) says how
//! many comparisons, `PG_FORK_SEED` which statements.

use pg_fork_tests::dump::{objects, plain, ORDER};
use pg_fork_tests::Cluster;
use std::collections::{BTreeMap, BTreeSet};

#[path = "random_schema/statements.rs"]
mod statements;
use statements::{SET_UP, STATEMENTS};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

const TABLES: [&str; 7] = ["t", "s.u", "\"Up\"", "base", "kid", "parted", "parted_1"];

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }

    /// With its places filled in.
    fn statement(&mut self, pattern: &str) -> String {
        let mut parts = pattern.split('$');
        let mut out = parts.next().unwrap_or("").to_string();
        for part in parts {
            let (what, rest) = part.split_at(1);
            out += &match what {
                "t" => self.pick(&TABLES).to_string(),
                "c" => self.pick(&["a", "b", "c", "\"D\""]).to_string(),
                "r" => self.pick(&["someone", "\"Other\""]).to_string(),
                "x" => format!("x{}", self.below(3)),
                "n" => (1 + self.below(90)).to_string(),
                it => panic!("{it} in {pattern}"),
            };
            out += rest;
        }
        out
    }

    fn shuffled(&mut self) -> Vec<&'static str> {
        let mut all = STATEMENTS.to_vec();
        for n in (1..all.len()).rev() {
            all.swap(n, self.below(n as u64 + 1) as usize);
        }
        all
    }
}

/// By object: what happened to it, its definition before and after.
type Told = BTreeMap<String, (&'static str, String, String)>;

fn told(cluster: &Cluster) -> Told {
    let sql = "SELECT object, change, before, after FROM fork_diff_schema('f')";
    let rows = cluster.client("postgres").query(sql, &[]).expect("rows");
    let mut told = Told::new();
    for row in rows {
        let text = |n| row.get::<_, Option<String>>(n);
        let change = match (row.get(1), text(2).is_some(), text(3).is_some()) {
            ("created", false, true) => "created",
            ("dropped", true, false) => "dropped",
            ("altered", true, true) => "altered",
            other => panic!("{other:?}"),
        };
        let texts = [text(2), text(3)].map(Option::unwrap_or_default);
        let [before, after] = texts;
        let object = plain(row.get(0));
        let twice = told.insert(object.clone(), (change, before, after));
        assert!(twice.is_none(), "{object} is told twice");
    }
    told
}

fn dumped(cluster: &Cluster, db: &str) -> BTreeMap<String, String> {
    objects(&cluster.must("pg_dump", &["--schema-only", "-d", db]))
}

/// What differs between two dumps.
fn expected(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> BTreeMap<String, &'static str> {
    let all: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let change = |object: &String| match (before.get(object), after.get(object)) {
        // Columns that came or went are told by themselves.
        (old, new) if object.starts_with(ORDER) => {
            let lists = [old?, new?].map(|it| it.lines().collect::<Vec<_>>());
            let [old, new] = &lists;
            let kept = old.iter().filter(|it| new.contains(it));
            (!kept.eq(new.iter().filter(|it| old.contains(it)))).then_some("altered")
        }
        (None, _) => Some("created"),
        (_, None) => Some("dropped"),
        (old, new) => (old != new).then_some("altered"),
    };
    let changed = all.into_iter();
    changed
        .filter_map(|it| change(it).map(|change| (it.clone(), change)))
        .collect()
}

/// The definitions that PostgreSQL prints itself.
fn printed(cluster: &Cluster, db: &str) -> BTreeMap<String, String> {
    let sql = "
        SELECT i.type || ' ' || i.identity, d.text FROM (
            SELECT 'pg_proc'::regclass, oid, rtrim(pg_get_functiondef(oid), chr(10)) FROM pg_proc
                WHERE oid >= 16384 AND prokind <> 'a'
          UNION ALL SELECT 'pg_class'::regclass, oid, pg_get_viewdef(oid) FROM pg_class WHERE oid >= 16384 AND relkind IN ('v', 'm')
          UNION ALL SELECT 'pg_class'::regclass, indexrelid, pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid >= 16384
          UNION ALL SELECT 'pg_constraint'::regclass, oid, pg_get_constraintdef(oid) FROM pg_constraint WHERE oid >= 16384
          UNION ALL SELECT 'pg_trigger'::regclass, oid, pg_get_triggerdef(oid) FROM pg_trigger WHERE oid >= 16384 AND NOT tgisinternal
          UNION ALL SELECT 'pg_rewrite'::regclass, oid, pg_get_ruledef(oid) FROM pg_rewrite WHERE oid >= 16384 AND rulename <> '_RETURN'
          UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE oid >= 16384
        ) AS d (class, oid, text) CROSS JOIN LATERAL pg_identify_object(d.class, d.oid, 0) i
        WHERE i.identity NOT LIKE 'pg_toast%'";
    let mut client = cluster.client(db);
    client.batch_execute("SET search_path = ''").expect("set");
    let rows = client.query(sql, &[]).expect("definitions");
    let pairs = rows.iter().map(|row| (plain(row.get(0)), row.get(1)));
    pairs.collect()
}

fn has(printed: &BTreeMap<String, String>, object: &str, text: &str) -> bool {
    let definition = printed.get(object);
    definition.is_none_or(|it| text.contains(it.as_str()))
}

/// Runs these, and says which the server took.
fn run(cluster: &Cluster, db: &str, statements: &[String]) -> Vec<String> {
    let mut client = cluster.client(db);
    let mut log = Vec::new();
    for statement in statements {
        match client.batch_execute(statement) {
            Ok(()) => log.push(statement.clone()),
            Err(error) => {
                let why = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
                log.push(format!("-- {statement} -- {}", why.message()));
            }
        }
    }
    log
}

#[test]
fn random_statements_change_what_dumps_say() {
    let seed = number("PG_FORK_SEED", 7);
    let rounds = number("PG_FORK_ROUNDS", 18);
    println!("PG_FORK_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let cluster = Cluster::new("autovacuum = off");
    cluster.sql("postgres", "CREATE ROLE someone; CREATE ROLE \"Other\"");
    let mut deck: Vec<&str> = Vec::new();
    let mut deal = |random: &mut Random, n: u64| -> Vec<String> {
        let mut hand = Vec::new();
        for _ in 0..n {
            if deck.is_empty() {
                deck = random.shuffled();
            }
            let pattern = deck.pop().expect("a statement");
            hand.push(random.statement(pattern));
        }
        hand
    };
    let (mut seen, mut tried, mut done) = (BTreeSet::new(), 0, 0);
    let mut before = (BTreeMap::new(), BTreeMap::new());
    let mut all = Vec::new();
    for round in 0..rounds {
        // `f` is changed, `g` stays as both were cut. The source goes on by itself, until little is left.
        if round % 3 == 0 {
            if round > 0 {
                cluster.sql("postgres", "SELECT fork_drop('f'); SELECT fork_drop('g')");
            }
            if round % 12 == 0 {
                let anew = "DROP DATABASE IF EXISTS prod; CREATE DATABASE prod";
                cluster.sql("postgres", anew);
                let made = cluster.script("prod", SET_UP);
                assert!(made.stderr.is_empty(), "{made:?}");
            }
            let cut = "SELECT fork_create('prod', 'f'); SELECT fork_create('prod', 'g')";
            cluster.sql("postgres", cut);
            before = (dumped(&cluster, "g"), printed(&cluster, "g"));
            all.clear();
        }
        let count = 10 + random.below(25);
        let log = run(&cluster, "f", &deal(&mut random, count));
        tried += log.len();
        done += log.iter().filter(|it| !it.starts_with("--")).count();
        all.extend(log);
        let elsewhere = random.below(5);
        run(&cluster, "prod", &deal(&mut random, elsewhere));
        let dump = dumped(&cluster, "f");
        let wanted = expected(&before.0, &dump);
        let mut told = told(&cluster);
        // A dump does not say it of tables that inherit.
        told.retain(|object, _| {
            let Some(table) = object.strip_prefix(ORDER) else {
                return true;
            };
            let silent =
                |dump: &BTreeMap<_, _>| !dump.contains_key(object) && dump.contains_key(table);
            !(silent(&before.0) || silent(&dump))
        });
        let found: BTreeMap<String, &str> = told.iter().map(|(k, v)| (k.clone(), v.0)).collect();
        let only = |of: &BTreeMap<String, &'static str>, not: &BTreeMap<String, &'static str>| {
            let only = of.iter().filter(|it| not.get(it.0) != Some(it.1));
            let texts = |object: &str| (told.get(object), before.0.get(object), dump.get(object));
            only.map(|it| format!("{} {}: {:?}", it.1, it.0, texts(it.0)))
                .collect::<Vec<_>>()
        };
        assert!(
            wanted == found,
            "seed {seed} round {round} after\n{}\n\ndumps differ in {wanted:#?}\ntold are {found:#?}\n\
             not told: {:#?}\ninvented or told otherwise: {:#?}",
            all.join(";\n"),
            only(&wanted, &found),
            only(&found, &wanted),
        );
        let after = printed(&cluster, "f");
        for (object, (change, old, new)) in &told {
            assert!(
                (*change == "created" || has(&before.1, object, old))
                    && (*change == "dropped" || has(&after, object, new)),
                "seed {seed} round {round}: {object} was {old}, is {new}"
            );
            seen.insert(object.split(' ').next().unwrap_or_default().to_string());
        }
    }
    println!("{done} of {tried} statements, {seen:?}");
    assert!(done * 2 > tried, "{done} of {tried}");
}
