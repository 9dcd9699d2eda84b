//! `fork_tree`: the forks below their sources, for people. Not in SQL, whose names would be those of
//! whoever owns the extension's schema.
#![allow(unsafe_code)] // C calls it; calls of the server's own functions

use crate::fork::{catalog, cost};
use crate::pg::text;
use crate::shmem::registry::{self, ForkState, Slot};
use crate::sql::api::version_1;
use crate::sql::srf::{self, text_column};
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;
use std::collections::{BTreeMap, HashSet};

version_1!(pg_finfo_fork_tree_c);

/// How a fork stands in `state` columns.
pub fn state_name(state: ForkState) -> &'static str {
    match state {
        ForkState::Creating | ForkState::Ready => "ready",
        ForkState::Dropping => "dropping",
        ForkState::Invalid => "invalid",
    }
}

/// Processes that work in the database, background workers aside.
pub fn sessions(database: u32) -> i32 {
    // SAFETY: counts processes.
    unsafe { pg_sys::CountDBConnections(database.into()) }
}

/// A line of the tree.
struct Line {
    tree: String,
    database: u32,
    fork: Option<Slot>,
}

/// The forks of a database by name, and theirs below them.
struct Tree {
    /// By source, then by name.
    forks: BTreeMap<(u32, String), Slot>,
    lines: Vec<Line>,
}

/// What a fork's line begins with, where the encoding has it.
fn branch() -> &'static str {
    const BRANCH: &str = "└─ ";
    match text::to_or_mark(BRANCH, text::server_encoding()).1 {
        true => BRANCH,
        false => "`- ",
    }
}

/// Its name, and its state unless it is ready.
fn title(name: &str, fork: &Slot) -> String {
    match state_name(fork.state) {
        "ready" => name.to_string(),
        state => format!("{name} ({state})"),
    }
}

impl Tree {
    fn below(&mut self, source: u32, depth: usize) {
        let of_source = (source, String::new())..(source + 1, String::new());
        let forks = self.forks.range(of_source);
        let forks: Vec<_> = forks.map(|(key, fork)| (key.1.clone(), *fork)).collect();
        for (name, fork) in forks {
            let tree = format!("{}{}{}", "   ".repeat(depth), branch(), title(&name, &fork));
            self.lines.push(Line {
                tree,
                database: fork.oid,
                fork: Some(fork),
            });
            self.below(fork.oid, depth + 1);
        }
    }
}

fn lines() -> Vec<Line> {
    let forks = registry::all_forks().into_iter().map(|(fork, _)| fork);
    // One that is not committed, or being dropped, need not have a name.
    let named: Vec<_> = forks
        .filter_map(|fork| catalog::database_name(fork.oid).map(|name| (name, fork)))
        .collect();
    let forks: HashSet<u32> = named.iter().map(|(_, fork)| fork.oid).collect();
    let mut roots = BTreeMap::new();
    for (name, fork) in &named {
        pgrx::check_for_interrupts!();
        if forks.contains(&fork.source) {
            continue;
        }
        match catalog::database_name(fork.source) {
            Some(source) => roots.insert((source, fork.source), None),
            // One whose source is not known, as it is invalid since the start, stands by itself.
            None => roots.insert((name.clone(), fork.oid), Some(*fork)),
        };
    }
    let forks = named
        .iter()
        .map(|(name, fork)| ((fork.source, name.clone()), *fork))
        .collect();
    let mut tree = Tree {
        forks,
        lines: Vec::new(),
    };
    for ((name, database), fork) in roots {
        tree.lines.push(Line {
            tree: fork.map_or(name.clone(), |fork| title(&name, &fork)),
            database,
            fork,
        });
        tree.below(database, 0);
    }
    tree.lines
}

/// The time since the fork's cut, in whole seconds.
fn age(fork: &Slot) -> Option<Datum> {
    if fork.cut_time == 0 {
        return None; // Not known.
    }
    // SAFETY: functions of timestamp.c, with arguments of their types.
    unsafe {
        let now = Datum::from(pg_sys::GetCurrentTransactionStartTimestamp());
        let cut = Datum::from(fork.cut_time);
        let age =
            pgrx::direct_function_call_as_datum(pg_sys::timestamp_mi, &[Some(now), Some(cut)]);
        let unit = Some(text::text_datum("second"));
        pgrx::direct_function_call_as_datum(pg_sys::interval_trunc, &[unit, age])
    }
}

/// Bytes as people read them.
fn size(bytes: i64) -> Option<Datum> {
    let bytes = bytes.into_datum();
    // SAFETY: dbsize.c; an argument of type bigint.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::pg_size_pretty, &[bytes]) }
}

/// `fork_tree()`: the forks of this server as a tree.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_tree_c(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let mut rows = srf::Rows::begin(call);
        let costs = cost::all();
        for line in lines() {
            pgrx::check_for_interrupts!();
            let cost = line.fork.as_ref().map(|fork| costs.get(&fork.oid));
            let cost = cost.map(|cost| cost.copied().unwrap_or_default());
            rows.put(&[
                text_column(Some(&line.tree)),
                line.fork.as_ref().and_then(age),
                cost.and_then(|cost| size(cost.private + cost.preimages)),
                cost.and_then(|cost| size(cost.freed)),
                sessions(line.database).into_datum(),
            ]);
        }
        srf::done(call)
    }
}

extension_sql!(
    r#"
CREATE FUNCTION fork_tree() RETURNS TABLE (tree text, age interval, size text, freed text, sessions int)
    VOLATILE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'fork_tree_c';
COMMENT ON FUNCTION fork_tree() IS 'the forks of this server as a tree, for people';
"#,
    name = "tree_functions"
);
