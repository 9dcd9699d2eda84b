//! Memory of PostgreSQL's that goes when a piece of work is done.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Runs `what` with a memory context of its own, which is gone afterwards: nothing of what `what` returns may
/// lie in it. An error leaves it to the one that was current.
pub fn in_context<R>(name: &'static CStr, what: impl FnOnce() -> R) -> R {
    // SAFETY: a name that lives as long as the server; the context that was current comes back before the new
    // one goes.
    unsafe {
        let context = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            name.as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let last = pg_sys::MemoryContextSwitchTo(context);
        let result = what();
        pg_sys::MemoryContextSwitchTo(last);
        pg_sys::MemoryContextDelete(context);
        result
    }
}
