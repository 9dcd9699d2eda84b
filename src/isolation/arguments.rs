//! Functions of the server whose business depends on their arguments: ours take their place in the server's
//! table of built-in functions.
#![allow(unsafe_code)] // replaced functions

use crate::isolation::{in_force, refuse};
use crate::pg::builtins::{self, Function};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use std::ffi::CStr;
use std::sync::OnceLock;

static CANCEL: OnceLock<Function> = OnceLock::new();
static TERMINATE: OnceLock<Function> = OnceLock::new();
static LOG_MEMORY: OnceLock<Function> = OnceLock::new();
static RESET_TABLE: OnceLock<Function> = OnceLock::new();

/// By their names in C: `server::CHECKED`.
const REPLACED: [(&CStr, Function, &OnceLock<Function>); 4] = [
    (c"pg_cancel_backend", cancel, &CANCEL),
    (c"pg_terminate_backend", terminate, &TERMINATE),
    (c"pg_log_backend_memory_contexts", log_memory, &LOG_MEMORY),
    (
        c"pg_stat_reset_single_table_counters",
        reset_table,
        &RESET_TABLE,
    ),
];

/// From `_PG_init`, in the postmaster. Returns the functions that could not be replaced.
pub fn install() -> Vec<String> {
    // SAFETY: while preloading; functions of the right type.
    let missing = REPLACED
        .iter()
        .filter(|(name, ours, was)| unsafe { !builtins::replace(name, *ours, was) });
    missing
        .map(|(name, ..)| name.to_string_lossy().into_owned())
        .collect()
}

/// # Safety
/// The call has an argument, and its function is strict.
unsafe fn first(call: FunctionCallInfo) -> Datum {
    // SAFETY: by the caller's promise.
    unsafe { (*call).args.as_slice((*call).nargs as usize)[0].value }
}

/// Raises 42501 if the process is not one of this database.
unsafe fn same_fork(call: FunctionCallInfo, what: &str) {
    if !in_force() {
        return;
    }
    // SAFETY: the first argument is a pid; look-ups under ProcArrayLock, and in an array that is as long as
    // the server lives. The checkpointer and its like are in no database.
    unsafe {
        let pid = first(call).value() as i32;
        let mut process = pg_sys::BackendPidGetProc(pid);
        if process.is_null() {
            process = pg_sys::AuxiliaryPidGetProc(pid);
        }
        if !process.is_null() && (*process).databaseId != pg_sys::MyDatabaseId {
            refuse(what);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn cancel(call: FunctionCallInfo) -> Datum {
    // SAFETY: called as pg_cancel_backend(integer).
    unsafe {
        same_fork(call, "cancel statements of sessions that are not");
        builtins::original(&CANCEL, call)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn terminate(call: FunctionCallInfo) -> Datum {
    // SAFETY: called as pg_terminate_backend(integer, bigint).
    unsafe {
        same_fork(call, "end sessions that are not");
        builtins::original(&TERMINATE, call)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn log_memory(call: FunctionCallInfo) -> Datum {
    // SAFETY: called as pg_log_backend_memory_contexts(integer).
    unsafe {
        same_fork(call, "log the memory of sessions that are not");
        builtins::original(&LOG_MEMORY, call)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn reset_table(call: FunctionCallInfo) -> Datum {
    // SAFETY: called as pg_stat_reset_single_table_counters(oid).
    unsafe {
        let relation = pg_sys::Oid::from(first(call).value() as u32);
        if in_force() && pg_sys::IsSharedRelation(relation) {
            refuse("reset statistics of the server");
        }
        builtins::original(&RESET_TABLE, call)
    }
}
