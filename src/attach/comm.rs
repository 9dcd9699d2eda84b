//! The moment at which a session moves: its transaction has committed, and the client is about to be
//! told that the statement is done. There an error is still an error of the statement.
//!
//! PostgreSQL has no hook at that moment, but the message goes out through a table of functions
//! that can be replaced (libpq.h). Ours is in place from the call of the function until the
//! statement's end; and, if `pg_fork.pin_attached` is on, until the session is home again.
#![allow(unsafe_code)] // C calls ours

use crate::attach::request;
use crate::fork::heirs;
use crate::pg::comm::{current, replace, Methods};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_guard;
use pgrx::pg_sys;
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicPtr, Ordering};

static ORIGINAL: AtomicPtr<Methods> = AtomicPtr::new(std::ptr::null_mut());

struct Ours(UnsafeCell<Option<Methods>>);
// SAFETY: a backend has one thread.
unsafe impl Sync for Ours {}
static OURS: Ours = Ours(UnsafeCell::new(None));

/// While the session is away from home, ReadyForQuery says that a transaction is open. A pooler in
/// transaction mode keeps the server's connection with its client until it says otherwise, and closes
/// it if the client goes away; so no other client is ever given a session that is in a fork.
static PIN: GucSetting<bool> = GucSetting::<bool>::new(false);

thread_local! {
    /// The session has logged in, and has not been told yet that it may send a statement.
    static NEW: Cell<bool> = const { Cell::new(false) };
}

/// At a log-in, before the session knows its database.
pub fn note_login() {
    NEW.set(true);
    install();
}

/// From `_PG_init`.
pub fn register() {
    GucRegistry::define_bool_guc(
        c"pg_fork.pin_attached",
        c"A session in a fork that it attached to says that a transaction is open.",
        c"For roles behind a pooler in transaction mode: the pooler does not hand the session to another client.",
        &PIN,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// After a request: stays in place if the session is away from home and has to say so.
pub fn settle() {
    if request::away() && PIN.get() {
        install();
    } else {
        remove();
    }
}

/// Waits for the statement's end.
pub fn install() {
    if !ORIGINAL.load(Ordering::Relaxed).is_null() {
        return;
    }
    // SAFETY: a copy of the table with one function replaced, in a static.
    unsafe {
        let original = current();
        ORIGINAL.store(original.cast_mut(), Ordering::Relaxed);
        let ours = (*OURS.0.get()).insert(Methods {
            putmessage,
            ..*original
        });
        replace(ours);
    }
}

fn remove() {
    let original = ORIGINAL.swap(std::ptr::null_mut(), Ordering::Relaxed);
    if !original.is_null() {
        // SAFETY: what was in use before.
        unsafe { replace(original) };
    }
}

/// A message to the client. Raises an error if the session cannot move.
#[pg_guard]
unsafe extern "C-unwind" fn putmessage(kind: c_char, data: *const c_char, len: usize) -> c_int {
    let original = ORIGINAL.load(Ordering::Relaxed);
    match kind as u8 {
        // An error after the commit: the client must not be moved by a statement that failed.
        b'E' => request::cancel(),
        // CommandComplete. A portal that was suspended ends without one, so ReadyForQuery as well.
        b'C' | b'Z' => request::carry_out(),
        _ => {}
    }
    if kind as u8 == b'Z' && NEW.take() {
        heirs::enter();
        settle();
    }
    // SAFETY: ReadyForQuery's one byte is the status; I is idle, T is in a transaction.
    let idle = unsafe { kind as u8 == b'Z' && len == 1 && *data.cast::<u8>() == b'I' };
    let data = if idle && request::away() && PIN.get() {
        c"T".as_ptr()
    } else {
        data
    };
    // SAFETY: the caller's message, to the function that it was meant for.
    unsafe {
        let methods = if original.is_null() {
            current()
        } else {
            original
        };
        let put = (*methods).putmessage;
        pg_sys::ffi::pg_guard_ffi_boundary(|| put(kind, data, len))
    }
}
