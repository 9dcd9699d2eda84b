//! Truncation: what fails in md is a PANIC (storage.c, `RelationTruncate`).
#![allow(unsafe_code)] // passes smgr.c's arguments on to md.c

use crate::fork::files::{self, SEGMENT_BLOCKS};
use crate::pg::{md, process};
use crate::shmem::view::Role;
use crate::smgr::failure::{for_forks, fork_failed};
use crate::smgr::host::Server;
use crate::smgr::ops::{fork_node, own_file, route, Fork};
use crate::stop_point;
use pg_fork_core::engine::{self, EngineError};
use pg_fork_core::types::{MapState, RelFork, PAGE_SIZE};
use pgrx::pg_sys::{self, BlockNumber, SMgrRelation};
use std::fs::OpenOptions;
use std::io;

/// A backend in a critical section (storage.c, `RelationTruncate`), or recovery.
pub unsafe fn smgr_truncate(
    reln: SMgrRelation,
    fork: Fork,
    old_blocks: BlockNumber,
    blocks: BlockNumber,
) {
    // SAFETY: the error context is one of the few that give memory in a critical section (mcxt.c,
    // `MemoryContextInit`). No error comes back from there.
    unsafe {
        let before = pg_sys::CurrentMemoryContext;
        if process::in_critical_section() {
            pg_sys::CurrentMemoryContext = pg_sys::ErrorContext;
        }
        truncate(reln, fork, old_blocks, blocks);
        pg_sys::CurrentMemoryContext = before;
    }
}

unsafe fn truncate(reln: SMgrRelation, fork: Fork, old_blocks: BlockNumber, blocks: BlockNumber) {
    // SAFETY: see smgr_create.
    unsafe {
        let (db, rel, role) = route(&(*reln).smgr_rnode, fork);
        match &role {
            Role::Tombstone | Role::Invalid(_) => return,
            Role::Node(node) if !node.layers.is_empty() => {
                for_forks(
                    db,
                    node,
                    engine::before_truncate(&Server, db, node, rel, blocks),
                );
            }
            _ => {}
        }
        let Some(node) = fork_node(&role) else {
            return md::mdtruncate(reln, fork, old_blocks, blocks);
        };
        let inherited = match engine::before_own_write(&Server, db, node, rel) {
            Ok(len) => len,
            Err(failure) => return fork_failed(db, "truncate", &failure),
        };
        if inherited > blocks {
            // First the inherited length: blocks past it are the fork's own from now on.
            let state = MapState::Own {
                inherited_len: blocks,
            };
            if let Err(error) = crate::shmem::pagemap::set_state(db, node.space, rel, state, true) {
                return fork_failed(db, "truncate", &EngineError::Host(error));
            }
        }
        stop_point::at("truncate-state");
        // Without a file of its own the state says it all. None is made here, because what fails in md
        // is a PANIC (storage.c, `RelationTruncate`).
        if !own_file(reln, fork) {
            return;
        }
        let own = md::mdnblocks(reln, fork);
        if own > blocks {
            if let Err(error) = shorten(db, rel, own, blocks) {
                return fork_failed(db, "truncate", &EngineError::Host(error));
            }
            md::mdtruncate(reln, fork, own, blocks);
        }
    }
}

/// Shortens a fork's own files. md does it again and finds nothing left that could fail.
fn shorten(db: u32, rel: RelFork, own: BlockNumber, blocks: BlockNumber) -> io::Result<()> {
    stop_point::io("truncate-file")?;
    for segment in (blocks / SEGMENT_BLOCKS..=(own - 1) / SEGMENT_BLOCKS).rev() {
        let keep = u64::from(blocks.saturating_sub(segment * SEGMENT_BLOCKS));
        let file = OpenOptions::new()
            .write(true)
            .open(files::segment_path(db, rel, segment))?;
        file.set_len(keep * PAGE_SIZE as u64)?;
    }
    Ok(())
}
