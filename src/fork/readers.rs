//! Sessions of other databases that read a fork's pages, or its base's: each holds a lock on the fork
//! until its transaction ends.
#![allow(non_snake_case)] // C's names
#![allow(unsafe_code)] // calls into lock.c

use crate::fork::catalog::DATABASE_RELATION;
use crate::shmem::registry::{self, ForkState, Slot};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// sinvaladt.c
    fn BackendIdGetProc(backend: i32) -> *mut pg_sys::PGPROC;
}

/// Not the lock that a login takes: who reads from outside must not keep anyone from connecting, and is
/// told apart by those who drop the fork. No object has this sub-identity.
fn tag(fork: u32) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: 0,
        locktag_field2: DATABASE_RELATION,
        locktag_field3: fork,
        locktag_field4: 1,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}

/// Keeps the fork from being dropped until the transaction's end. `None` if it is gone.
pub fn hold(fork: u32) -> Option<Slot> {
    // SAFETY: a whole tag. Who drops the fork marks it so before it lets go of the lock.
    unsafe { pg_sys::LockAcquire(&tag(fork), pg_sys::AccessShareLock as i32, false, false) };
    registry::fork(fork).filter(|slot| slot.state != ForkState::Dropping)
}

fn try_exclusive(fork: u32) -> bool {
    let mode = pg_sys::AccessExclusiveLock as i32;
    // SAFETY: a whole tag; does not wait.
    let result = unsafe { pg_sys::LockAcquire(&tag(fork), mode, false, true) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Who reads the fork, this session apart.
fn pids(fork: u32) -> Vec<i32> {
    let mut count = 0;
    // SAFETY: a palloc'd array of `count` entries; a process that has ended since is null.
    unsafe {
        let mode = pg_sys::AccessExclusiveLock as i32;
        let found = pg_sys::GetLockConflicts(&tag(fork), mode, &mut count);
        let procs = (0..count as usize).map(|n| BackendIdGetProc((*found.add(n)).backendId));
        procs
            .filter(|proc| !proc.is_null())
            .map(|proc| (*proc).pid)
            .filter(|pid| *pid != 0)
            .collect()
    }
}

/// Locks readers out until the transaction's end. Ends those that there are if `force`, as those that are
/// in the fork. Returns how many are left.
pub fn lock_out(fork: u32, force: bool) -> usize {
    let asked = Instant::now();
    let mut told = Vec::new();
    loop {
        if try_exclusive(fork) {
            return 0;
        }
        let pids = pids(fork);
        if !force || asked.elapsed().as_secs() >= 5 {
            // One that was going just now counts too: the lock is not ours.
            return pids.len().max(1);
        }
        for pid in pids
            .into_iter()
            .filter(|pid| !told.contains(pid))
            .collect::<Vec<_>>()
        {
            end(pid);
            told.push(pid);
        }
        pgrx::check_for_interrupts!();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends a session, with the rights of the caller: raises 42501 where `pg_terminate_backend` does.
fn end(pid: i32) {
    // SAFETY: pg_terminate_backend(pid, timeout) (signalfuncs.c).
    let ended = unsafe {
        pgrx::direct_function_call::<bool>(
            pg_sys::pg_terminate_backend,
            &[
                Some(pg_sys::Datum::from(pid)),
                Some(pg_sys::Datum::from(0i64)),
            ],
        )
    };
    if ended != Some(true) {
        debug1!("pg_fork: the session with pid {pid} had ended by itself");
    }
}
