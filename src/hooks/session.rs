//! Where a process that reads nothing but cached pages meets its sentinels: at the log-in, at the end of its
//! first transaction, and at each query.
#![allow(unsafe_code)] // hooks that C calls

use crate::attach;
use crate::isolation;
use crate::mount::watch;
use crate::pg::raw;
use crate::shmem;
use crate::smgr::stop;
use pgrx::pg_guard;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use std::ffi::c_void;
use std::sync::OnceLock;

type LogIn = unsafe extern "C-unwind" fn(*mut pg_sys::Port, i32);

extern "C" {
    /// auth.c; pgrx does not bind it.
    static mut ClientAuthentication_hook: Option<LogIn>;
}

static LOG_IN: OnceLock<Option<LogIn>> = OnceLock::new();
static START: OnceLock<pg_sys::ExecutorStart_hook_type> = OnceLock::new();

/// From `_PG_init`.
pub fn register() {
    // SAFETY: while preloading, in the postmaster.
    unsafe {
        let _ = LOG_IN.set(ClientAuthentication_hook);
        ClientAuthentication_hook = Some(log_in);
        let _ = START.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(executor_start);
        // Every process inherits it, those without a log-in too.
        pg_sys::RegisterXactCallback(Some(transaction_ends), std::ptr::null_mut());
    }
}

/// Any process, at the end of each transaction. A commit has not begun to write; at an abort no error may be raised.
#[pg_guard]
unsafe extern "C-unwind" fn transaction_ends(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_COMMIT | XACT_EVENT_PARALLEL_PRE_COMMIT => stop::at_transaction_end(true),
        XACT_EVENT_ABORT | XACT_EVENT_PARALLEL_ABORT => stop::at_transaction_end(false),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn log_in(port: *mut pg_sys::Port, status: i32) {
    if let Some(previous) = LOG_IN.get().copied().flatten() {
        // SAFETY: another library's hook, with the caller's arguments.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous(port, status)) };
    }
    crate::fork::restart::show_all();
    stop::at_callback();
    attach::settings::note_base();
    // SAFETY: a plain variable: replication connections speak another protocol.
    if shmem::any_live() && !unsafe { pg_sys::am_walsender } {
        attach::comm::note_login();
    }
}

/// Any process that runs queries. Not guarded as a whole: see `pg::raw`.
unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: i32) {
    // SAFETY: the caller's arguments, for another library's hook or the standard one. The frame has
    // nothing to drop.
    unsafe {
        if is_of_interest() {
            pgrx_extern_c_guard(|| before(query, flags));
        }
        match START.get() {
            Some(Some(previous)) => previous(query, flags),
            _ => raw::standard_ExecutorStart(query, flags),
        }
    }
}

/// Whether anything is to be done before the query. Asked for each: nothing here can fail.
fn is_of_interest() -> bool {
    let idle = stop::has_sentinel() && !attach::request::is_waiting() && !watch::is_in_use();
    !idle || isolation::may_be_in_force()
}

unsafe fn before(query: *mut pg_sys::QueryDesc, flags: i32) {
    stop::at_callback();
    attach::request::refuse_while_waiting();
    // SAFETY: the caller's query.
    unsafe {
        isolation::check_query(query, flags);
        if watch::is_in_use() {
            watch::before_execution(query);
        }
    }
}
