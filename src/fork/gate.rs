//! Keeps who logs in out of a database while it is being cut.
//!
//! Whoever comes to a database locks it as a writer first, says in its `PGPROC` that it is there, and keeps the
//! lock until its first transaction ends (postinit.c, `InitPostgres`): sessions, background workers, autovacuum,
//! parallel workers. Until then it may read catalogs, prune their pages and set hints without ever being
//! reached by the barrier. A share lock on the database waits for those that are on their way, and has the
//! next ones wait.
#![allow(unsafe_code)] // calls into lock.c

use crate::fork::catalog::DATABASE_RELATION;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::time::Duration;

/// The gate of a database, shut until this is dropped.
pub(super) struct Gate(pg_sys::LOCKTAG);

const MODE: i32 = pg_sys::ShareLock as i32;

/// Shuts the gate; `None`: someone stood in it for all this time, and it is open.
///
/// Those on their way take some milliseconds, and who comes meanwhile waits behind this process. But one of
/// them may be asleep, and a transaction that changes the database's row by certain commands has the same lock.
pub(super) fn shut(db: u32, patience: Duration) -> Option<Gate> {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: 0,
        locktag_field2: DATABASE_RELATION,
        locktag_field3: db,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: a whole tag. What this process holds until an error is let go of by the end of its transaction.
    let acquire = move |only_if_free| unsafe {
        let got = pg_sys::LockAcquire(&tag, MODE, false, only_if_free);
        got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    };
    if acquire(true) {
        return Some(Gate(tag));
    }
    // SAFETY: the setting's variable, put back below; proc.c (`ProcSleep`) reads it.
    let usual = unsafe { pg_sys::LockTimeout };
    let wait = move || {
        // SAFETY: as above.
        unsafe { pg_sys::LockTimeout = patience.as_millis().max(1) as i32 };
        acquire(false);
        // The time may have passed at the moment when the lock was granted: its error then comes here.
        pgrx::check_for_interrupts!();
        true
    };
    let got = PgTryBuilder::new(wait)
        .catch_when(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, |_| false)
        .finally(move || {
            // SAFETY: as above.
            unsafe { pg_sys::LockTimeout = usual };
        })
        .execute();
    // SAFETY: asks for a lock of this process.
    let holds = || unsafe { pg_sys::LockHeldByMe(&tag, MODE) };
    (got || holds()).then(|| Gate(tag))
}

impl Drop for Gate {
    fn drop(&mut self) {
        // While an error unwinds, the end of the transaction lets go of it.
        if !std::thread::panicking() {
            // SAFETY: taken in `shut`.
            unsafe { pg_sys::LockRelease(&self.0, MODE, false) };
        }
    }
}
