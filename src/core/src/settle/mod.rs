//! In-place settlement of an inherited heap page (D6): what was in flight at
//! the cut looks aborted, for ever.
//!
//! A fork shares the cluster's commit log with its source, and a transaction
//! that was in flight at the cut may well be marked committed there a moment
//! later. So the verdict is written on the page, in forms that PostgreSQL itself
//! leaves behind:
//!
//! * **Insert in flight**: `HEAP_XMIN_INVALID` without `HEAP_XMIN_COMMITTED`,
//!   the hint for an aborted inserter. Every visibility routine looks at it before
//!   the commit log (heapam_visibility.c).
//! * **Update, delete or lock in flight**: the form in which `heap_prepare_freeze_tuple`
//!   (heapam.c) leaves an aborted xmax: `t_xmax` zero, all of `HEAP_XMAX_BITS`
//!   cleared but `HEAP_XMAX_INVALID`, and no `HEAP_KEYS_UPDATED` or
//!   `HEAP_HOT_UPDATED`. The hint alone would not do: freezing looks at `t_xmax`
//!   whatever the hints say, asks the commit log, and ends with "cannot freeze
//!   committed xmax"; and the number of a multixact must not be taken for an xid.
//! * **Multixact with a committed updater**: the plain updater with
//!   `HEAP_XMAX_COMMITTED`, as `FreezeMultiXactId` (heapam.c) does once the
//!   lockers are gone. `HEAP_KEYS_UPDATED` and `HEAP_HOT_UPDATED` describe that
//!   update and stay.
//!
//! What needs nothing:
//!
//! * `pd_prune_xid` is a hint for when to try pruning; pruning then judges each
//!   tuple by its own bits (`heap_page_prune_opt`, pruneheap.c).
//! * `PD_ALL_VISIBLE`: a page that has it at the cut holds no insert, update or
//!   delete in flight (each of those clears it, and VACUUM sets it only on pages
//!   where all is older than every snapshot), at most lockers, and ending a lock
//!   hides nothing from anyone.
//! * `t_ctid` of an undone update still names the new version. Nobody follows
//!   it while `HEAP_XMAX_INVALID` is set, and the next update or lock sets it.
//! * Tuples moved by VACUUM FULL before 9.0 (`HEAP_MOVED`): their movers ended
//!   before the server was upgraded, so they are in no cut's set.
//! * `pd_checksum` is the caller's, who knows the block's number.

pub mod for_good;
mod inflight;
mod page;
pub mod pruning;
#[cfg(test)]
mod tests;

use std::fmt;

pub use inflight::InFlight;
pub use page::{is_heap_page, PAGE_SIZE};

use page::*;

/// What settlement asks of multixacts and the commit log.
///
/// It may be asked long after the cut, so a committed answer means "committed by
/// now". That suffices: who committed after the cut is in the set of in-flight
/// transactions, and the set is asked first.
pub trait Multis {
    /// The updating member of a multixact; `None` if it has only lockers, or if
    /// its updater did not commit.
    fn updater(&mut self, multi: u32) -> Result<Option<u32>, SettleError>;
    /// Whether `xid` is marked committed in the commit log.
    fn did_commit(&mut self, xid: u32) -> Result<bool, SettleError>;
}

/// Why a page could not be settled. Some of its tuples may be settled already:
/// the caller must not show the page to anyone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettleError {
    /// The slice is not one page of 8192 bytes.
    PageSize(usize),
    /// The members of a multixact could not be read.
    Multi { multi: u32, reason: String },
    /// How a transaction ended could not be read.
    Outcome { xid: u32, reason: String },
}

impl fmt::Display for SettleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageSize(n) => write!(f, "page of {n} bytes instead of {PAGE_SIZE}"),
            Self::Multi { multi, reason } => {
                write!(f, "could not resolve multixact {multi}: {reason}")
            }
            Self::Outcome { xid, reason } => {
                write!(f, "could not tell how transaction {xid} ended: {reason}")
            }
        }
    }
}

impl std::error::Error for SettleError {}

/// Whether a page may hold anything to settle: what nearly all pages do not.
pub fn concerns(page: &[u8], cut: &InFlight, oldest_multi: u32) -> bool {
    !cut.is_empty()
        && is_heap_page(page)
        && tuples(page).any(|(_, at)| {
            let xmax = get_u32(page, at + T_XMAX);
            let ended = if get_u16(page, at + T_INFOMASK) & HEAP_XMAX_IS_MULTI == 0 {
                cut.precedes_all(xmax)
            } else {
                multi_precedes(xmax, oldest_multi)
            };
            !ended || !cut.precedes_all(get_u32(page, at + T_XMIN))
        })
}

