//! The tables of a fork beside those of its cut.
#![allow(unsafe_code)] // plain variables of this process

use super::changed::{self, Dirty};
use super::columns::{self, Column};
use super::heads::{self, Head, Leaf};
use crate::fork::catalog;
use crate::reader::page::Pages;
use crate::reader::relation::Catalogs;
use crate::reader::{self, horizon, rights, At};
use crate::shmem::registry;
use pg_fork_core::types::Block;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use std::collections::HashSet;
use std::ffi::CStr;

/// A fork and its cut, held until the transaction's end.
pub struct Both {
    pub now: Catalogs,
    pub base: Catalogs,
    /// Of the text in both.
    pub encoding: i32,
    pub snapshot: pg_sys::Snapshot,
    pub role: Oid,
    dirty: Dirty,
}

/// A table on one side or both.
pub struct Pair {
    pub now: Option<Head>,
    pub base: Option<Head>,
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
            encoding: catalog::encoding_of(fork),
            snapshot,
            // After the snapshot: what it sees was on its page by now.
            dirty: Dirty::of(now),
            role,
        }
    }

    pub fn catalogs(&self, at: At) -> &Catalogs {
        match at {
            At::Now => &self.now,
            At::Cut => &self.base,
        }
    }

    /// All tables of users: first by their numbers, then those that were made anew by their names. A table
    /// that was made partitioned, or plain again, is the table of its name too, whatever else that one became.
    pub fn pairs(&self) -> Vec<Pair> {
        let now = heads::of(&self.now, self.encoding, self.role);
        let base = heads::of(&self.base, self.encoding, self.role);
        let is_named = |a: &Head, b: &Head| (&a.schema, &a.name) == (&b.schema, &b.name);
        let by_number: Vec<Option<usize>> = now
            .iter()
            .map(|head| base.iter().position(|other| other.oid == head.oid))
            .collect();
        let mut taken: HashSet<usize> = by_number.iter().flatten().copied().collect();
        let mut pairs = Vec::new();
        for (head, mut other) in now.iter().zip(by_number) {
            if other.is_none() {
                let same = |n: &usize| is_named(&base[*n], head);
                let free =
                    |n: &usize| !taken.contains(n) || base[*n].partitioned != head.partitioned;
                other = (0..base.len()).find(|n| same(n) && free(n));
                taken.extend(other);
            }
            pairs.push(Pair {
                now: Some(head.clone()),
                base: other.map(|n| base[n].clone()),
            });
        }
        let gone = (0..base.len()).filter(|n| !taken.contains(n));
        pairs.extend(gone.map(|n| Pair {
            now: None,
            base: Some(base[n].clone()),
        }));
        pairs
    }

    /// The pair of that name: as it is in the fork or, if nothing is called so there, as it was at the cut.
    /// Raises 42P01, 42P09 for a name that several schemas have and `public` has not.
    pub fn named(&self, name: &str) -> Pair {
        let parts = parse(name);
        let fits = |head: &Head| match parts.as_slice() {
            [one] => head.name == *one,
            [schema, one] => head.name == *one && head.schema == *schema,
            _ => reader::refuse(
                PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
                format!("improper table name: \"{name}\""),
                "Name a table as table or schema.table.",
            ),
        };
        let mut pairs = self.pairs();
        let sides: [fn(&Pair) -> Option<&Head>; 2] =
            [|pair| pair.now.as_ref(), |pair| pair.base.as_ref()];
        for side in sides {
            let of_name = |pair: &Pair| side(pair).is_some_and(fits);
            let mut found: Vec<usize> = (0..pairs.len()).filter(|n| of_name(&pairs[*n])).collect();
            if found.len() > 1 {
                let usual =
                    |n: &usize| side(&pairs[*n]).is_some_and(|head| head.schema == "public");
                let schemas: Vec<&str> = found
                    .iter()
                    .filter_map(|n| side(&pairs[*n]))
                    .map(|head| head.schema.as_str())
                    .collect();
                match found.iter().copied().find(usual) {
                    Some(one) => found = vec![one],
                    None => ambiguous(name, &schemas.join(", ")),
                }
            }
            if let Some(one) = found.pop() {
                return pairs.swap_remove(one);
            }
        }
        reader::refuse(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("table \"{name}\" exists neither in the fork nor at its cut"),
            "Name a table as table or schema.table; views and foreign tables have no rows of their own.",
        )
    }

    /// The blocks of a relation that may differ, which the fork and its cut have these files of; `None` for all.
    pub fn blocks(&self, now: &Pages, base: &Pages) -> Option<Vec<Block>> {
        if !changed::is_same_file(now, base) {
            return None;
        }
        changed::blocks(self.now.db, now, &self.dirty, (now.count(), base.count()))
    }

    /// Whether the pair's rows need to be looked at: without opening its tables.
    pub fn may_differ(&self, pair: &Pair) -> bool {
        let (Some(now), Some(base)) = (&pair.now, &pair.base) else {
            return true;
        };
        if now.oid != base.oid || self.is_altered(pair) {
            return true;
        }
        pair.leaves().iter().any(|leaves| match leaves {
            (Some(now), Some(base)) => {
                let (now, base) = (self.now.file(now.file), self.base.file(base.file));
                self.blocks(&now, &base).is_none_or(|it| !it.is_empty())
            }
            _ => true,
        })
    }

    /// Whether the table's name or columns changed.
    pub fn is_altered(&self, pair: &Pair) -> bool {
        let (Some(now), Some(base)) = (&pair.now, &pair.base) else {
            return false;
        };
        (&now.schema, &now.name) != (&base.schema, &base.name)
            || columns::is_altered(
                &columns::of(&self.now, now.oid),
                &columns::of(&self.base, base.oid),
            )
    }

    /// The table's columns on one side.
    pub fn columns(&self, at: At, head: Option<&Head>) -> Vec<Column> {
        head.map_or_else(Vec::new, |head| columns::of(self.catalogs(at), head.oid))
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

impl Pair {
    /// The fork's table, or the cut's if the fork has none.
    pub fn table(&self) -> Option<&Head> {
        self.now.as_ref().or(self.base.as_ref())
    }

    /// Whether the role sees all rows and columns on each side that there is.
    pub fn is_readable(&self) -> bool {
        let sides = [&self.now, &self.base];
        sides.into_iter().flatten().all(|it| it.readable)
    }

    /// The relations that the rows lie in, each beside what it was.
    pub fn leaves(&self) -> Vec<(Option<Leaf>, Option<Leaf>)> {
        let of = |head: &Option<Head>| {
            head.as_ref()
                .map_or_else(Vec::new, |head| head.leaves.clone())
        };
        let (now, base) = (of(&self.now), of(&self.base));
        let other = |leaf: &Leaf, all: &[Leaf]| all.iter().find(|it| it.oid == leaf.oid).copied();
        let mut leaves: Vec<_> = now
            .iter()
            .map(|leaf| (Some(*leaf), other(leaf, &base)))
            .collect();
        let gone = base.iter().filter(|leaf| other(leaf, &now).is_none());
        leaves.extend(gone.map(|leaf| (None, Some(*leaf))));
        leaves
    }

    /// Whether a relation was rewritten, so that all its rows have to be compared.
    pub fn is_rewritten(&self) -> bool {
        let moved = |leaves: &(Option<Leaf>, Option<Leaf>)| match leaves {
            (Some(now), Some(base)) => now.file != base.file,
            (now, base) => {
                self.now.is_some() && self.base.is_some() && now.is_some() != base.is_some()
            }
        };
        self.leaves().iter().any(moved)
    }
}

fn ambiguous(name: &str, schemas: &str) -> ! {
    reader::refuse(
        PgSqlErrorCode::ERRCODE_AMBIGUOUS_ALIAS,
        format!("table name \"{name}\" is not unique: it is in the schemas {schemas}"),
        "Name the table as schema.table.",
    )
}

/// The parts of a name that may be qualified and quoted. Raises 42602 for what is no name.
pub fn parse(name: &str) -> Vec<String> {
    let text = crate::pg::text::to_server(name);
    // SAFETY: raises an error if that is no name; a list of palloc'd strings.
    unsafe {
        let list = pg_sys::stringToQualifiedNameList(text.as_ptr());
        let list = pgrx::PgList::<pg_sys::Node>::from_pg(list);
        list.iter_ptr()
            .map(|node| {
                let value = CStr::from_ptr((*node.cast::<pg_sys::String>()).sval);
                crate::pg::text::server(value.to_bytes())
            })
            .collect()
    }
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
