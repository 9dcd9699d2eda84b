//! The tables of a fork beside those of its cut.
#![allow(unsafe_code)] // plain variables of this process

use super::changed::{self, Dirty};
use crate::fork::catalog;
use crate::mount::create::{parse, user_tables, Table};
use crate::reader::relation::{self, Catalogs, Relation};
use crate::reader::{self, horizon, rights, At};
use crate::shmem::registry;
use pg_fork_core::types::Block;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;

/// A fork and its cut, held until the transaction's end.
pub struct Both {
    pub now: Catalogs,
    pub base: Catalogs,
    pub snapshot: pg_sys::Snapshot,
    dirty: Dirty,
    role: Oid,
    /// Lives as long as this: what is made later, between two rows of a result, goes there.
    memory: pg_sys::MemoryContext,
}

/// A table on one side or both.
pub struct Pair {
    pub now: Option<Table>,
    pub base: Option<Table>,
}

impl Both {
    /// Raises 3D000 (no such database), 42809 (not a fork), 42501 (no CONNECT on it), 55000 (invalid, or it
    /// accepts no connections).
    pub fn open(name: &str) -> Both {
        let Some(fork) = catalog::database_oid(name) else {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
                format!("database \"{name}\" does not exist")
            );
        };
        if registry::fork(fork).is_none() {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("database \"{name}\" is not a fork")
            );
        }
        // SAFETY: a plain variable of this process.
        let role = unsafe { pg_sys::GetUserId() };
        rights::may_look_into(fork, role);
        let now = reader::hold(fork, At::Now);
        let base = reader::hold(fork, At::Cut);
        horizon::protect();
        let snapshot = statement_snapshot();
        Both {
            now: Catalogs::open(now),
            base: Catalogs::open(base),
            snapshot,
            // After the snapshot: what it sees was on its page by now.
            dirty: Dirty::of(now),
            role,
            // SAFETY: a plain variable of this process.
            memory: unsafe { pg_sys::CurrentMemoryContext },
        }
    }

    /// Runs `what` with its allocations kept as long as this.
    pub fn kept<R>(&self, what: impl FnOnce() -> R) -> R {
        // SAFETY: the context of `open`.
        unsafe {
            let last = pg_sys::MemoryContextSwitchTo(self.memory);
            let result = what();
            pg_sys::MemoryContextSwitchTo(last);
            result
        }
    }

    /// All tables of users: first by their numbers, then those that were made anew by their names.
    pub fn pairs(&self) -> Vec<Pair> {
        let now = user_tables(&self.now, self.role);
        let mut base: Vec<Option<Table>> = user_tables(&self.base, self.role)
            .into_iter()
            .map(Some)
            .collect();
        let mut pairs: Vec<Pair> = now
            .into_iter()
            .map(|now| Pair {
                base: take(&mut base, |it| it.oid == now.oid),
                now: Some(now),
            })
            .collect();
        for pair in pairs.iter_mut().filter(|pair| pair.base.is_none()) {
            let now = pair.now.as_ref();
            pair.base = take(&mut base, |it| {
                now.is_some_and(|now| (&now.schema_name, &now.name) == (&it.schema_name, &it.name))
            });
        }
        let gone = base.into_iter().flatten();
        pairs.extend(gone.map(|base| Pair {
            now: None,
            base: Some(base),
        }));
        pairs
    }

    /// The pair of that name, of the fork or, if it is gone there, of the cut. Raises 42P01.
    pub fn named(&self, name: &str) -> Pair {
        let parts = parse(name);
        let fits = |table: &Table| match parts.as_slice() {
            [one] => table.name == *one,
            [schema, one] => table.name == *one && table.schema_name == *schema,
            _ => false,
        };
        let mut found: Vec<Pair> = self
            .pairs()
            .into_iter()
            .filter(|pair| pair.table().is_some_and(fits))
            .collect();
        if found.len() > 1 {
            found.retain(|pair| pair.table().is_some_and(|it| it.schema_name == "public"));
        }
        match (found.pop(), found.is_empty()) {
            (Some(pair), true) => pair,
            _ => reader::refuse(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("table \"{name}\" exists neither in the fork nor at its cut"),
                "Name a table with rows of its own as table or schema.table.",
            ),
        }
    }

    /// Opens the pair's tables, locking them.
    pub fn open_pair(&self, pair: &Pair) -> Opened {
        let open = |catalogs: &Catalogs, table: &Option<Table>| {
            let oid = table.as_ref()?.oid;
            relation::open(catalogs.db, oid)
        };
        let now = open(&self.now, &pair.now);
        let base = open(&self.base, &pair.base);
        let blocks = self.blocks(now.as_ref(), base.as_ref());
        Opened { now, base, blocks }
    }

    /// Whether the pair's tables need to be looked at: without opening them.
    pub fn may_differ(&self, pair: &Pair) -> bool {
        let (Some(now), Some(base)) = (&pair.now, &pair.base) else {
            return true;
        };
        if (now.file, now.oid) != (base.file, base.oid) || is_altered(self, pair) {
            return true;
        }
        let [now, base] = [(&self.now, now), (&self.base, base)]
            .map(|(catalogs, table)| catalogs.file(table.file));
        let lengths = (now.count(), base.count());
        changed::blocks(self.now.db, &now, &self.dirty, lengths).is_none_or(|it| !it.is_empty())
    }

    fn blocks(&self, now: Option<&Relation>, base: Option<&Relation>) -> Option<Vec<Block>> {
        let (now, base) = (now?, base?);
        if !changed::is_same_file(&now.pages, &base.pages) {
            return None;
        }
        let lengths = (now.pages.count(), base.pages.count());
        changed::blocks(self.now.db, &now.pages, &self.dirty, lengths)
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        // SAFETY: registered in `open`; an error's clean-up has released it by itself.
        unsafe {
            if !std::thread::panicking() && pg_sys::IsTransactionState() {
                pg_sys::UnregisterSnapshot(self.snapshot);
            }
        }
    }
}