/// Settles a heap page as of a cut, and tells whether any byte changed.
///
/// `cut` holds the transactions in flight at the cut, prepared ones and
/// subtransactions included. `oldest_multi` is a multixact no newer than any that
/// had a running member then: older ones are left alone, for their members had
/// all ended and the commit log says how. A page that is no heap page is left
/// alone. To settle a page twice is the same as to settle it once.
pub fn settle_page(
    page: &mut [u8],
    cut: &InFlight,
    oldest_multi: u32,
    multis: &mut dyn Multis,
) -> Result<bool, SettleError> {
    if page.len() != PAGE_SIZE {
        return Err(SettleError::PageSize(page.len()));
    }
    // A multixact runs only as long as one of its members does: with nothing in
    // flight there is none to settle either.
    if cut.is_empty() || !is_heap_page(page) {
        return Ok(false);
    }
    let mut changed = false;
    for line in 0..line_count(page) {
        let Some(at) = tuple_at(page, line) else {
            continue;
        };
        let infomask = get_u16(page, at + T_INFOMASK);
        // One comparison each for a tuple from before the oldest in flight.
        let xmin = get_u32(page, at + T_XMIN);
        if !cut.precedes_all(xmin)
            && infomask & HEAP_XMIN_FROZEN != HEAP_XMIN_FROZEN
            && cut.contains(xmin)
        {
            let settled = infomask & !HEAP_XMIN_COMMITTED | HEAP_XMIN_INVALID;
            changed |= put_u16(page, at + T_INFOMASK, settled);
        }
        let xmax = get_u32(page, at + T_XMAX);
        if infomask & HEAP_XMAX_IS_MULTI == 0 {
            if !cut.precedes_all(xmax) && cut.contains(xmax) {
                changed |= end_xmax(page, at);
            }
        } else if !multi_precedes(xmax, oldest_multi) {
            changed |= match committed_updater(infomask, xmax, cut, multis)? {
                Some(updater) => set_updater(page, at, updater),
                None => end_xmax(page, at),
            };
        }
    }
    Ok(changed)
}

/// The updater in a multixact that committed before the cut, if any.
fn committed_updater(
    infomask: u16,
    multi: u32,
    cut: &InFlight,
    multis: &mut dyn Multis,
) -> Result<Option<u32>, SettleError> {
    // LOCK_ONLY takes in HEAP_LOCKED_UPGRADED, whose number belongs to another
    // cluster and must not be resolved (htup_details.h). XMAX_INVALID on a multixact
    // means that its updater aborted and its lockers have gone.
    if infomask & (HEAP_XMAX_LOCK_ONLY | HEAP_XMAX_INVALID) != 0 || multi == 0 {
        return Ok(None);
    }
    let updater = multis.updater(multi)?;
    // First the set, because the commit log may know of a commit after the cut.
    match updater.filter(|&xid| !cut.contains(xid)) {
        Some(xid) if multis.did_commit(xid)? => Ok(Some(xid)),
        _ => Ok(None),
    }
}

/// Leaves the tuple with neither updater nor locker.
fn end_xmax(page: &mut [u8], at: usize) -> bool {
    let infomask = get_u16(page, at + T_INFOMASK) & !HEAP_XMAX_BITS | HEAP_XMAX_INVALID;
    let infomask2 = get_u16(page, at + T_INFOMASK2) & !(HEAP_KEYS_UPDATED | HEAP_HOT_UPDATED);
    put_u32(page, at + T_XMAX, 0)
        | put_u16(page, at + T_INFOMASK, infomask)
        | put_u16(page, at + T_INFOMASK2, infomask2)
}

/// Leaves the tuple updated or deleted by `updater`, which committed.
fn set_updater(page: &mut [u8], at: usize, updater: u32) -> bool {
    let infomask = get_u16(page, at + T_INFOMASK) & !HEAP_XMAX_BITS | HEAP_XMAX_COMMITTED;
    put_u32(page, at + T_XMAX, updater) | put_u16(page, at + T_INFOMASK, infomask)
}

/// `MultiXactIdPrecedes` (multixact.c).
fn multi_precedes(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}
