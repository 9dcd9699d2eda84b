//! The server's table of built-in functions (fmgrtab.c), whose entries can be replaced.
#![allow(unsafe_code)] // replaces function pointers

use crate::smgr::table;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use std::ffi::{c_char, CStr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

pub type Function = unsafe extern "C-unwind" fn(FunctionCallInfo) -> Datum;

/// `FmgrBuiltin` of fmgrtab.h.
#[repr(C)]
struct Builtin {
    oid: pg_sys::Oid,
    nargs: i16,
    strict: bool,
    retset: bool,
    name: *const c_char,
    function: Option<Function>,
}

/// Numbers of the functions that were replaced. There are few: it is gone through for each look-up of a
/// function that is not built in.
static REPLACED: [AtomicU32; 16] = [const { AtomicU32::new(0) }; 16];

extern "C" {
    static fmgr_builtins: [Builtin; 0];
    static fmgr_nbuiltins: i32;
}

/// Puts `ours` in the place of the function with this name in C, and keeps what was there. Whether that
/// could be done.
///
/// # Safety
/// While the postmaster preloads; `ours` is called in place of the other.
pub unsafe fn replace(name: &CStr, ours: Function, original: &OnceLock<Function>) -> bool {
    // SAFETY: an exported array of this many entries.
    unsafe {
        let first = (&raw const fmgr_builtins).cast::<Builtin>().cast_mut();
        let mut entries = (0..fmgr_nbuiltins as usize).map(|at| first.add(at));
        let Some(entry) = entries.find(|entry| CStr::from_ptr((**entry).name) == name) else {
            return false;
        };
        let Some(function) = (*entry).function else {
            return false;
        };
        let free = |place: &&AtomicU32| place.load(Ordering::Relaxed) == 0;
        let Some(place) = REPLACED.iter().find(free) else {
            return false;
        };
        let _ = original.set(function);
        place.store((*entry).oid.to_u32(), Ordering::Relaxed);
        table::overwrite(&raw mut (*entry).function, Some(ours)).is_ok()
    }
}

/// Whether the function was replaced. JIT-compiled code would call the one that was there by its name,
/// unless it is told that the function wants `fmgr_hook` (fmgr.c, `fmgr_symbol`).
#[inline]
pub fn is_replaced(oid: u32) -> bool {
    let replaced = |place: &AtomicU32| place.load(Ordering::Relaxed) == oid;
    REPLACED.iter().any(replaced)
}

/// The function that ours replaced, with the caller's arguments; 0 if there is none.
///
/// # Safety
/// Called by the one that replaces it.
pub unsafe fn original(function: &OnceLock<Function>, call: FunctionCallInfo) -> Datum {
    match function.get() {
        // SAFETY: by the caller's promise.
        Some(function) => unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| function(call)) },
        None => Datum::from(0),
    }
}
