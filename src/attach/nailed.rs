//! The system relations that are nailed in the relation cache: their entries outlive every flush, and
//! carry the database's number in their lock information.
//!
//! With the old number there, a lock on a catalog is taken under one tag and released under another
//! ("you don't own a lock"), and the process ends in a PANIC.
#![allow(unsafe_code)] // pointers into the relation cache

use crate::attach::refuse;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::Cell;

/// pg_class, pg_attribute, pg_proc, pg_type; then the indexes that `RelationCacheInitializePhase3`
/// (relcache.c) loads. The shared ones' lock information names no database.
const NAILED: [u32; 11] = [
    1259, 1249, 1255, 1247, 2662, 2659, 2679, 2687, 2655, 2693, 2701,
];

thread_local! {
    static ENTRIES: Cell<[pg_sys::Relation; 11]> = const { Cell::new([std::ptr::null_mut(); 11]) };
}

/// Notes where the entries are. In a transaction; once for all, so that a session can leave a fork whose
/// catalogs cannot be read any more.
pub fn find() {
    if !ENTRIES.get()[0].is_null() {
        return;
    }
    let entries = NAILED.map(|oid| {
        // SAFETY: an entry that is nailed is never freed, so its address stays good after the close.
        unsafe {
            let entry = pg_sys::RelationIdGetRelation(oid.into());
            if entry.is_null() || !(*entry).rd_isnailed || (*(*entry).rd_rel).relisshared {
                refuse(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    format!("system relation {oid} is not nailed in the relation cache"),
                    "This server is not as pg_fork knows it. Connect to the fork by its name.",
                );
            }
            pg_sys::RelationClose(entry);
            entry
        }
    });
    ENTRIES.set(entries);
}

/// Sets their lock information anew, for the database that `MyDatabaseId` names now. No transaction
/// is open, so no lock is held through them.
pub fn renew_lock_info() {
    for entry in ENTRIES.get() {
        if !entry.is_null() {
            // SAFETY: see `find`; writes two fields of the entry.
            unsafe { pg_sys::RelationInitLockInfo(entry) };
        }
    }
}