/// A pair's tables, opened, and the blocks that may differ: `None` for all.
pub struct Opened {
    pub now: Option<Relation>,
    pub base: Option<Relation>,
    pub blocks: Option<Vec<Block>>,
}

impl Pair {
    /// The fork's table, or the cut's if the fork has none.
    pub fn table(&self) -> Option<&Table> {
        self.now.as_ref().or(self.base.as_ref())
    }

    /// Whether the role sees all rows and columns on each side that there is.
    pub fn is_readable(&self) -> bool {
        let sides = [&self.now, &self.base];
        sides
            .into_iter()
            .flatten()
            .all(|it| it.whole && !it.filtered)
    }

    /// Whether the table was rewritten, so that all rows have to be compared.
    pub fn is_rewritten(&self) -> bool {
        matches!((&self.now, &self.base), (Some(now), Some(base)) if now.file != base.file)
    }
}

/// Whether the table's name or columns changed.
pub fn is_altered(both: &Both, pair: &Pair) -> bool {
    let (Some(now), Some(base)) = (&pair.now, &pair.base) else {
        return false;
    };
    let form = |catalogs: &Catalogs, table: &Table| -> Vec<String> {
        let columns = catalogs.columns(table.oid, table.natts);
        let told = columns
            .iter()
            .map(|it| format!("{} {} {} {}", it.name, it.kind, it.modifier, it.dropped));
        told.collect()
    };
    (&now.schema_name, &now.name) != (&base.schema_name, &base.name)
        || form(&both.now, now) != form(&both.base, base)
}

fn take(tables: &mut [Option<Table>], fits: impl Fn(&Table) -> bool) -> Option<Table> {
    let found = tables.iter_mut().find(|it| it.as_ref().is_some_and(&fits));
    found.and_then(Option::take)
}

/// The transaction's snapshot where it has one for all its statements, else one of this moment; registered.
fn statement_snapshot() -> pg_sys::Snapshot {
    // SAFETY: a function runs with an active snapshot; registered with the portal's resources.
    unsafe {
        let whole = pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32;
        if whole {
            let snapshot = pg_sys::GetActiveSnapshot();
            horizon::check(snapshot);
            return pg_sys::RegisterSnapshot(snapshot);
        }
        pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot())
    }
}
