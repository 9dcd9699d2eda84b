//! Caches of the session that no invalidation reaches.
#![allow(unsafe_code)] // calls into C
#![allow(non_snake_case)] // C's names

use crate::attach::{nailed, plpgsql, postgis, temp};
use pgrx::pg_sys;

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// sequence.c; pgrx does not bind it.
    fn ResetSequenceCaches();
}

/// Forgets all that is known of the database that the session was in. `MyDatabaseId` and
/// `DatabasePath` name the new one. No transaction is open, so no catalog is read here.
pub fn forget_all() {
    // 1. First of all: catalogs are locked by it.
    nailed::renew_lock_info();
    // 2. Values of sequences that were fetched ahead would be used in the other database.
    // SAFETY: frees a hash table of this session's.
    unsafe { ResetSequenceCaches() };
    temp::forget();
    plpgsql::forget();
    postgis::forget();
    // 3. The catalog caches, the relation cache, open files, the relation map, plans, search path,
    // operators, and whatever else has registered a callback (inval.c).
    // SAFETY: as when the queue of invalidations has overflowed.
    unsafe { pg_sys::InvalidateSystemCaches() };
    // 4. Which rows are dead to all is known for the sessions of the old database: work it out for the
    // new one before a page of it is pruned. Assigns `GlobalVisDataRels` and its kin (procarray.c,
    // `GlobalVisUpdateApply`).
    // SAFETY: reads shared state.
    unsafe { pg_sys::GetOldestNonRemovableTransactionId(std::ptr::null_mut()) };
}
