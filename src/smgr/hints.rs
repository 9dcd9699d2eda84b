//! Whoever reads a fork's inherited pages leaves nothing to be written: hint bits are set on the way.
//!
//! In the session's own copy of the page, before it is a buffer: no page is dirtied, nothing goes to the WAL.
//! Not while the server recovers, because the commit log is not what it will be.
#![allow(unsafe_code)] // calls into transam.c, reads portals

use crate::pg::{checksum, process};
use pg_fork_core::settle::hints::{self, Outcomes};
use pg_fork_core::types::{Block, Page, RelFork};
use pgrx::pg_sys::{self, CommandTag};
use std::cell::Cell;

/// `keeps`: the fork has no page of this relation of its own. It is to have none as long as it only reads:
/// not even by pruning (pruneheap.c, `heap_page_prune_opt`). An update would prune first, to find room on
/// the page, and is let.
pub fn prepare(rel: RelFork, block: Block, page: &mut Page, keeps: bool) {
    if rel.fork != 0 || process::server_in_recovery() {
        return;
    }
    let missing = hints::missing(page);
    let prunable = keeps && hints::prunable(page) && only_reads();
    if missing.is_none() && !prunable {
        return;
    }
    // A page that is not what was written stays as it is, for its reader to be told so.
    if !checksum::is_right(page, block) {
        return;
    }
    let mut changed =
        missing.is_some_and(|missing| hints::set(page, missing, &mut CommitLog::default()));
    changed |= prunable && hints::clear_prunable(page);
    if changed {
        checksum::set(page, block);
    }
}

/// Whether what runs is a statement that changes no rows, in a transaction that has changed none.
fn only_reads() -> bool {
    // SAFETY: a plain variable of this process; the portal that is running, if there is one.
    unsafe {
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

/// The commit log, for transactions that had ended when the page became a fork's. Pages often have many
/// tuples of one transaction.
#[derive(Default)]
struct CommitLog {
    last: Option<(u32, Option<bool>)>,
}

impl Outcomes for CommitLog {
    fn committed(&mut self, xid: u32) -> Option<bool> {
        if let Some((_, known)) = self.last.filter(|(last, _)| *last == xid) {
            return known;
        }
        let known = committed(xid);
        self.last = Some((xid, known));
        known
    }
}

fn committed(xid: u32) -> Option<bool> {
    if !is_in_commit_log(xid) {
        return None;
    }
    // SAFETY: reads the commit log, where it is.
    unsafe {
        if pg_sys::TransactionIdDidCommit(xid.into()) {
            return Some(true);
        }
        // One that ended with its server is neither: whoever reads the tuple finds out.
        pg_sys::TransactionIdDidAbort(xid.into()).then_some(false)
    }
}

/// Whether the commit log reaches to it. A page of anything else, taken for a heap's, must not raise an error.
fn is_in_commit_log(xid: u32) -> bool {
    thread_local! {
        static NEXT: Cell<u32> = const { Cell::new(0) };
    }
    let precedes = |a: u32, b: u32| (a.wrapping_sub(b) as i32) < 0;
    // SAFETY: one load of shared memory; the function takes the lock that it needs.
    unsafe {
        if precedes(
            xid,
            (*pg_sys::ShmemVariableCache).oldestClogXid.into_inner(),
        ) {
            return false;
        }
        if NEXT.get() == 0 || !precedes(xid, NEXT.get()) {
            NEXT.set(pg_sys::ReadNextFullTransactionId().value as u32);
        }
    }
    precedes(xid, NEXT.get())
}
