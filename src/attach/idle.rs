//! Whether the process holds anything: heavyweight locks, a snapshot, an open cursor.
#![allow(unsafe_code)] // walks this process's entries in the lock table

use pgrx::pg_sys;
use std::mem::offset_of;

/// The type of each lock in the main lock table that is this process's, and its tag.
fn locks() -> Vec<pg_sys::LOCKTAG> {
    let mut found = Vec::new();
    // SAFETY: a partition's list of this process's locks is stable under the partition's lock
    // (lock.c); links are pointers to the `procLink` of the entries, or to the head.
    unsafe {
        let proc = pg_sys::MyProc;
        for n in 0..pg_sys::NUM_LOCK_PARTITIONS as usize {
            let at = pg_sys::LOCK_MANAGER_LWLOCK_OFFSET as usize + n;
            let lock = &raw mut (*pg_sys::MainLWLockArray.add(at)).lock;
            let head = (&raw mut (*proc).myProcLocks)
                .cast::<pg_sys::SHM_QUEUE>()
                .add(n);
            pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
            let mut link = (*head).next;
            while link != head && !link.is_null() {
                let entry = link
                    .byte_sub(offset_of!(pg_sys::PROCLOCK, procLink))
                    .cast::<pg_sys::PROCLOCK>();
                found.push((*(*entry).tag.myLock).tag);
                link = (*link).next;
            }
            pg_sys::LWLockRelease(lock);
        }
    }
    found
}

/// Whether the session holds advisory locks. A call that stands alone can hold none of its own.
pub fn holds_advisory_locks() -> bool {
    locks()
        .iter()
        .any(|tag| u32::from(tag.locktag_type) == pg_sys::LockTagType::LOCKTAG_ADVISORY)
}

/// What keeps the process from moving, if anything does. Between transactions nothing should, but
/// the lock on the database `locked`, which it moves to.
pub fn obstacle(locked: u32) -> Option<&'static str> {
    // SAFETY: plain state of this process.
    unsafe {
        let proc = &*pg_sys::MyProc;
        if pg_sys::IsTransactionOrTransactionBlock() {
            return Some("a transaction is open");
        }
        if proc.xmin.into_inner() != 0 || proc.xid.into_inner() != 0 {
            return Some("a snapshot is held");
        }
        if proc.fpLockBits != 0 || proc.fpVXIDLock {
            return Some("a relation is locked");
        }
        if !pg_sys::ThereAreNoReadyPortals() {
            return Some("a cursor is open");
        }
        if !proc.lockGroupLeader.is_null() && proc.lockGroupLeader != pg_sys::MyProc {
            return Some("the process is a parallel worker");
        }
    }
    let ours = |tag: &pg_sys::LOCKTAG| {
        u32::from(tag.locktag_type) == pg_sys::LockTagType::LOCKTAG_OBJECT
            && tag.locktag_field1 == 0
            && tag.locktag_field3 == locked
    };
    (!locks().iter().all(ours)).then_some("a lock is held")
}
