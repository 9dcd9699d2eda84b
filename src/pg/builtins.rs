//! The server's table of built-in functions (fmgrtab.c), whose entries can be replaced.
#![allow(unsafe_code)] // replaces function pointers

use crate::smgr::table;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use std::ffi::{c_char, CStr};
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

extern "C" {
    static fmgr_builtins: [Builtin; 0];
    static fmgr_nbuiltins: i32;
}

/// Puts `ours` in the place of the function with this name in C, and keeps what was there. Whether it
/// was found.
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
        let _ = original.set(function);
        table::overwrite(&raw mut (*entry).function, Some(ours)).is_ok()
    }
}
