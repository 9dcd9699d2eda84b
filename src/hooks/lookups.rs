//! Look-ups of functions that are not built in, and of those that JIT-compiled code is about to call.
#![allow(unsafe_code)] // a hook that C calls

use crate::isolation;
use crate::pg::builtins;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use std::sync::OnceLock;

static PREVIOUS: OnceLock<pg_sys::needs_fmgr_hook_type> = OnceLock::new();

/// From `_PG_init`.
pub fn register() {
    // SAFETY: a hook, set while the postmaster preloads.
    unsafe {
        let _ = PREVIOUS.set(pg_sys::needs_fmgr_hook);
        pg_sys::needs_fmgr_hook = Some(needs_fmgr_hook);
    }
}

/// Any backend, when it looks a function up (fmgr.c, `fmgr_info_cxt_security`), whatever for: triggers,
/// types and operator classes have no other hook. May raise an error. Not guarded as a whole: see
/// `pg::raw`; the frame has nothing to drop.
unsafe extern "C-unwind" fn needs_fmgr_hook(function: pg_sys::Oid) -> bool {
    // SAFETY: a panic becomes a PostgreSQL error; and the hook that was there before, with its argument.
    unsafe {
        if isolation::may_be_in_force() {
            pgrx_extern_c_guard(|| isolation::check_function(function));
        }
        builtins::is_replaced(function.to_u32())
            || match PREVIOUS.get() {
                Some(Some(previous)) => previous(function),
                _ => false,
            }
    }
}
