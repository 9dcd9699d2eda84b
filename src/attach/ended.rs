//! What a session is told whose fork is dropped with force.
//!
//! It is ended as any session is, by SIGTERM, and would hear that an administrator did it (57P01). A driver
//! takes that for a server going down and comes back to the same database. So who drops a fork marks it in the
//! registry first, and the session's last message is another.
//!
//! It is the message for the log that a hook can change; what a client is told is the same. Where not even
//! FATAL is logged (`log_min_messages = panic`) nobody is asked, and 57P01 it is.
#![allow(unsafe_code)] // a hook that C calls, and an error's data

use crate::pg::process;
use crate::shmem::registry;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::pg_sys::{self, ErrorData};
use pgrx::PgSqlErrorCode;
use std::ffi::CString;
use std::sync::OnceLock;

static PREVIOUS: OnceLock<pg_sys::emit_log_hook_type> = OnceLock::new();

/// From `_PG_init`.
pub fn register() {
    // SAFETY: a hook variable, chained, while preloading.
    unsafe {
        let _ = PREVIOUS.set(pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(emit_log);
    }
}

/// Any process, for each message that goes to the log. No error may be raised.
unsafe extern "C-unwind" fn emit_log(error: *mut ErrorData) {
    // SAFETY: the error that is being reported; then another library's hook. The frame has nothing to drop.
    unsafe {
        let shutdown = PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN as i32;
        if (*error).elevel == pg_sys::FATAL as i32
            && (*error).sqlerrcode == shutdown
            && !pg_sys::MyProcPort.is_null()
        {
            pgrx_extern_c_guard(|| tell(error));
        }
        if let Some(Some(previous)) = PREVIOUS.get() {
            previous(error);
        }
    }
}

/// Says why, if the database of this session is a fork that is being dropped.
unsafe fn tell(error: *mut ErrorData) {
    let here = process::my_database();
    // SAFETY: the error's strings live in its memory context; no lock is held where a session ends by a signal
    // (postgres.c, `ProcessInterrupts`).
    unsafe {
        if here == 0 || registry::fork(here).is_none_or(|fork| fork.ending == 0) {
            return;
        }
        let mut message = b"terminating connection because fork \"".to_vec();
        message.extend(super::status::database().to_bytes());
        message.extend(b"\" is being dropped");
        let context = (*error).assoc_context;
        let copy = |text: Vec<u8>| {
            let text = CString::new(text).unwrap_or_default();
            pg_sys::MemoryContextStrdup(context, text.as_ptr())
        };
        (*error).sqlerrcode = PgSqlErrorCode::ERRCODE_DATABASE_DROPPED as i32;
        (*error).message = copy(message);
        (*error).detail = std::ptr::null_mut();
        (*error).hint = copy(b"Connect to another database.".to_vec());
    }
}
