//! Whoever reads a fork's inherited pages leaves nothing to be written: hint bits are set on the way.
//!
//! In the session's own copy of the page, before it is a buffer: no page is dirtied, nothing goes to the WAL.
//! Not while the server recovers, because the commit log is not what it will be.
#![allow(unsafe_code)] // calls into transam.c, reads portals

use crate::pg::{checksum, process};
use pg_fork_core::settle::hints::{self, Outcomes};
use pg_fork_core::types::{Block, Page, RelFork};
use pgrx::pg_sys::{self, CommandTag};
use std::cell::{Cell, RefCell};

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
    let mut changed = missing.is_some_and(|missing| hints::set(page, missing, &mut CommitLog));
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

/// How many outcomes a process remembers: the source's commits want the commit log's lock, too.
const PLACES: usize = 2048;

/// Outcomes of transactions, which never change, for as long as no number can come again: before that the
/// commit log is cut off past it.
struct Known {
    oldest: u32,
    outcomes: Vec<(u32, bool)>,
}

thread_local! {
    static KNOWN: RefCell<Known> = const {
        RefCell::new(Known {
            oldest: 0,
            outcomes: Vec::new(),
        })
    };
}

/// The commit log, for transactions that had ended when the page became a fork's.
struct CommitLog;

impl Outcomes for CommitLog {
    fn committed(&mut self, xid: u32) -> Option<bool> {
        let place = xid as usize % PLACES;
        let oldest = oldest_in_commit_log();
        let known = KNOWN.with_borrow_mut(|known| {
            if known.oldest != oldest || known.outcomes.is_empty() {
                known.oldest = oldest;
                known.outcomes.clear();
                known.outcomes.resize(PLACES, (0, false));
            }
            let (of, outcome) = known.outcomes[place];
            (of == xid).then_some(outcome)
        });
        if known.is_some() {
            return known;
        }
        // May raise an error: nothing is borrowed.
        let outcome = ask(xid, oldest)?;
        KNOWN.with_borrow_mut(|known| known.outcomes[place] = (xid, outcome));
        Some(outcome)
    }
}

fn ask(xid: u32, oldest: u32) -> Option<bool> {
    if !is_in_commit_log(xid, oldest) {
        return None;
    }
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

fn oldest_in_commit_log() -> u32 {
    // SAFETY: one load of shared memory.
    unsafe { (&raw const (*pg_sys::ShmemVariableCache).oldestClogXid).read_volatile() }.into_inner()
}

/// Whether the commit log reaches to it. A page of anything else, taken for a heap's, must not raise an error.
fn is_in_commit_log(xid: u32, oldest: u32) -> bool {
    thread_local! {
        static NEXT: Cell<u32> = const { Cell::new(0) };
    }
    let precedes = |a: u32, b: u32| (a.wrapping_sub(b) as i32) < 0;
    if precedes(xid, oldest) {
        return false;
    }
    if NEXT.get() == 0 || !precedes(xid, NEXT.get()) {
        // SAFETY: the function takes the lock that it needs.
        NEXT.set(unsafe { pg_sys::ReadNextFullTransactionId().value } as u32);
    }
    precedes(xid, NEXT.get())
}
