//! Unlogged relations of forks after a crash: empty, as in any database.
//!
//! `ResetUnloggedRelations` (reinit.c) looks at files, so it resets those that a fork made. What a
//! fork inherited has no init file in its folder: that is reset here, before recovery.

use crate::fork::files;
use crate::shmem::registry::{self, Slot};
use crate::shmem::{pagemap, view};
use crate::smgr::host::Server;
use crate::smgr::{failure, handles, reads};
use pg_fork_core::engine::{current_len, EngineError, FileOf, Host};
use pg_fork_core::types::{MapState, RelFork, PAGE_SIZE};
use std::collections::BTreeSet;
use std::fs;
use std::io;

/// In the postmaster, after a crash.
pub fn reset_all() {
    for (fork, _) in registry::all_forks() {
        if let Err(error) = reset(&fork) {
            let reason = format!(
                "could not reset its unlogged tables: {}",
                failure::describe(&error)
            );
            crate::shmem::load::invalidate(fork.oid, &reason);
        }
    }
}

fn reset(fork: &Slot) -> Result<(), EngineError<io::Error>> {
    let Some(node) = view::node(fork.oid) else {
        return Ok(());
    };
    for init in init_forks(fork.oid) {
        let Some(blocks) = current_len(&Server, fork.oid, &node, init)? else {
            continue;
        };
        let mut pages = vec![[0; PAGE_SIZE]; blocks as usize];
        for (block, page) in (0..).zip(&mut pages) {
            reads::read_now(fork.oid, &node, init, block, page)?;
        }
        for number in 0..3 {
            let rel = RelFork {
                fork: number,
                ..init
            };
            let state = pg_fork_core::engine::fork_state(&Server, fork.oid, &node, rel)?;
            // The fork's own relation, which PostgreSQL resets by itself.
            if matches!(state, MapState::Private | MapState::Gone) {
                continue;
            }
            let state = match number {
                0 => MapState::Own { inherited_len: 0 },
                _ => MapState::Gone,
            };
            // First the state, because what is inherited is not to be seen again.
            pagemap::set_state(fork.oid, node.space, rel, state, true)?;
            handles::forget(fork.oid, rel);
            for segment in 0.. {
                if fs::remove_file(files::segment_path(fork.oid, rel, segment)).is_err() {
                    break;
                }
            }
            for (block, page) in (0..).zip(&pages).filter(|_| number == 0) {
                let file = FileOf { oid: fork.oid, rel };
                Server.write_file(file, block, page)?;
            }
            if number == 0 && pages.is_empty() {
                handles::open(fork.oid, rel, 0, true)?;
            }
        }
    }
    Ok(())
}

/// The init forks that the fork may have: those of its ancestors, and what layers keep of such.
fn init_forks(fork: u32) -> BTreeSet<RelFork> {
    let mut places = view::layers_needed(fork);
    let mut at = fork;
    while let Some(origin) = view::node(at).and_then(|node| node.origin.clone()) {
        at = origin.parent;
        places.push(at);
    }
    let mut found = BTreeSet::new();
    for spc in files::tablespaces() {
        for place in &places {
            let entries = fs::read_dir(files::db_dir(*place, spc));
            for entry in entries.into_iter().flatten().flatten() {
                let rel = entry.file_name().to_str().and_then(files::parse_init);
                found.extend(rel.map(|rel| RelFork { spc, rel, fork: 3 }));
            }
        }
    }
    found
}
