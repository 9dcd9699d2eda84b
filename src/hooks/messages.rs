//! Messages of ours in databases that are not UTF-8: Rust's texts are, and pgrx hands them to the server as
//! they are.
//!
//! They are told by their file: PostgreSQL's own errors come from files of C, in the database's encoding. A
//! message that goes to the client alone (a NOTICE, as a rule) passes no hook: see `pg::raw::notice`. Where an error is
//! caught, as in PL/pgSQL, nobody is asked either.
#![allow(unsafe_code)] // a hook that C calls, and an error's data

use crate::pg::text;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::pg_sys::{self, ErrorData};
use std::ffi::{c_char, CStr};
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

/// Any process, for each message that goes to the log, and then to the client. No error may be raised, and no
/// catalog can be read.
unsafe extern "C-unwind" fn emit_log(error: *mut ErrorData) {
    // SAFETY: the error that is being reported; then another library's hook. The frame has nothing to drop.
    unsafe {
        let file = (*error).filename;
        let encoding = text::server_encoding() as u32;
        let differs =
            encoding != pg_sys::pg_enc::PG_UTF8 && encoding != pg_sys::pg_enc::PG_SQL_ASCII;
        if differs && !file.is_null() && CStr::from_ptr(file).to_bytes().ends_with(b".rs") {
            pgrx_extern_c_guard(|| convert(error));
        }
        if let Some(Some(previous)) = PREVIOUS.get() {
            previous(error);
        }
    }
}

unsafe fn convert(error: *mut ErrorData) {
    // SAFETY: the error's strings live in its memory context.
    unsafe {
        let context = (*error).assoc_context;
        let places = [
            &raw mut (*error).message,
            &raw mut (*error).detail,
            &raw mut (*error).detail_log,
            &raw mut (*error).hint,
            &raw mut (*error).context,
        ];
        for place in places {
            if let Some(said) = in_the_encoding(*place) {
                *place = pg_sys::MemoryContextStrdup(context, said.as_ptr());
            }
        }
    }
}

/// The text in the database's encoding, if it is another there.
unsafe fn in_the_encoding(message: *const c_char) -> Option<std::ffi::CString> {
    if message.is_null() {
        return None;
    }
    // SAFETY: a C string.
    let message = unsafe { CStr::from_ptr(message) }.to_str().ok()?;
    (!message.is_ascii()).then(|| text::c_string(text::say(message)))
}
