//! What this session reads in another database must not be vacuumed away there (D17).
//!
//! Horizons of a database regard the snapshots of its own processes, and of those that bear
//! `PROC_AFFECTS_ALL_HORIZONS` (procarray.c, `ComputeXidHorizons`). A snapshot from before this process
//! bore it is good only if it sees what one from after sees.
#![allow(unsafe_code)] // a flag in shared memory that belongs to this process

use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;

/// What the first snapshot after the flag was set saw as running.
struct First {
    xmax: u32,
    running: Vec<u32>,
}

thread_local! {
    static FIRST: RefCell<Option<First>> = const { RefCell::new(None) };
}

/// Whether this session's snapshots are respected everywhere.
pub fn protected() -> bool {
    FIRST.with_borrow(Option::is_some)
}

/// Makes them so, from now on until the session ends: while it has a snapshot, which is while it runs a
/// statement or a transaction.
pub fn protect() {
    // A parallel worker's snapshot is its leader's.
    // SAFETY: a plain variable of this process.
    if protected() || unsafe { pg_sys::ParallelWorkerNumber } >= 0 {
        return;
    }
    // SAFETY: as in `ProcArrayAdd` and vacuum.c: under the lock that readers of the flags hold.
    unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(4)).lock; // ProcArrayLock
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let proc = pg_sys::MyProc;
        (*proc).statusFlags |= pg_sys::PROC_AFFECTS_ALL_HORIZONS as u8;
        let flags = (*pg_sys::ProcGlobal).statusFlags;
        *flags.add((*proc).pgxactoff as usize) = (*proc).statusFlags;
        pg_sys::LWLockRelease(lock);
        // Any relation without a catalog cache: then the snapshot is a new one, and allowed everywhere
        // (snapmgr.c, `GetNonHistoricCatalogSnapshot`).
        let snapshot = new_snapshot();
        let running = std::slice::from_raw_parts((*snapshot).xip, (*snapshot).xcnt as usize);
        let first = First {
            xmax: (*snapshot).xmax.into_inner(),
            running: running.iter().map(|xid| xid.into_inner()).collect(),
        };
        FIRST.set(Some(first));
    }
}

/// A snapshot of this moment. Lives until the next one is asked for.
pub fn new_snapshot() -> pg_sys::Snapshot {
    // SAFETY: pg_largeobject has no catalog cache.
    unsafe { pg_sys::GetCatalogSnapshot(pg_sys::Oid::from(2613)) }
}

/// Whether the snapshot sees what one sees that was respected everywhere when it was taken.
pub fn is_good(snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: a valid snapshot of this process.
    let (xmax, running) = unsafe {
        let snapshot = &*snapshot;
        let running: &[pg_sys::TransactionId] = match snapshot.xcnt {
            0 => &[],
            count => std::slice::from_raw_parts(snapshot.xip, count as usize),
        };
        (snapshot.xmax.into_inner(), running)
    };
    let before = |a: u32, b: u32| (a.wrapping_sub(b) as i32) < 0;
    FIRST.with_borrow(|first| {
        first.as_ref().is_some_and(|first| {
            !before(xmax, first.xmax)
                && running
                    .iter()
                    .map(|xid| xid.into_inner())
                    .all(|xid| !before(xid, first.xmax) || first.running.contains(&xid))
        })
    })
}

/// Raises 40001 for a snapshot that others did not respect when it was taken.
pub fn check(snapshot: pg_sys::Snapshot) {
    // A parallel worker's is its leader's.
    // SAFETY: a plain variable.
    let parallel = unsafe { pg_sys::ParallelWorkerNumber } >= 0;
    if !parallel && !is_good(snapshot) {
        super::refuse(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            "the transaction's snapshot is older than its first look into another database",
            "Run the transaction again: this session's snapshots are respected everywhere from now on.",
        );
    }
}
