//! The background worker: removes the files of what was dropped, and what a crash left behind.
#![allow(unsafe_code)] // a bgworker's entry point, and calls into bufmgr.c and procsignal.c

use crate::fork::{
    age, catalog, files, marks, merge, restart, room, start, statistics, write_behind,
};
use crate::shmem::load::meta_of;
use crate::shmem::registry::{self, ForkState, Slot, Use};
use crate::shmem::{self, Shared};
use crate::stop_point;
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

/// Asks the worker to look for what was dropped.
pub fn wake(shared: &Shared) {
    shared.cleanup.store(1, Ordering::SeqCst);
    let latch = shared.worker_latch.load(Ordering::SeqCst);
    if !latch.is_null() {
        // SAFETY: a latch in shared memory, of a PGPROC; at worst another process wakes once too often.
        unsafe { pg_sys::SetLatch(latch) };
    }
}

/// Between two spells of work that is in others' way and can wait.
const BREATH: Duration = Duration::from_millis(500);
/// The same between two spells of a merge.
const SHORT_BREATH: Duration = Duration::from_millis(5);

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
    restart::show_all();
    marks::begin();
    let settled = match BackgroundWorker::transaction(start::settle) {
        Some(database) => remove_strangers_in(database),
        None => true,
    };
    start::note_running(settled);
    loop {
        shared.cleanup.store(0, Ordering::SeqCst);
        if BackgroundWorker::sighup_received() {
            // SAFETY: between two rounds of work, as other workers do it.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
        // What a next cut waits for, before and after each of what may take long.
        write_behind::run();
        let cleaned = clean_up();
        remove_witness();
        write_behind::run();
        let tended = marks::tend();
        write_behind::run();
        room::tend();
        age::tend();
        statistics::tend();
        let pause = Duration::from_secs(if shmem::any_live() { 1 } else { 5 });
        let synced = restart::sync_some(false);
        let pause = if tended && synced { pause } else { BREATH };
        let pause = if cleaned { pause } else { SHORT_BREATH };
        let pause = write_behind::next().map_or(pause, |next| next.min(pause));
        if shared.cleanup.load(Ordering::SeqCst) == 0 && !BackgroundWorker::wait_latch(Some(pause))
        {
            restart::sync_some(true);
            marks::end();
            return;
        }
    }
}

/// While there is no fork nothing of ours is in the folder of temporary files. Under the lock, because who makes a fork
/// takes its slot first, and puts the file there after that.
fn remove_witness() {
    if files::witness().exists() {
        registry::touch(|table| {
            if !table.view().iter().any(Slot::is_fork) {
                files::remove_witness();
            }
        });
    }
}

/// Starts a worker in the database, and waits for it.
fn remove_strangers_in(database: u32) -> bool {
    let started = BackgroundWorkerBuilder::new("pg_fork rows worker")
        .set_type("pg_fork rows worker")
        .set_function("pg_fork_rows_main")
        .set_library("pg_fork")
        .enable_spi_access()
        .set_argument(Some(pg_sys::Datum::from(pg_sys::Oid::from(database))))
        // SAFETY: a plain variable of this process.
        .set_notify_pid(unsafe { pg_sys::MyProcPid })
        .load_dynamic();
    let ended = match started {
        Ok(worker) => worker.wait_for_shutdown().is_ok(),
        Err(_) => false,
    };
    if !ended {
        log!("pg_fork: could not start a worker to remove rows of forks that are not here");
    }
    ended && BackgroundWorker::transaction(start::settle).is_none()
}

/// The life of the worker that removes rows of forks that are not here.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_fork_rows_main(database: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGTERM);
    let database = pg_sys::Oid::from(database.value() as u32);
    // SAFETY: called once, first of all.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
    }
    BackgroundWorker::transaction(start::remove_strangers);
}

/// Whether that is all for now.
fn clean_up() -> bool {
    let dropped: Vec<Slot> = registry::read(|table| {
        let gone = |slot: &Slot| slot.is_fork() && slot.state == ForkState::Dropping;
        let dropped = |slot: &&Slot| match slot.used {
            Use::Tombstone => true,
            Use::Base => table
                .get(slot.twin)
                .is_none_or(|fork| fork.used == Use::Tombstone || gone(fork)),
            _ => gone(slot),
        };
        table.iter().filter(dropped).copied().collect()
    });
    for slot in &dropped {
        bury(slot);
    }
    merge::run()
}

/// Removes a dropped fork. Its WAL may be replayed yet; recovery passes over that of a database that
/// has no folder.
fn bury(slot: &Slot) {
    let oid = slot.oid;
    let mut stone = *slot;
    stone.used = Use::Tombstone;
    // First the tombstone, because recovery must not replay into half of the files; a creation cut
    // short may have no folder, and then no WAL either.
    // A base has no `meta` file, which is enough.
    if slot.used != Use::Base && files::real_dir(oid, files::DEFAULT_TABLESPACE).exists() {
        // A fork that bears a mark is not to be trusted after a crash of the machine in any case.
        if let Err(error) = files::write_tombstone(&meta_of(&stone), slot.marked == 0) {
            log!("pg_fork: could not write the tombstone of the fork with OID {oid}: {error}");
            return;
        }
    }
    stop_point::at("bury-tombstone");
    registry::change(|table| table.update(oid, |slot| *slot = stone));
    // Second the buffers, and what the checkpointer has to sync, because both want the files;
    // SAFETY: nobody can connect to the database any more; its writes go nowhere by now.
    unsafe { pg_sys::DropDatabaseBuffers(oid.into()) };
    catalog::forget_files(oid);
    // SAFETY: logical slots of a database that nobody can reach any more, as dropdb has it.
    unsafe { pg_sys::ReplicationSlotsDropDBSlots(oid.into()) };
    // A base has no row whose removal would take them along.
    BackgroundWorker::transaction(|| statistics::forget(oid));
    stop_point::at("bury-buffers");
    // third the files; last the slot, because until then others must not write to them.
    if files::remove(oid, true) {
        stop_point::at("bury-files");
        // Not before: recovery must not meet a fork without its layer.
        registry::change(|table| {
            table.remove(oid);
            table.update(slot.layer, |layer| {
                layer.forks = layer.forks.saturating_sub(1)
            });
        });
    }
}
