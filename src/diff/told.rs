//! The differences as rows of text: what SQL matches, from this process or from a worker in the fork.
#![allow(unsafe_code)] // copies a snapshot

use super::rows::{check_types, foreign_column, Rows};
use super::tables::{is_altered, Both, Pair};
use crate::reader::{refuse, At};
use crate::remote::{call, Call, Job, Seen, Side};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

/// Table, side, key, image, data; and of a table itself, whose side is null: schema, name, change, blocks,
/// rewritten, readable.
pub type Told = [Option<String>; 11];

fn side(at: At) -> Option<String> {
    Some(
        match at {
            At::Now => "now",
            At::Cut => "cut",
        }
        .to_string(),
    )
}

/// 128 bits that stand for the text.
fn digest(text: &str) -> String {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, text).hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(1), half(2))
}

/// Raises 42501 unless the caller may read all of the table, on both sides.
fn check_readable(pair: &Pair) {
    if pair.is_readable() {
        return;
    }
    let name = pair.table().map_or("", |table| &table.name);
    refuse(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied for table \"{name}\""),
        "Comparing rows needs SELECT on the whole table, in the fork and at its cut, and no row security.",
    );
}

fn number(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

/// One table's candidates, whole.
fn one(both: &Rc<Both>, pair: &Pair) -> impl Iterator<Item = Told> {
    let opened = both.open_pair(pair);
    check_types(both, &opened);
    Rows::new(both, pair, &opened).map(|row| {
        let mut told = Told::default();
        (told[1], told[2]) = (side(row.at), row.key);
        (told[3], told[4]) = (Some(row.image), Some(row.row));
        told
    })
}

/// A table, and its candidates by digests.
fn counted(both: &Rc<Both>, pair: Pair) -> Box<dyn Iterator<Item = Told>> {
    let Some(shown) = pair.table() else {
        return Box::new(std::iter::empty());
    };
    let oid = number(shown.oid);
    let opened = both.open_pair(&pair);
    let readable = pair.is_readable() && foreign_column(both, &opened).is_none();
    let change = match (&pair.now, &pair.base) {
        (Some(_), None) => Some("created"),
        (None, Some(_)) => Some("dropped"),
        (Some(now), Some(base)) if now.oid != base.oid => Some("recreated"),
        _ => is_altered(both, &pair).then_some("altered"),
    };
    let blocks = match (&opened.blocks, &opened.now) {
        (Some(blocks), _) => blocks.len(),
        (None, Some(now)) => now.pages.count() as usize,
        (None, None) => 0,
    };
    let header: Told = [
        oid.clone(),
        None,
        None,
        None,
        None,
        Some(shown.schema_name.clone()),
        Some(shown.name.clone()),
        change.map(str::to_string),
        number(blocks),
        number(pair.is_rewritten()),
        number(readable),
    ];
    let header = std::iter::once(header);
    if !readable {
        return Box::new(header);
    }
    let rows = Rows::new(both, &pair, &opened).map(move |row| {
        let mut told = Told::default();
        (told[0], told[1]) = (oid.clone(), side(row.at));
        told[2] = row.key.as_deref().map(digest);
        told[3] = Some(digest(&row.image));
        told
    });
    Box::new(header.chain(rows))
}

/// What the fork changed in the table, or in all tables that may differ; here.
pub fn all(fork: &str, table: Option<&str>) -> Box<dyn Iterator<Item = Told>> {
    let both = Rc::new(Both::open(fork));
    match table {
        Some(table) => Box::new(one(&both, &both.named(table))),
        None => {
            let mut pairs = both.pairs();
            pairs.retain(|pair| both.may_differ(pair));
            Box::new(pairs.into_iter().flat_map(move |pair| counted(&both, pair)))
        }
    }
}

/// The same, from a worker in the fork where types are concerned that this database does not have.
///
/// Raises 3D000 (no such database), 42809 (not a fork), 42501 (no CONNECT, or no right to read the table),
/// 42P01 (no such table), 55000 (invalid), 53400 (no background worker is free), 40001 (the transaction's
/// snapshot is older than this session's first look into another database).
pub fn from_anywhere(fork: &str, table: Option<&str>) -> Box<dyn Iterator<Item = Told>> {
    let (foreign, seen) = {
        let both = Both::open(fork);
        let mut pairs = match table {
            Some(table) => vec![both.named(table)],
            None => both.pairs(),
        };
        match table {
            Some(_) => pairs.iter().for_each(check_readable),
            None => pairs.retain(|pair| pair.is_readable() && both.may_differ(pair)),
        }
        let mut opened = pairs.iter().map(|pair| both.open_pair(pair));
        let foreign = opened.any(|opened| foreign_column(&both, &opened).is_some());
        (foreign, seen(&both))
    };
    if !foreign {
        return all(fork, table);
    }
    let mut arguments = fork.to_string();
    if let Some(table) = table {
        arguments.push('\0');
        arguments.push_str(table);
    }
    let mut call = Call::begin(&call::fork_named(fork));
    call.ask(Side::Now, Job::Rows, arguments.as_bytes(), seen);
    Box::new(FromWorker(Some(call)))
}

/// The transaction's snapshot for the worker, where it has one for all of its statements.
fn seen(both: &Both) -> Option<Seen> {
    // SAFETY: plain variables of this process; a registered snapshot, and a copy of that size.
    unsafe {
        if pg_sys::XactIsoLevel < pg_sys::XACT_REPEATABLE_READ as i32 {
            return None;
        }
        let mut snapshot = vec![0u8; pg_sys::EstimateSnapshotSpace(both.snapshot)];
        pg_sys::SerializeSnapshot(both.snapshot, snapshot.as_mut_ptr().cast());
        Some(Seen {
            own: pg_sys::GetTopTransactionIdIfAny().into_inner(),
            snapshot,
        })
    }
}

/// The worker's rows as they come.
struct FromWorker(Option<Call>);

impl Iterator for FromWorker {
    type Item = Told;

    fn next(&mut self) -> Option<Told> {
        match self.0.as_mut()?.next_row() {
            Ok(Some(row)) => Told::try_from(row).ok(),
            Ok(None) => {
                self.0.take()?.finish();
                None
            }
            // What is left of the call goes with the resource owner.
            Err(failure) => failure.raise(),
        }
    }
}
