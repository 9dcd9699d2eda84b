//! Messages of the server that would lead a session in a fork astray.
//!
//! A session whose fork is dropped with force is ended as any session is, by SIGTERM, and would hear that an
//! administrator did it (57P01). A driver takes that for a server going down and comes back to the same
//! database. So who drops a fork marks it in the registry first, and the session's last message is another.
//! And where the way home is missing, the session is told of the other. Who logs in to an invalid fork hears why it
//! is invalid.
//!
//! It is the message for the log that a hook can change; what a client is told is the same. Where such messages
//! are not logged (`log_min_messages`) nobody is asked, and they are the server's.
#![allow(unsafe_code)] // a hook that C calls, and an error's data

use crate::attach::request;
use crate::pg::process;
use crate::shmem::registry::{self, ForkState, Slot};
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::pg_sys::{self, ErrorData};
use pgrx::PgSqlErrorCode;
use std::ffi::{c_char, CStr, CString};
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
    const SHUTDOWN: i32 = PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN as i32;
    const STATE: i32 = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE as i32;
    const NO_FUNCTION: i32 = PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION as i32;
    // SAFETY: the error that is being reported; then another library's hook. The frame has nothing to drop.
    unsafe {
        match ((*error).sqlerrcode, (*error).elevel as u32) {
            (SHUTDOWN, pg_sys::FATAL) if !pg_sys::MyProcPort.is_null() => {
                pgrx_extern_c_guard(|| tell(error));
            }
            (STATE, pg_sys::FATAL) if crate::shmem::any_live() => {
                pgrx_extern_c_guard(|| tell_why(error));
            }
            (NO_FUNCTION, pg_sys::PGERROR) if request::away() => {
                pgrx_extern_c_guard(|| show_the_way(error));
            }
            _ => {}
        }
        if let Some(Some(previous)) = PREVIOUS.get() {
            previous(error);
        }
    }
}

/// A string that lives as long as the error does.
unsafe fn copy(error: *mut ErrorData, text: &[u8]) -> *mut c_char {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: the error's own memory.
    unsafe { pg_sys::MemoryContextStrdup((*error).assoc_context, text.as_ptr()) }
}

/// The function that is missing is the way home.
unsafe fn show_the_way(error: *mut ErrorData) {
    // SAFETY: the error's own strings.
    unsafe {
        if (*error).message.is_null() {
            return;
        }
        let message = CStr::from_ptr((*error).message).to_bytes();
        let names = |name: &[u8]| message.windows(name.len()).any(|part| part == name);
        if names(b"fork_detach(") || names(b"fork_attach(") {
            (*error).hint = copy(error, super::way_out::HINT.as_bytes());
        }
    }
}

/// Says why the database that somebody logs in to is invalid, if it is a fork that goes by the name that it was
/// made with (postinit.c, `InitPostgres`).
unsafe fn tell_why(error: *mut ErrorData) {
    // SAFETY: the error's own strings; a log-in holds no lock there.
    unsafe {
        let message_id = (*error).message_id;
        if message_id.is_null() || (*error).message.is_null() {
            return;
        }
        if CStr::from_ptr(message_id) != c"cannot connect to invalid database \"%s\"" {
            return;
        }
        let message = CStr::from_ptr((*error).message).to_string_lossy();
        let name = message
            .split_once('"')
            .and_then(|(_, rest)| rest.rsplit_once('"'));
        let Some((name, _)) = name else {
            return;
        };
        let invalid = |slot: &&Slot| {
            slot.is_fork() && slot.state == ForkState::Invalid && slot.is_named(name)
        };
        if let Some(fork) = registry::read(|table| table.iter().find(invalid).copied()) {
            (*error).detail = copy(error, fork.reason().as_bytes());
            (*error).hint = copy(error, b"Drop it with fork_drop.");
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
        (*error).sqlerrcode = PgSqlErrorCode::ERRCODE_DATABASE_DROPPED as i32;
        (*error).message = copy(error, &message);
        (*error).detail = std::ptr::null_mut();
        (*error).hint = copy(error, b"Connect to another database.");
    }
}
