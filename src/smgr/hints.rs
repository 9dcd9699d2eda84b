//! Whoever reads a fork's inherited pages leaves nothing to be written: hint bits are set on the way.
//!
//! In the session's own copy of the page, before it is a buffer: no page is dirtied, nothing goes to the WAL.
//! Not while the server recovers, because the commit log is not what it will be.
#![allow(unsafe_code)] // calls into transam.c, reads portals

use crate::pg::{checksum, process};
use crate::shmem;
use pg_fork_core::outcomes;
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
    let mut changed = missing.is_some_and(|missing| hints::set(page, &missing, &mut CommitLog));
    changed |= prunable && hints::clear_prunable(page);
    if changed {
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

/// The commit log, for transactions that had ended when the page became a fork's.
struct CommitLog;

impl Outcomes for CommitLog {
    fn committed(&mut self, xid: u32) -> Option<bool> {
        let xid = in_commit_log(xid)?;
        let known = shmem::outcomes();
        if let Some(outcome) = known.get(xid) {
            return Some(outcome);
        }
        let outcome = ask(xid as u32)?;
        known.put(xid, outcome);
        Some(outcome)
    }
}

fn ask(xid: u32) -> Option<bool> {
    // First whether it runs (heapam_visibility.c): one that has committed and waits for a standby still does for
    // all snapshots, and what it deleted must not look dead to VACUUM before.
    // SAFETY: looks at other processes, and reads the commit log, where it is.
    unsafe {
        if pg_sys::TransactionIdIsInProgress(xid.into()) {
            return None;
        }
        // One that ended with its server is marked as neither.
        Some(pg_sys::TransactionIdDidCommit(xid.into()))
    }
}

/// The transaction's full number, if the commit log reaches to it. A page of anything else, taken for a heap's,
/// must not raise an error.
fn in_commit_log(xid: u32) -> Option<u64> {
    thread_local! {
        /// The oldest in the commit log, and the next to come: not less than when they were seen, while the
        /// oldest is the same. So all numbers between them are on the same side of each other.
        static SEEN: Cell<(u32, u64)> = const { Cell::new((0, 0)) };
    }
    // SAFETY: one load of shared memory.
    let oldest =
        unsafe { (&raw const (*pg_sys::ShmemVariableCache).oldestClogXid).read_volatile() };
    let oldest = oldest.into_inner();
    // Without a lock for what is older: that stays so.
    if (xid.wrapping_sub(oldest) as i32) < 0 {
        return None;
    }
    let (of, next) = SEEN.get();
    let known = (of == oldest).then(|| outcomes::full(xid, oldest, next));
    known.flatten().or_else(|| {
        // SAFETY: the function takes the lock that it needs.
        let next = unsafe { pg_sys::ReadNextFullTransactionId().value };
        SEEN.set((oldest, next));
        outcomes::full(xid, oldest, next)
    })
}
