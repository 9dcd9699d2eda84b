//! The background worker: removes the files of what was dropped, and what a crash left behind.
#![allow(unsafe_code)] // a bgworker's entry point, and calls into bufmgr.c and procsignal.c

use crate::fork::{catalog, files, pending};
use crate::shmem::registry::{self, ForkState, Slot, Use};
use crate::shmem::{self, Shared};
use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags,
};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// From `_PG_init`, in the postmaster.
pub fn register() {
    BackgroundWorkerBuilder::new("pg_fork worker")
        .set_type("pg_fork worker")
        .set_function("pg_fork_worker_main")
        .set_library("pg_fork")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

/// Wakes the worker, if it runs.
pub fn wake(shared: &Shared) {
    let latch = shared.worker_latch.load(Ordering::SeqCst);
    if !latch.is_null() {
        // SAFETY: a latch in shared memory, of a PGPROC; at worst another process wakes once too often.
        unsafe { pg_sys::SetLatch(latch) };
    }
}

/// The worker's life.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_fork_worker_main(_arg: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // Shared catalogs only: the worker works in no database, so no cut waits for it.
    // SAFETY: called once, first of all.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) };
    let Some(shared) = shmem::shared() else {
        return;
    };
    // SAFETY: this process's own latch.
    shared
        .worker_latch
        .store(unsafe { pg_sys::MyLatch }, Ordering::SeqCst);
    for spc in files::tablespaces() {
        if let Err(error) = files::ensure_version_file(spc) {
            log!("pg_fork: could not make the version file of tablespace {spc}: {error}");
        }
    }
    BackgroundWorker::transaction(reconcile);
    loop {
        shared.cleanup.store(0, Ordering::SeqCst);
        clean_up();
        if shared.cleanup.load(Ordering::SeqCst) == 0
            && !BackgroundWorker::wait_latch(Some(Duration::from_secs(5)))
        {
            return;
        }
    }
}

/// After a start: a fork lives if and only if its row does.
fn reconcile() {
    for fork in registry::all_forks() {
        let oid = fork.slot.oid;
        if fork.slot.state != ForkState::Creating
            && fork.slot.state != ForkState::Dropping
            && catalog::database_name(oid).is_none()
        {
            log!("pg_fork: removing the fork with OID {oid}: it has no row in pg_database");
            pending::abandon(oid);
        }
    }
}

fn clean_up() {
    let slots: Vec<Slot> = registry::read(|slots| {
        slots
            .iter()
            .filter(|slot| slot.used != Use::Free)
            .copied()
            .collect()
    });
    for slot in &slots {
        match slot.used {
            Use::Fork if slot.state == ForkState::Dropping => bury(slot),
            // SAFETY: a plain read of shared state.
            Use::Tombstone if unsafe { pg_sys::GetRedoRecPtr() } > slot.drop_lsn => {
                files::remove(slot.oid, true);
                free(slot.oid);
            }
            _ => {}
        }
    }
    for slot in slots
        .iter()
        .filter(|slot| slot.used == Use::Layer && slot.forks == 0)
    {
        let needed = |other: &Slot| {
            other.used == Use::Layer
                && other.source == slot.source
                && other.seq < slot.seq
                && other.forks > 0
        };
        // Looked at again under the lock: a fork may be sharing the cut at this moment.
        let dropped = registry::change(|slots| {
            if slots.iter().any(needed) {
                return false;
            }
            match registry::find(slots, slot.oid) {
                Some(layer) if layer.used == Use::Layer && layer.forks == 0 => {
                    *layer = Slot::empty();
                    true
                }
                _ => false,
            }
        });
        if dropped {
            catalog::forget_files(slot.oid);
            files::remove(slot.oid, true);
        }
    }
}

/// Makes a tombstone of a dropped fork, and frees its storage.
fn bury(slot: &Slot) {
    let oid = slot.oid;
    let mut stone = *slot;
    stone.used = Use::Tombstone;
    // SAFETY: a plain read of shared state.
    stone.drop_lsn = unsafe { pg_sys::GetXLogInsertRecPtr() };
    // First the tombstone, because recovery must not meet the fork's WAL without one; a creation
    // cut short may have no folder, and then no WAL either.
    if files::real_dir(oid, files::DEFAULT_TABLESPACE).exists() {
        if let Err(error) = files::write_meta(&registry::meta_of(&stone)) {
            log!("pg_fork: could not write the tombstone of the fork with OID {oid}: {error}");
            return;
        }
    }
    registry::change(|slots| {
        if let Some(slot) = registry::find(slots, oid) {
            *slot = stone;
        }
    });
    // SAFETY: nobody can connect to the database any more; its writes go nowhere by now.
    unsafe { pg_sys::DropDatabaseBuffers(oid.into()) };
    catalog::forget_files(oid);
    // The folder stays: replay of a relation map update needs it (relmapper.c).
    files::remove(oid, false);
}

fn free(oid: u32) {
    registry::change(|slots| {
        if let Some(slot) = registry::find(slots, oid) {
            *slot = Slot::empty();
        }
    });
}
