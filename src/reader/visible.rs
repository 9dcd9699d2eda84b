//! Which tuples of a page a snapshot sees (heapam_visibility.c, `HeapTupleSatisfiesMVCC`), without
//! leaving a hint bit.
#![allow(unsafe_code)] // calls into procarray.c, transam.c, multixact.c

use pg_fork_core::pages::heap::{self, Place, Tuple};
use pg_fork_core::pages::{items, Damaged};
use pg_fork_core::types::Page;
use pgrx::pg_sys;

const PD_ALL_VISIBLE: u8 = 4;
const HEAP_XMAX_KEYSHR_LOCK: u16 = 0x0010;
const HEAP_XMAX_EXCL_LOCK: u16 = 0x0040;
const HEAP_XMAX_LOCK_ONLY: u16 = 0x0080;
const HEAP_XMIN_COMMITTED: u16 = 0x0100;
const HEAP_XMIN_INVALID: u16 = 0x0200;
const HEAP_XMIN_FROZEN: u16 = 0x0300;
const HEAP_XMAX_COMMITTED: u16 = 0x0400;
const HEAP_XMAX_INVALID: u16 = 0x0800;
const HEAP_XMAX_IS_MULTI: u16 = 0x1000;

fn running(xid: u32, snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: a valid snapshot.
    unsafe {
        // Most are older than all that run: a call would cost more than all the rest.
        let xmin = (*snapshot).xmin.into_inner();
        let old = xid < pg_sys::FirstNormalTransactionId.into_inner()
            || (xid.wrapping_sub(xmin) as i32) < 0;
        !old && pg_sys::XidInMVCCSnapshot(xid.into(), snapshot)
    }
}

fn committed(xid: u32) -> bool {
    // SAFETY: an xid that is on a page of a live database: the commit log has it.
    unsafe { pg_sys::TransactionIdDidCommit(xid.into()) }
}

/// Whether the xid is this transaction's, or one of its subtransactions' that was not rolled back. Its rows
/// are there where a session looks into the fork that it is in.
fn own(xid: u32, snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: a valid snapshot; state of this process.
    unsafe {
        let old = (xid.wrapping_sub((*snapshot).xmin.into_inner()) as i32) < 0;
        !old && pg_sys::GetTopTransactionIdIfAny().into_inner() != 0
            && pg_sys::TransactionIdIsCurrentTransactionId(xid.into())
    }
}

/// Whether the snapshot sees the tuple. Of this transaction's own changes all that it has made by now count,
/// whichever command made them.
pub fn sees(tuple: &Tuple, page: &Page, snapshot: pg_sys::Snapshot) -> bool {
    let mask = tuple.infomask;
    match mask & HEAP_XMIN_FROZEN {
        HEAP_XMIN_FROZEN => {}
        HEAP_XMIN_INVALID => return false,
        hint => {
            if !own(tuple.xmin, snapshot)
                && (running(tuple.xmin, snapshot)
                    || (hint != HEAP_XMIN_COMMITTED && !committed(tuple.xmin)))
            {
                return false;
            }
        }
    }
    let locked_only = mask & HEAP_XMAX_LOCK_ONLY != 0
        || mask & (HEAP_XMAX_IS_MULTI | HEAP_XMAX_EXCL_LOCK | HEAP_XMAX_KEYSHR_LOCK)
            == HEAP_XMAX_EXCL_LOCK;
    if mask & HEAP_XMAX_INVALID != 0 || locked_only {
        return true;
    }
    if mask & HEAP_XMAX_IS_MULTI != 0 {
        // SAFETY: a whole header, on a page that is copied or locked.
        let updater =
            unsafe { pg_sys::HeapTupleGetUpdateXid(page.as_ptr().add(tuple.at).cast_mut().cast()) };
        let updater = updater.into_inner();
        return updater == 0
            || (!own(updater, snapshot) && (running(updater, snapshot) || !committed(updater)));
    }
    if own(tuple.xmax, snapshot) {
        return false;
    }
    running(tuple.xmax, snapshot) || (mask & HEAP_XMAX_COMMITTED == 0 && !committed(tuple.xmax))
}

/// Whether a tuple is one that was ever put there for good: a row's chunks in a TOAST table, which live
/// and die with the row (heapam_visibility.c, `HeapTupleSatisfiesToast`). Their own numbers say less: VACUUM
/// FULL writes them anew as its own, and leaves the row's.
pub fn kept(tuple: &Tuple) -> bool {
    tuple.infomask & HEAP_XMIN_FROZEN != HEAP_XMIN_INVALID && tuple.xmin != 0
}

/// The places of the tuples of a page that the snapshot sees.
pub fn places(
    page: &Page,
    snapshot: pg_sys::Snapshot,
    found: &mut Vec<Place>,
) -> Result<(), Damaged> {
    if page[10] & PD_ALL_VISIBLE != 0 {
        return heap::all_places(page, found);
    }
    // SAFETY: a valid snapshot.
    let xmin = unsafe { (*snapshot).xmin.into_inner() };
    // Most rows: put there before anything that runs now, and not touched since.
    let settled = HEAP_XMIN_COMMITTED | HEAP_XMAX_INVALID;
    let plain = |tuple: &Tuple| {
        tuple.infomask & settled == settled && (tuple.xmin.wrapping_sub(xmin) as i32) < 0
    };
    let sees = |tuple: &Tuple| plain(tuple) || sees(tuple, page, snapshot);
    heap::places(page, sees, found)
}

/// The tuples of a page that the snapshot sees, in the order of their line pointers.
pub fn on_page(
    page: &Page,
    snapshot: pg_sys::Snapshot,
    found: &mut Vec<Tuple>,
) -> Result<(), Damaged> {
    found.clear();
    let all = page[10] & PD_ALL_VISIBLE != 0;
    for number in 1..=items(page)? {
        if let Some(tuple) = heap::tuple(page, number)? {
            if all || sees(&tuple, page, snapshot) {
                found.push(tuple);
            }
        }
    }
    Ok(())
}
