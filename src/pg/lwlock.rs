//! The extension's lightweight locks, held by a guard.
//!
//! A PostgreSQL error while a guard is held unwinds through it. The guard then
//! releases the lock unless PostgreSQL's own clean-up has done so already.

use pgrx::pg_sys;
use std::sync::atomic::{AtomicPtr, Ordering};

static LOCKS: AtomicPtr<pg_sys::LWLockPadded> = AtomicPtr::new(std::ptr::null_mut());

/// Which of the extension's locks.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// Guards the registry's slots.
    Registry,
    /// Held exclusively by who takes a cut; the source's backends wait for it (D4).
    Cut,
    /// Held shared while a layer is written to, exclusively while its mark changes.
    Marks,
    /// A partition of the page maps.
    Partition(usize),
}

/// Locks to ask for.
pub const COUNT: usize = 3 + pg_fork_core::cache::PARTITIONS;

/// Asks for the locks. In the postmaster, from `shmem_request_hook`.
pub fn request() {
    // SAFETY: called in the one phase in which requests are taken.
    unsafe { pg_sys::RequestNamedLWLockTranche(c"pg_fork".as_ptr(), COUNT as i32) };
}

/// Finds the locks. From `shmem_startup_hook`.
pub fn attach() {
    // SAFETY: the tranche was requested by `request`.
    let locks = unsafe { pg_sys::GetNamedLWLockTranche(c"pg_fork".as_ptr()) };
    LOCKS.store(locks, Ordering::Relaxed);
}

fn pointer(which: Which) -> *mut pg_sys::LWLock {
    let n = match which {
        Which::Registry => 0,
        Which::Cut => 1,
        Which::Marks => 2,
        Which::Partition(n) => 3 + n,
    };
    assert!(n < COUNT);
    // SAFETY: `attach` ran before anyone can ask for a lock, and n is within the tranche.
    unsafe { &raw mut (*LOCKS.load(Ordering::Relaxed).add(n)).lock }
}

/// A held lock.
pub struct Held(*mut pg_sys::LWLock);

/// Takes the lock, waiting for it. No interrupt is served until it is released.
pub fn hold(which: Which, exclusive: bool) -> Held {
    let lock = pointer(which);
    let mode = if exclusive {
        pg_sys::LWLockMode::LW_EXCLUSIVE
    } else {
        pg_sys::LWLockMode::LW_SHARED
    };
    // SAFETY: a lock of ours in shared memory.
    unsafe { pg_sys::LWLockAcquire(lock, mode) };
    Held(lock)
}

/// Numbers of lwlocknames.h.
const XID_GEN_LOCK: usize = 3;
const PROC_ARRAY_LOCK: usize = 4;

/// Releases what `GetRunningTransactionData` (procarray.c) leaves for its caller to release.
///
/// # Safety
/// This process has called it, and not released them yet.
pub unsafe fn release_running_transactions() {
    for number in [PROC_ARRAY_LOCK, XID_GEN_LOCK] {
        // SAFETY: by the caller's promise.
        unsafe { pg_sys::LWLockRelease(&raw mut (*pg_sys::MainLWLockArray.add(number)).lock) };
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: a lock of ours; released only if this process still holds it.
        unsafe {
            if pg_sys::LWLockHeldByMe(self.0) {
                pg_sys::LWLockRelease(self.0);
            }
        }
    }
}
