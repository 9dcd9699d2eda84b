//! Truncation: what fails in md is a PANIC (storage.c, `RelationTruncate`).
#![allow(unsafe_code)] // passes smgr.c's arguments on to md.c

use crate::pg::{md, process};
use crate::shmem::view::Role;
use crate::smgr::failure::{for_forks, fork_failed};
use crate::smgr::host::Server;
use crate::smgr::ops::{fork_node, route, Fork};
use crate::smgr::own;
use crate::stop_point;
use pg_fork_core::engine::{self, EngineError};
use pg_fork_core::types::MapState;
use pgrx::pg_sys::{self, BlockNumber, SMgrRelation};

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
        // What is past the end goes without md: what fails there is a PANIC (storage.c, `RelationTruncate`).
        if let Err(error) = own::shorten(reln, db, rel, blocks) {
            fork_failed(db, "truncate", &EngineError::Host(error));
        }
    }
}
