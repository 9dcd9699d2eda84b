//! The functions through which a backend talks to its client (libpq.h, `PQcommMethods`), which pgrx
//! does not bind. Parallel workers replace them too (pqmq.c).
#![allow(unsafe_code)] // a pointer to a table of C functions

use std::ffi::{c_char, c_int, c_void};

pub type PutMessage = unsafe extern "C-unwind" fn(c_char, *const c_char, usize) -> c_int;

/// `PQcommMethods`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Methods {
    pub comm_reset: *const c_void,
    pub flush: *const c_void,
    pub flush_if_writable: *const c_void,
    pub is_send_pending: *const c_void,
    pub putmessage: PutMessage,
    pub putmessage_noblock: *const c_void,
}

extern "C" {
    static mut PqCommMethods: *const Methods;
}

/// The table in use.
pub fn current() -> *const Methods {
    // SAFETY: a variable of this process.
    unsafe { PqCommMethods }
}

/// Uses another table.
///
/// # Safety
/// `methods` stays valid for as long as it is in use.
pub unsafe fn replace(methods: *const Methods) {
    // SAFETY: by the caller's promise.
    unsafe { PqCommMethods = methods };
}
