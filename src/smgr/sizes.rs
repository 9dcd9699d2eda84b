//! Sizes of a fork's relations, which functions that look at files directly would get wrong.

use crate::fork::files;
use crate::shmem::view::{self, Role};
use crate::smgr::host::Server;
use pg_fork_core::engine::current_len;
use pg_fork_core::types::RelFork;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;

/// The bytes that the fork's relations take logically: what a stand-alone copy would take.
/// `None` if it is no fork. Looks at each relation of it and of its ancestors.
pub fn logical_size(oid: u32) -> Option<i64> {
    let Role::Node(node) = view::role(oid) else {
        return None;
    };
    node.origin.as_ref()?;
    let (relations, others) = files_of(oid);
    let lens = relations
        .into_iter()
        .filter_map(|rel| current_len(&Server, oid, &node, rel).ok().flatten());
    Some(others + lens.map(|blocks| i64::from(blocks) * 8192).sum::<i64>())
}

/// The relation forks that a fork may have: some may be gone in it, or not have been there at its cut.
pub fn relations(oid: u32) -> BTreeSet<RelFork> {
    files_of(oid).0
}

/// The relation forks that have files in the fork, its ancestors, or the layers that it reads; and the
/// bytes of the fork's few files that are no relation's.
fn files_of(oid: u32) -> (BTreeSet<RelFork>, i64) {
    let mut places = vec![oid];
    places.extend(view::layers_needed(oid));
    let mut at = oid;
    while let Some(origin) = view::node(at).and_then(|node| node.origin.clone()) {
        at = origin.parent;
        places.push(at);
    }
    let mut relations = BTreeSet::new();
    let mut others = 0;
    for spc in files::tablespaces() {
        for place in &places {
            let entries = fs::read_dir(files::db_dir(*place, spc));
            for entry in entries.into_iter().flatten().flatten() {
                let name = entry.file_name();
                match name.to_str().and_then(|name| parse(spc, name)) {
                    Some(rel) => drop(relations.insert(rel)),
                    // The few files of a database that are no relation's.
                    None if *place == oid && !ours(&name) => {
                        others += entry.metadata().map_or(0, |found| found.len() as i64);
                    }
                    None => {}
                }
            }
        }
    }
    (relations, others)
}

fn ours(name: &OsStr) -> bool {
    name.as_encoded_bytes()
        .starts_with(files::OUR_PREFIX.as_bytes())
}

/// The relation fork that a file belongs to (`parse_filename_for_nontemp_relation`).
fn parse(spc: u32, name: &str) -> Option<RelFork> {
    let stem = name.split('.').next()?;
    let (number, fork) = match stem.split_once('_') {
        None => (stem, 0),
        Some((number, "fsm")) => (number, 1),
        Some((number, "vm")) => (number, 2),
        Some((number, "init")) => (number, 3),
        Some(_) => return None,
    };
    Some(RelFork {
        spc,
        rel: number.parse().ok()?,
        fork,
    })
}
