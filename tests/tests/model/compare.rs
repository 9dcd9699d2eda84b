//! Compares databases with their twins: by what SQL can see of them, and by pg_amcheck.

use super::world::{ask, World};
use postgres::Client;
use std::collections::BTreeMap;

/// What a part of a database looks like, by the part's name.
type Digest = BTreeMap<String, Vec<String>>;

const LISTING: &str =
    "SELECT c.relname, c.relkind, c.relpersistence, a.attname, a.atttypid::regtype \
     FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind <> 'i' ORDER BY c.relname, a.attnum";
const INDEXES: &str =
    "SELECT indexname, indexdef, tablespace FROM pg_indexes WHERE schemaname = 'public' AND tablename <> ALL ('{skipped}') ORDER BY 1";
const OBJECTS: &str =
    "SELECT m.oid, sum(length(data)), md5(string_agg(data, '' ORDER BY pageno)) \
     FROM pg_largeobject_metadata m LEFT JOIN pg_largeobject l ON l.loid = m.oid GROUP BY 1 ORDER BY 1";

/// Ways to read a table: all of it, and by each kind of index.
const PROBES: [&str; 6] = [
    "SELECT count(*), sum(id), sum(k), md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {t} t",
    "SELECT count(*), sum(k), md5(string_agg(v, ',' ORDER BY id, v)) FROM {t} WHERE id >= 0",
    "SELECT count(*), sum(id) FROM {t} WHERE k BETWEEN 100 AND 300",
    "SELECT count(*), sum(id) FROM {t} WHERE k IN (37, 74, 111)",
    "SELECT count(*), sum(id) FROM {t} WHERE ARRAY[k % 10, id % 10] @> ARRAY[3]",
    "SELECT count(*), sum(id) FROM {t} WHERE point(id, k) <@ box(point(0, 0), point(200, 500))",
];

fn must(client: &mut Client, sql: &str) -> Vec<String> {
    ask(client, sql).unwrap_or_else(|code| panic!("{sql}: {code:?}"))
}

/// `skipped`: tables that an open transaction has locked.
fn digest(client: &mut Client, skipped: &[String]) -> Digest {
    let mut digest = Digest::new();
    for (part, sql) in [
        ("list", LISTING),
        ("indexes", INDEXES),
        ("objects", OBJECTS),
    ] {
        let sql = sql.replace("skipped", &skipped.join(","));
        digest.insert(part.into(), must(client, &sql));
    }
    let names = "SELECT relname, relkind FROM pg_class WHERE relkind IN ('r', 'S') \
                 AND relnamespace = 'public'::regnamespace ORDER BY 1";
    for line in must(client, names) {
        match line.split_once('|') {
            Some((name, "S")) => {
                let sql = format!("SELECT last_value, is_called FROM {name}");
                digest.insert(name.into(), must(client, &sql));
            }
            Some((name, _)) if !skipped.iter().any(|skip| skip == name) => {
                let sql = PROBES.join("; ").replace("{t}", name);
                digest.insert(name.into(), must(client, &sql));
            }
            _ => {}
        }
    }
    digest
}

impl World {
    /// Compares one database or all.
    pub fn compare_some(&mut self) {
        if self.rng.chance(40) {
            return self.compare_all();
        }
        let at = self.rng.below(self.databases.len());
        println!("compare {}", self.databases[at].name);
        self.compare(at);
    }

    pub fn compare_all(&mut self) {
        println!("compare all");
        for at in 0..self.databases.len() {
            self.compare(at);
        }
        let bad = "SELECT name, state, reason FROM pg_forks WHERE state <> 'ready'";
        let bad = self.try_administer(bad).expect("pg_forks answers");
        assert_eq!(bad, ["(0)"], "forks that are not ready");
    }

    fn compare(&mut self, at: usize) {
        let name = self.databases[at].name.clone();
        let tables = self.databases[at].shape.tables.iter();
        let skipped: Vec<String> = tables
            .filter(|table| table.whole_held)
            .map(|table| table.name.clone())
            .collect();
        let twin = digest(self.twin_client(at), &skipped);
        for plan in [
            "RESET enable_indexscan",
            "SET enable_seqscan = off",
            "SET enable_indexscan = off",
        ] {
            must(self.client(at), plan);
            let here = digest(self.client(at), &skipped);
            assert_eq!(here, twin, "{name} (first) and its twin (second), {plan}");
        }
        must(self.client(at), "RESET ALL");
    }

    /// Looks for damage. Not while a transaction is open: the checks would wait for it.
    pub fn check(&mut self, at: usize) {
        let database = &self.databases[at];
        if !database.shape.is_free() {
            return println!("nothing");
        }
        println!("check {}", database.name);
        let name = database.name.clone();
        self.twin_client(at)
            .batch_execute("CREATE EXTENSION IF NOT EXISTS amcheck")
            .expect("amcheck is there");
        self.here.amcheck(&name);
    }

    pub fn check_all(&mut self) {
        for at in 0..self.databases.len() {
            self.check(at);
        }
    }
}
