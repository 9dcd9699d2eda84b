//! The switch itself, between two transactions of the session.
#![allow(unsafe_code)] // writes the variables that say which database a process works in

use crate::attach::target::Target;
use crate::attach::{caches, idle, session, status};
use crate::pg::lwlock::{hold, Which};
use crate::pg::process;
use crate::shmem;
use crate::shmem::registry::{self, ForkState};
use crate::stop_point;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{c_char, CStr};
use std::sync::atomic::Ordering;

/// The last checks, and what may fail. Raises 55000 if the session still holds anything; then it is
/// where it was.
pub fn prepare(target: &Target) {
    stop_point::at("attach-prepare");
    if let Some(what) = idle::obstacle(target.oid) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("cannot leave the database: {what}")
        );
    }
    session::refuse_listening();
    if registry::fork(target.oid).is_some_and(|fork| fork.state != ForkState::Ready) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "fork \"{}\" is not ready any more",
                target.name.to_string_lossy()
            )
        );
    }
    // What was counted belongs to the old database (pgstat.c: entries are made under `MyDatabaseId`).
    // It also unties the relation cache's entries from their counters.
    // SAFETY: no transaction is open.
    unsafe { pg_sys::pgstat_report_stat(true) };
    stop_point::at("attach-flushed");
}

unsafe fn copy(text: &CStr) -> *mut c_char {
    // SAFETY: lives as long as the process, or until it is freed.
    unsafe { pg_sys::MemoryContextStrdup(pg_sys::TopMemoryContext, text.as_ptr()) }
}

/// Moves the session. An error in here must end it.
pub fn cross(target: &Target) {
    let oid = pg_sys::Oid::from(target.oid);
    // SAFETY: variables of this process, which has no transaction. Interrupts are held off, so that no
    // one finds it between the databases; an error lets them go (elog.c).
    unsafe {
        // 1. First what allocates.
        let (path, name) = (copy(&target.path), copy(&target.name));
        pg_sys::InterruptHoldoffCount += 1;
        // 2. To the others: from here on the process is in the new database.
        appear_in(oid);
        stop_point::at("attach-appeared");
        // 3. To itself.
        pg_sys::MyDatabaseId = oid;
        pg_sys::MyDatabaseTableSpace = target.tablespace.into();
        let last = pg_sys::DatabasePath;
        pg_sys::DatabasePath = path;
        pg_sys::pfree(last.cast());
        stop_point::at("attach-moved");
        // 4. What it knew of the old one, before anything can read a catalog.
        caches::forget_all();
        stop_point::at("attach-forgotten");
        // 5. What is said of it.
        status::tell(oid, name);
        pg_sys::InterruptHoldoffCount -= 1;
    }
}

/// Makes the process one of the new database's for cuts (D4), drops and horizons.
///
/// A cut counts the processes of a database while it holds the lock exclusively. Who is here changes
/// no page and has no transaction: it counts as stopped while it waits for the lock, for a cut of the
/// old database, and comes to the new one before or after a cut of that, never during one.
unsafe fn appear_in(oid: pg_sys::Oid) {
    let flag = process::my_number().and_then(shmem::stopped_flag);
    if let Some(flag) = flag {
        flag.store(true, Ordering::SeqCst);
    }
    let held = hold(Which::Cut, false);
    if let Some(flag) = flag {
        flag.store(false, Ordering::SeqCst);
    }
    // SAFETY: this process's own entry. The lock is the one under which others look at its fast-path
    // locks together with its database (lock.c, `FastPathTransferRelationLocks`); it has none now.
    unsafe {
        let proc = pg_sys::MyProc;
        let fast_path = &raw mut (*proc).fpInfoLock;
        pg_sys::LWLockAcquire(fast_path, pg_sys::LWLockMode::LW_EXCLUSIVE);
        (&raw mut (*proc).databaseId).write_volatile(oid);
        pg_sys::LWLockRelease(fast_path);
    }
    drop(held);
}
