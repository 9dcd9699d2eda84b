//! Transactions that stay open while other things happen: cuts, above all.
//!
//! The twin gets the statements when the transaction commits. So that this comes to the same,
//! nobody else touches the rows, or the tables, that the transaction has changed.

use super::shape::{Table, HELD_ROWS};
use super::statements;
use super::world::{ask, Answer, World};
use postgres::Client;

pub struct Held {
    pub database: String,
    /// The session; `None` for a prepared transaction.
    pub session: Option<Client>,
    gid: String,
    table: String,
    whole: bool,
    key_share: bool,
    statements: Vec<String>,
    /// What it saw of the table, and is to see until it ends.
    saw: Option<(String, Answer)>,
    /// A table that is there, or gone, once it commits.
    makes: Option<Table>,
    drops: bool,
}

impl Held {
    fn let_go(&self, table: &mut Table) {
        if self.whole {
            table.whole_held = false;
        } else {
            table.rows_held -= 1;
            table.key_shared -= usize::from(self.key_share);
        }
    }
}

/// How many transactions are open at most.
const MOST: usize = 6;

impl World {
    /// Opens a transaction and leaves it open.
    pub fn hold(&mut self, at: usize) {
        let tables = &self.databases[at].shape.tables;
        let names: Vec<usize> = (0..tables.len())
            .filter(|n| tables[*n].is_shared() && !tables[*n].unlogged)
            .collect();
        if names.is_empty() || self.held.len() >= MOST {
            return println!("nothing");
        }
        let database = self.databases[at].name.clone();
        let table = *self.rng.pick(&names);
        let mut table = self.databases[at].shape.tables[table].clone();
        self.fresh += 1;
        let mut held = Held {
            database: database.clone(),
            session: None,
            gid: format!("p{}", self.fresh),
            table: table.name.clone(),
            whole: self.rng.chance(25),
            key_share: self.rng.chance(if table.is_free() { 15 } else { 60 }),
            statements: Vec::new(),
            saw: None,
            makes: None,
            drops: false,
        };
        let rows = format!("id % {HELD_ROWS} = 0 AND id < {}", table.next);
        let (name, free) = (table.name.clone(), table.is_free());
        let watch = free && !held.key_share && self.rng.chance(15);
        held.whole &= free && !held.key_share && !watch;
        if held.key_share {
            let lock = format!("SELECT 1 FROM {name} WHERE {rows} FOR KEY SHARE");
            held.statements
                .push(format!("SELECT count(*) FROM ({lock}) x"));
        } else if !free {
            // On top of others' locks: multixacts with an update.
            let update = format!("UPDATE {name} SET k = (k + 13) % 1000 WHERE {rows}");
            held.statements.push(update);
        } else if watch {
            held.statements
                .push("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ".into());
            let cursor = format!("DECLARE c CURSOR FOR SELECT * FROM {name}; FETCH 3 FROM c");
            held.statements.push(cursor);
        } else if held.whole {
            self.hold_whole(&mut held, &mut table);
        } else {
            self.hold_rows(&mut held, &mut table);
        }
        let mut client = self.here.client(&database);
        let sql = format!("BEGIN; {}", held.statements.join("; "));
        println!("[{database}] holding {}: {sql}", held.gid);
        if let Err(code) = ask(&mut client, &sql) {
            // As the twin would answer, or the next statements would show it.
            return println!("-- {code:?}");
        }
        if watch {
            let look = format!(
                "SELECT count(*), sum(id), md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {} t",
                held.table
            );
            let saw = ask(&mut client, &look);
            (held.saw, held.session) = (Some((look, saw)), Some(client));
        } else if self.rng.chance(25) {
            println!("-- prepared");
            ask(&mut client, &format!("PREPARE TRANSACTION '{}'", held.gid)).expect("it prepares");
        } else {
            held.session = Some(client);
        }
        // The table's own next id, because its new rows have their ids.
        if let Some(shape) = self.databases[at].shape.table(&held.table) {
            shape.next = table.next;
            if held.whole {
                shape.whole_held = true;
            } else {
                shape.rows_held += 1;
                shape.key_shared += usize::from(held.key_share);
            }
        }
        self.held.push(held);
    }

