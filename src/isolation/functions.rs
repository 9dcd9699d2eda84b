//! Functions that reach out of the database that they are called in.
#![allow(unsafe_code)] // a hook that C calls, and replaced functions

use crate::isolation::{in_force, refuse, writes};
use crate::pg::builtins::{self, Function};
use crate::shmem;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, ObjectAccessType};
use pgrx::{pg_guard, IntoDatum};
use std::ffi::{c_void, CStr};
use std::sync::OnceLock;

/// Functions of the server, by number (pg_proc.dat).
const REFUSED: [(u32, &str); 35] = [
    (764, "read files of the server with lo_import()"),
    (767, "read files of the server with lo_import()"),
    (765, "write files of the server with lo_export()"),
    (2621, "call pg_reload_conf()"),
    (2622, "call pg_rotate_logfile()"),
    (4099, "call pg_rotate_logfile()"),
    (2172, "call pg_backup_start()"),
    (2739, "call pg_backup_stop()"),
    (2848, "call pg_switch_wal()"),
    (3098, "call pg_create_restore_point()"),
    (3436, "call pg_promote()"),
    (3071, "call pg_wal_replay_pause()"),
    (3072, "call pg_wal_replay_resume()"),
    (3775, "reset statistics of the server"),
    (2307, "reset statistics of the server"),
    (6170, "reset statistics of the server"),
    (6232, "reset statistics of the server"),
    (3779, "create a replication slot"),
    (3786, "create a replication slot"),
    (4220, "create a replication slot"),
    (4221, "create a replication slot"),
    (4222, "create a replication slot"),
    (4223, "create a replication slot"),
    (4224, "create a replication slot"),
    (3780, "drop a replication slot"),
    (3782, "advance a replication slot"),
    (3783, "advance a replication slot"),
    (3878, "advance a replication slot"),
    (3577, "write messages for subscribers"),
    (3578, "write messages for subscribers"),
    (6003, "change replication origins"),
    (6004, "change replication origins"),
    (6006, "change replication origins"),
    (6010, "change replication origins"),
    (6012, "change replication origins"),
];

/// Libraries whose functions connect to servers, write files, or run jobs elsewhere.
const LIBRARIES: [&str; 6] = [
    "dblink",
    "adminpack",
    "pg_cron",
    "pg_background",
    "plproxy",
    "pg_net",
];

static PREVIOUS: OnceLock<pg_sys::object_access_hook_type> = OnceLock::new();
static CANCEL: OnceLock<Function> = OnceLock::new();
static TERMINATE: OnceLock<Function> = OnceLock::new();

/// From `_PG_init`, in the postmaster.
pub fn install() {
    // SAFETY: a hook variable, chained, while preloading; functions of the right type.
    unsafe {
        let _ = PREVIOUS.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(object_access);
        builtins::replace(c"pg_cancel_backend", cancel, &CANCEL);
        builtins::replace(c"pg_terminate_backend", terminate, &TERMINATE);
    }
}

/// Any access to a catalog object; of interest are functions that are about to be called, and TRUNCATE.
unsafe extern "C-unwind" fn object_access(
    access: ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub: i32,
    arg: *mut c_void,
) {
    // SAFETY: another library's hook, with the caller's arguments, unguarded: see `pg::raw`. The frame
    // has nothing to drop.
    unsafe {
        if let Some(Some(previous)) = PREVIOUS.get() {
            previous(access, class, object, sub, arg);
        }
    }
    let of_interest = matches!(
        access,
        ObjectAccessType::OAT_FUNCTION_EXECUTE | ObjectAccessType::OAT_TRUNCATE
    );
    if of_interest && shmem::any_live() {
        // SAFETY: a panic becomes a PostgreSQL error here.
        unsafe { pgrx_extern_c_guard(move || check_access(access, object)) };
    }
}

fn check_access(access: ObjectAccessType::Type, object: pg_sys::Oid) {
    if !in_force() {
        return;
    }
    match access {
        ObjectAccessType::OAT_FUNCTION_EXECUTE => check(object.to_u32()),
        // SAFETY: a look-up.
        _ => unsafe { writes::check_relation(object, pg_sys::get_rel_relkind(object) as i8) },
    }
}

fn check(function: u32) {
    if let Some((_, what)) = REFUSED.iter().find(|(oid, _)| *oid == function) {
        refuse(what);
    }
    if function >= pg_sys::FirstNormalObjectId {
        if let Some(library) = library(function) {
            refuse(&format!("call functions of {library}"));
        }
    }
}

/// The library that a C function is in, if it is one of those.
fn library(function: u32) -> Option<&'static str> {
    // SAFETY: a row of the catalog cache, held while it is looked at.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Oid::from(function).into());
        if tuple.is_null() {
            return None;
        }
        let mut null = false;
        let column = pg_sys::Anum_pg_proc_probin as i16;
        let datum = pg_sys::SysCacheGetAttr(cache, tuple, column, &mut null);
        let file = (!null).then(|| {
            let path = CStr::from_ptr(pg_sys::text_to_cstring(datum.cast_mut_ptr()));
            path.to_string_lossy().into_owned()
        });
        pg_sys::ReleaseSysCache(tuple);
        let file = file?;
        let name = file.rsplit('/').next()?;
        let name = name.strip_suffix(".so").unwrap_or(name);
        LIBRARIES.into_iter().find(|library| *library == name)
    }
}

/// Raises 42501 if the process is not one of this database.
unsafe fn same_fork(call: FunctionCallInfo, what: &str) {
    if !in_force() {
        return;
    }
    // SAFETY: the first argument is a pid, and the functions are strict; a look-up under ProcArrayLock.
    unsafe {
        let pid = (*call).args.as_slice((*call).nargs as usize)[0]
            .value
            .value() as i32;
        let process = pg_sys::BackendPidGetProc(pid);
        if !process.is_null() && (*process).databaseId != pg_sys::MyDatabaseId {
            refuse(what);
        }
    }
}

unsafe fn original(function: &OnceLock<Function>, call: FunctionCallInfo) -> Datum {
    match function.get() {
        // SAFETY: the function that ours replaced, with the caller's arguments.
        Some(function) => unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| function(call)) },
        None => false.into_datum().unwrap_or(Datum::from(0)),
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn cancel(call: FunctionCallInfo) -> Datum {
    // SAFETY: called as pg_cancel_backend(integer).
    unsafe {
        same_fork(call, "cancel statements of sessions that are not");
        original(&CANCEL, call)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn terminate(call: FunctionCallInfo) -> Datum {
    // SAFETY: called as pg_terminate_backend(integer, bigint).
    unsafe {
        same_fork(call, "end sessions that are not");
        original(&TERMINATE, call)
    }
}
