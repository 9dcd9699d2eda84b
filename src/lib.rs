//! pg_fork: writable copy-on-write forks of a live database, inside one stock server.
//!
//! Dependencies point one way: SQL surface, hooks and worker → the fork's life → the seams to
//! PostgreSQL (storage manager, shared memory) → thin wrappers; and all of them → the pure core.

mod attach;
mod diff;
mod fork;
mod guc;
mod hooks;
mod isolation;
mod mount;
mod pg;
mod reader;
mod remote;
mod shmem;
mod smgr;
mod sql;
mod stop_point;
mod worker;

use pgrx::pg_sys::ffi; // for #[pg_guard] on blocks of foreign functions
use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

/// Loads the library: the postmaster runs it once, under `shared_preload_libraries`.
///
/// Anywhere else it raises 55000: every process must have the hooks, from the start.
#[allow(unsafe_code)] // C calls it by this name
#[allow(non_snake_case)]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    init::init();
}

mod init {
    //! The order in which things are put in place.
    #![allow(unsafe_code)] // saves and sets raw hook variables

    use super::*;
    use crate::{attach, fork, guc, hooks, isolation, mount, shmem, smgr, stop_point, worker};
    use pgrx::pg_sys;
    use pgrx::pg_sys::panic::ErrorReport;
    use std::sync::OnceLock;

    static PREVIOUS_REQUEST: OnceLock<pg_sys::shmem_request_hook_type> = OnceLock::new();
    static PREVIOUS_STARTUP: OnceLock<pg_sys::shmem_startup_hook_type> = OnceLock::new();

    /// No backtrace of ours goes to a user, whatever the server's environment says: the standard library
    /// looks at it once, for the first backtrace (std::backtrace, `Backtrace::enabled`), and pgrx puts what
    /// it gets into the error's DETAIL. Every process inherits the answer.
    fn without_backtraces() {
        const NAME: &str = "RUST_LIB_BACKTRACE";
        let last = std::env::var_os(NAME);
        std::env::set_var(NAME, "0");
        let _ = std::backtrace::Backtrace::capture();
        match last {
            Some(last) => std::env::set_var(NAME, last),
            None => std::env::remove_var(NAME),
        }
    }

    pub fn init() {
        without_backtraces();
        // SAFETY: a plain variable.
        if !unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
            ErrorReport::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "pg_fork must be loaded when the server starts",
                "pg_fork",
            )
            .set_hint("Put shared_preload_libraries = 'pg_fork' into postgresql.conf and restart the server.")
            .report(PgLogLevel::ERROR);
        }
        refuse_unknown_server();
        guc::register();
        stop_point::register();
        install_hooks();
        fork::pending::register();
        hooks::relmap::install();
        hooks::lookups::register();
        hooks::messages::register();
        hooks::session::register();
        hooks::utility::register();
        attach::register();
        mount::am::register();
        isolation::register();
        worker::register();
        // SAFETY: hook variables, chained, in the postmaster.
        unsafe {
            let _ = PREVIOUS_REQUEST.set(pg_sys::shmem_request_hook);
            let _ = PREVIOUS_STARTUP.set(pg_sys::shmem_startup_hook);
            pg_sys::shmem_request_hook = Some(shmem_request);
            pg_sys::shmem_startup_hook = Some(shmem_startup);
        }
    }

    fn fatal(message: &'static str, detail: String) -> ! {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message,
            "pg_fork",
        )
        .set_detail(detail)
        .set_hint("Remove pg_fork from shared_preload_libraries to start the server without it.")
        .report(PgLogLevel::FATAL);
        unreachable!()
    }

    /// `smgr_truncate` has one more argument since 15.11, and the page size is compiled in.
    fn refuse_unknown_server() {
        // SAFETY: GetConfigOption returns a static or palloc'd string, or null.
        let version = unsafe {
            let text = pg_sys::GetConfigOption(c"server_version_num".as_ptr(), true, false);
            if text.is_null() {
                0
            } else {
                std::ffi::CStr::from_ptr(text)
                    .to_str()
                    .ok()
                    .and_then(|t| t.parse().ok())
                    .unwrap_or(0)
            }
        };
        if !(150_011..160_000).contains(&version) || pg_sys::BLCKSZ != 8192 {
            fatal(
                "pg_fork does not know this server",
                format!("It knows PostgreSQL 15.11 to 15.x with pages of 8192 bytes; this is {version}, with {}.", pg_sys::BLCKSZ),
            );
        }
    }

    fn install_hooks() {
        if let Err(error) = smgr::table::install(smgr::callbacks::table()) {
            fatal(
                "pg_fork cannot find the storage manager's table in this server",
                error.0,
            );
        }
        if let Err(error) = smgr::table::install_sync(hooks::sync::sync_file) {
            fatal(
                "pg_fork cannot find the checkpointer's table in this server",
                error.0,
            );
        }
        let missing = hooks::sizes::install();
        if !missing.is_empty() {
            warning!(
                "pg_fork: sizes of forks will be wrong: not found: {}",
                missing.join(", ")
            );
        }
    }

    #[pg_guard]
    unsafe extern "C-unwind" fn shmem_request() {
        if let Some(previous) = PREVIOUS_REQUEST.get().copied().flatten() {
            // SAFETY: another library's hook.
            unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous()) };
        }
        shmem::request();
    }

    #[pg_guard]
    unsafe extern "C-unwind" fn shmem_startup() {
        if let Some(previous) = PREVIOUS_STARTUP.get().copied().flatten() {
            // SAFETY: another library's hook.
            unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous()) };
        }
        shmem::attach();
    }
}