    /// A change or a lock of some rows.
    fn hold_rows(&mut self, held: &mut Held, table: &mut Table) {
        let name = &table.name;
        let rows = format!("id % {HELD_ROWS} = 0 AND id < {}", table.next);
        for _ in 0..1 + self.rng.below(3) {
            let sql = match self.rng.below(8) {
                0 => format!("SELECT count(*) FROM (SELECT 1 FROM {name} WHERE {rows} FOR SHARE) x"),
                1 => format!("SELECT count(*) FROM (SELECT 1 FROM {name} WHERE {rows} FOR UPDATE) x"),
                2 => format!("DELETE FROM {name} WHERE {rows} AND id < {}", self.rng.below(table.next)),
                // More subtransactions than a backend's cache holds.
                3 => format!(
                    "DO $$ BEGIN FOR n IN 1..80 LOOP BEGIN UPDATE {name} SET k = (k + n) % 1000 WHERE {rows} \
                     AND id / {HELD_ROWS} % 80 = n; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$"
                ),
                4 => format!(
                    "SAVEPOINT s; UPDATE {name} SET k = 1 WHERE {rows}; ROLLBACK TO s; UPDATE {name} SET k = (k + 3) % 1000 WHERE {rows}"
                ),
                5 => format!("UPDATE {name} SET v = repeat(md5(id::text), 50) WHERE {rows}"),
                // A lock, and an update on top of it: a multixact.
                6 => format!(
                    "SELECT count(*) FROM (SELECT 1 FROM {name} WHERE {rows} FOR KEY SHARE) x; \
                     SAVEPOINT s; UPDATE {name} SET k = (k + 11) % 1000 WHERE {rows} AND id % 2 = 0; RELEASE s"
                ),
                _ => format!("UPDATE {name} SET k = (k + 7) % 1000 WHERE {rows}"),
            };
            held.statements.push(sql);
        }
        if self.rng.chance(60) {
            held.statements
                .push(statements::insert(&mut self.rng, table));
        }
    }

    /// A change of a table as a whole.
    fn hold_whole(&mut self, held: &mut Held, table: &mut Table) {
        let name = &table.name;
        let sql = match self.rng.below(5) {
            0 => format!("TRUNCATE {name}"),
            1 => {
                held.drops = true;
                format!("DROP TABLE {name}")
            }
            2 => format!("CREATE INDEX i{} ON {name} (k)", self.fresh),
            3 => format!("ALTER TABLE {name} ALTER COLUMN k TYPE int USING k + 1"),
            _ => {
                let made = Table::new(format!("t{}", self.fresh));
                let sql = format!("CREATE TABLE {} AS SELECT id, k, v FROM {name}", made.name);
                held.makes = Some(Table {
                    next: table.next,
                    ..made
                });
                sql
            }
        };
        held.statements.push(sql);
        if !held.drops {
            held.statements
                .push(statements::insert(&mut self.rng, table));
        }
    }

    /// Ends one of the open transactions, in either way.
    pub fn release(&mut self) {
        if self.held.is_empty() {
            return println!("nothing");
        }
        let mut held = self.held.remove(self.rng.below(self.held.len()));
        let commit = self.rng.chance(60);
        let at = self.place(&held.database);
        let end = if commit { "COMMIT" } else { "ROLLBACK" };
        println!("[{}] {end} of {}", held.database, held.gid);
        match held.session.take() {
            Some(mut session) => {
                if let Some((look, saw)) = &held.saw {
                    assert_eq!(&ask(&mut session, look), saw, "{}: {look}", held.gid);
                    ask(&mut session, "FETCH ALL FROM c").expect("the cursor goes on");
                }
                ask(&mut session, end).expect("it ends");
            }
            None => {
                let sql = format!("{end} PREPARED '{}'", held.gid);
                ask(self.client(at), &sql).expect("it ends");
            }
        }
        if commit {
            let sql = format!("BEGIN; {}; COMMIT", held.statements.join("; "));
            ask(self.twin_client(at), &sql).expect("the twin does the same");
        }
        let shape = &mut self.databases[at].shape;
        if let Some(table) = shape.table(&held.table) {
            held.let_go(table);
        }
        if commit && held.drops {
            shape.tables.retain(|table| table.name != held.table);
        }
        if let (true, Some(table)) = (commit, held.makes) {
            shape.tables.push(table);
        }
    }

    /// The sessions of a database, or of all, are gone; prepared transactions are not.
    pub fn sessions_end(&mut self, database: Option<&str>) {
        let (gone, kept) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held: &Held| {
                held.session.is_some() && database.is_none_or(|name| name == held.database)
            });
        self.held = kept;
        for held in gone as Vec<Held> {
            let at = self.place(&held.database);
            if let Some(table) = self.databases[at].shape.table(&held.table) {
                held.let_go(table);
            }
        }
    }

    pub fn place(&self, database: &str) -> usize {
        let mut all = self.databases.iter();
        all.position(|other| other.name == database)
            .expect("the database is known")
    }

    pub fn has_prepared(&self, database: &str) -> bool {
        let mut all = self.held.iter();
        all.any(|held| held.database == database && held.session.is_none())
    }
}
