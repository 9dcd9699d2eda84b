//! How a process of the source stops for a cut (D4), and the sentinel relations by which the
//! barrier reaches it.
//!
//! Absorbing `PROCSIGNAL_BARRIER_SMGRRELEASE` calls `smgr_close` for each open relation
//! (smgr.c, `smgrreleaseall`). So that there always is one, each process keeps two sentinels,
//! and opens the other again when one is closed.
//!
//! `smgr_open` is no place to open them: the compiler knows that `smgropen` calls entry 0 of a
//! constant table, and calls `mdopen` directly. So they are opened by whatever comes first: another
//! callback, the log-in, the end of the first transaction, a query. A process without them is not taken for
//! stopped. What runs code that looks for no interrupt is stopped where a signal arrives ([`super::halt`]).
//!
//! Who has just come to a database may have absorbed the barrier before it was there. It is kept out while a cut is
//! under way ([`crate::fork::gate`]); where it cannot be, it is counted, and the cut is tried again.
#![allow(unsafe_code)] // calls into smgr.c, and pointers that it keeps

use crate::pg::lwlock::{hold, Which};
use crate::pg::process;
use crate::shmem;
use crate::smgr::halt;
use pgrx::pg_sys;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

static SENTINELS: [AtomicPtr<pg_sys::SMgrRelationData>; 2] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; 2];

/// Which sentinel this is, if it is one: relations 1 and 2 of no database have no files.
pub fn sentinel(rnode: &pg_sys::RelFileNode) -> Option<usize> {
    let number = rnode.relNode.to_u32();
    (rnode.dbNode.to_u32() == 0 && rnode.spcNode.to_u32() == 1663 && (1..=2).contains(&number))
        .then(|| number as usize - 1)
}

/// Whether the barrier can reach this process.
#[inline]
pub fn has_sentinel() -> bool {
    !SENTINELS[0].load(Ordering::Relaxed).is_null()
}

/// Opens the sentinels if they are not open, and stops for a cut: this process was not reached
/// before. Where memory must not be allocated it waits for the next occasion.
#[inline]
pub fn at_callback() {
    if !has_sentinel() && process::may_stop() {
        keep_sentinels(None);
        stop_for_cut();
    }
}

/// Whether this process was counted where it works.
static ARRIVED: AtomicBool = AtomicBool::new(false);

/// At the end of each transaction; the first in a database is the one in which the process came there
/// (postinit.c, `InitPostgres`). Counts it, because it may have changed pages without being reached by a cut.
#[inline]
pub fn at_transaction_end(commits: bool) {
    // An error may have left a callback without saying so.
    halt::leave();
    if !ARRIVED.load(Ordering::Relaxed) {
        arrive(commits);
    }
}

#[cold]
fn arrive(commits: bool) {
    let Some(shared) = shmem::shared() else {
        return;
    };
    let db = process::my_database();
    if db == 0 {
        return;
    }
    ARRIVED.store(true, Ordering::Relaxed);
    halt::install();
    shared.arrivals(db).fetch_add(1, Ordering::SeqCst);
    // A first transaction that fails is the process's last.
    if commits && process::may_stop() {
        keep_sentinels(None);
        stop_for_cut();
    }
}

/// Opens the sentinels that are not open, but `except`. In any process, from `smgr_open` and
/// `smgr_close`; allocates, so an error (out of memory) may be raised.
pub fn keep_sentinels(except: Option<usize>) {
    if process::my_number().is_none() {
        return;
    }
    for (n, slot) in SENTINELS.iter().enumerate() {
        if Some(n) == except || !slot.load(Ordering::Relaxed).is_null() {
            continue;
        }
        let rnode = pg_sys::RelFileNode {
            spcNode: 1663.into(),
            dbNode: pg_sys::InvalidOid,
            relNode: (n as u32 + 1).into(),
        };
        // SAFETY: opening touches no file. The owner pointer is a static, which smgr.c clears when
        // it closes the relation; an owned relation survives the end of transactions.
        unsafe {
            let reln = pg_sys::smgropen(rnode, pg_sys::InvalidBackendId);
            pg_sys::smgrsetowner(slot.as_ptr(), reln);
        }
    }
}

/// Waits if this process's database is being cut and it may wait here (I5).
pub fn stop_for_cut() {
    let Some(shared) = shmem::shared() else {
        return;
    };
    let db = shared.cut_db.load(Ordering::SeqCst);
    if db == 0 || db != process::my_database() || !process::may_stop() {
        return;
    }
    let Some(flag) = process::my_number().and_then(shmem::stopped_flag) else {
        return;
    };
    // Raised before the lock is asked for and lowered while it is held: whoever holds the lock
    // exclusively knows that a process with its flag up is waiting here and changes no page.
    flag.store(true, Ordering::SeqCst);
    let held = hold(Which::Cut, false);
    flag.store(false, Ordering::SeqCst);
    drop(held);
}
