//! Whoever reads a fork's inherited pages leaves nothing to be written. What hint bits would say is settled on the way
//! ([`super::settle`]); here pages are made to look as if pruning were of no use.
//!
//! In the session's own copy of the page, before it is a buffer: no page is dirtied, nothing goes to the WAL.
#![allow(unsafe_code)] // reads portals

use crate::pg::{checksum, process};
use pg_fork_core::settle::pruning;
use pg_fork_core::types::{Block, Page, RelFork};
use pgrx::pg_sys::{self, CommandTag};

/// `keeps`: the fork has no page of this relation of its own. It is to have none as long as it only reads:
/// not even by pruning (pruneheap.c, `heap_page_prune_opt`). An update would prune first, to find room on
/// the page, and is let.
pub fn prepare(rel: RelFork, block: Block, page: &mut Page, keeps: bool) {
    if rel.fork != 0 || !keeps || process::server_in_recovery() {
        return;
    }
    // A page that is not what was written stays as it is, for its reader to be told so.
    if pruning::prunable(page) && only_reads() && checksum::is_right(page, block) {
        pruning::clear_prunable(page);
        checksum::set(page, block);
    }
}

/// Whether what runs is a statement that changes no rows, in a transaction that has changed none.
fn only_reads() -> bool {
    // SAFETY: plain variables of this process; the portal that is running, if there is one. One that is on
    // its way out by an error may have a portal there that is freed.
    unsafe {
        if pg_sys::proc_exit_inprogress {
            return false;
        }
        let portal = pg_sys::ActivePortal;
        let changes = !portal.is_null()
            && matches!(
                (*portal).commandTag,
                CommandTag::CMDTAG_INSERT
                    | CommandTag::CMDTAG_UPDATE
                    | CommandTag::CMDTAG_DELETE
                    | CommandTag::CMDTAG_MERGE
            );
        !changes && pg_sys::GetTopTransactionIdIfAny().into_inner() == 0
    }
}
