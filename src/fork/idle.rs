//! Whether anything was ever written in a fork: one that was not has nothing that autovacuum could do there.
#![allow(unsafe_code)] // what this process is, and its end

use crate::fork::{files, pool};
use crate::pg::process;
use pgrx::pg_sys;
use std::cell::Cell;

/// Whether the fork has no block of a main relation fork of its own, on disk or in memory.
///
/// Whoever changes a page after this is called may have changed it before it is over. What was changed before is
/// found: first the buffers are looked at, because a page is written out and then clean.
pub fn is_untouched(fork: u32) -> bool {
    let main = |page: &pool::Dirty| page.rel().fork == 0;
    !pool::dirty(fork).iter().any(main) && !files::has_main_blocks(fork)
}

/// From the storage manager, where a process measures a relation of the fork that it works in: autovacuum leaves a
/// fork that nothing was written in. Its rows cannot become dead, and nothing there can be too old (D18); to stay
/// would be to vacuum and analyze the catalogs that all databases share, from there, with what that writes to
/// the fork's own.
pub fn dismiss_autovacuum(fork: u32) {
    thread_local! {
        static STAYS: Cell<bool> = const { Cell::new(false) };
    }
    // SAFETY: a plain variable of this process.
    let vacuums = unsafe { pg_sys::MyBackendType } == pg_sys::BackendType::B_AUTOVAC_WORKER;
    if !vacuums || STAYS.get() || fork != process::my_database() || !process::may_stop() {
        return;
    }
    if is_untouched(fork) {
        // SAFETY: as after a FATAL error, but for the message: what is open is closed on the way out.
        unsafe { pg_sys::proc_exit(0) };
    }
    STAYS.set(true);
}
