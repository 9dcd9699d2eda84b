//! Processes that have no statements to look at: other extensions' background workers, and connections for
//! replication. They do not work in forks.
//!
//! A fork of a subscriber has the rows by which the subscriber's workers know what to do: a worker of the
//! fork would take the changes that are the source's, from the same slot. So would any other worker that
//! finds its jobs in its database.
//!
//! PostgreSQL has no hook for them. But each process that works in a database begins with a transaction that
//! finds the database, applies its settings, and shows the process in pg_stat_activity (postinit.c,
//! `InitPostgres`): at its end nothing of the process's own has run in the database.
#![allow(unsafe_code)] // a callback that C calls

use crate::attach::request::is_fork;
use crate::isolation::in_force;
use crate::pg::process;
use crate::shmem;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{pgrx_extern_c_guard, ErrorReport};
use pgrx::prelude::*;
use std::ffi::{c_void, CStr};
use std::sync::atomic::{AtomicBool, Ordering};

static BACKGROUND_WORKERS: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Whether this process has had its first transaction. The postmaster has none, so that each process
/// begins without.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// Libraries whose workers are no other extension's: parallel workers and logical replication are the
/// server's own.
const OURS: [&CStr; 2] = [c"postgres", c"pg_fork"];

/// From `_PG_init`.
pub fn register() {
    GucRegistry::define_bool_guc(
        c"pg_fork.background_workers",
        c"Background workers of other extensions work in a fork.",
        c"A superuser can set it on for a fork's database: ALTER DATABASE … SET.",
        &BACKGROUND_WORKERS,
        GucContext::Suset,
        GucFlags::default(),
    );
    // SAFETY: a function of the right type that lives as long as the process.
    unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
}

/// The end of each transaction, of any process. Not guarded as a whole: but for the first it is one branch.
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    if BEGUN.load(Ordering::Relaxed) || event != pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT {
        return;
    }
    BEGUN.store(true, Ordering::Relaxed);
    if shmem::any_live() {
        // SAFETY: a panic becomes a PostgreSQL error; errors may be raised before the commit.
        unsafe { pgrx_extern_c_guard(at_first) };
    }
}

fn at_first() {
    let here = process::my_database();
    if here == 0 || !is_fork(here) {
        return;
    }
    if let Some(worker) = process::foreign_worker(&OURS) {
        if !BACKGROUND_WORKERS.get() {
            end(&worker);
        }
    }
    // SAFETY: a plain variable.
    if unsafe { pg_sys::am_db_walsender } && in_force() {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "connections for replication cannot be made to a fork",
            "pg_fork",
        )
        .set_detail("Its commands would reach out of the fork.")
        .set_hint("A superuser can set pg_fork.isolation = off for the fork's database.")
        .report(PgLogLevel::FATAL);
    }
}

/// Ends the process as one that has done its work: the postmaster does not start it again.
fn end(worker: &process::Worker) -> ! {
    // SAFETY: in a transaction; then the end of the process, which gives up the transaction.
    unsafe {
        let database = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        let database = match database.is_null() {
            true => String::new(),
            false => CStr::from_ptr(database).to_string_lossy().into_owned(),
        };
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!(
                "background worker \"{}\" does not work in fork \"{database}\"",
                worker.name
            ),
            "pg_fork",
        )
        .set_detail(format!(
            "It is function {} of library {}.",
            worker.function, worker.library
        ))
        .set_hint("A superuser can set pg_fork.background_workers = on for the fork's database.")
        .report(PgLogLevel::LOG);
        pg_sys::proc_exit(0)
    }
}
