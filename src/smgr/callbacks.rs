//! The functions that `smgr.c` calls. They run in every process of the server.
//!
//! While there is no fork, layer or tombstone each is one load and md's own function (I9); but
//! recovery always asks, as it may meet forks of another life of this server (D13).
//! Otherwise [`super::ops`] decides. An error may be raised where md may raise one.
#![allow(unsafe_code)] // C calls these

use crate::pg::md::{self, raw, FSmgr};
use crate::pg::process;
use crate::shmem::any_live;
use crate::smgr::{halt, handles, ops, stop};
use pgrx::pg_guard;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::pg_sys::{BlockNumber, ForkNumber, RelFileNodeBackend, SMgrRelation};
use std::ffi::c_char;

/// Our table.
pub fn table() -> FSmgr {
    FSmgr {
        close: smgr_close,
        create: smgr_create,
        exists: smgr_exists,
        unlink: smgr_unlink,
        extend: smgr_extend,
        prefetch: smgr_prefetch,
        read: smgr_read,
        write: smgr_write,
        writeback: smgr_writeback,
        nblocks: smgr_nblocks,
        truncate: smgr_truncate,
        immedsync: smgr_immedsync,
        ..md::stock()
    }
}

/// Whether this process replays WAL. Before its first block it notes that the library is there.
#[inline]
fn in_recovery() -> bool {
    let replays = process::in_recovery();
    if replays {
        crate::fork::start::note_running(false);
    }
    replays
}

/// A process's first callback. May raise an error when memory is out.
#[pg_guard]
unsafe extern "C-unwind" fn meet_sentinel() {
    stop::at_callback();
}

/// Defines one callback: md's function while there is no fork, else the slow one; and whether it changes files.
macro_rules! callback {
    ($name:ident, $md:ident, $slow:ident, $changes:literal, ($($arg:ident: $type:ty),*) $(-> $ret:ty)?) => {
        unsafe extern "C-unwind" fn $name($($arg: $type),*) $(-> $ret)? {
            // SAFETY: smgr.c's own arguments, passed on unchanged.
            unsafe {
                if !stop::has_sentinel() { meet_sentinel() }
                if $changes { halt::enter() }
                let result = if in_recovery() || any_live() { $slow($($arg),*) } else { raw::$md($($arg),*) };
                if $changes { halt::leave() }
                result
            }
        }

        unsafe extern "C-unwind" fn $slow($($arg: $type),*) $(-> $ret)? {
            // SAFETY: as above; a panic becomes a PostgreSQL error here.
            unsafe { pgrx_extern_c_guard(move || ops::$name($($arg),*)) }
        }
    };
}

callback!(smgr_create, mdcreate, slow_create, true, (reln: SMgrRelation, fork: ForkNumber::Type, redo: bool));
callback!(smgr_exists, mdexists, slow_exists, false, (reln: SMgrRelation, fork: ForkNumber::Type) -> bool);
callback!(smgr_unlink, mdunlink, slow_unlink, true, (rnode: RelFileNodeBackend, fork: ForkNumber::Type, redo: bool));
callback!(smgr_extend, mdextend, slow_extend, true, (reln: SMgrRelation, fork: ForkNumber::Type, block: BlockNumber, buffer: *mut c_char, skip_fsync: bool));
callback!(smgr_prefetch, mdprefetch, slow_prefetch, false, (reln: SMgrRelation, fork: ForkNumber::Type, block: BlockNumber) -> bool);
callback!(smgr_read, mdread, slow_read, false, (reln: SMgrRelation, fork: ForkNumber::Type, block: BlockNumber, buffer: *mut c_char));
callback!(smgr_write, mdwrite, slow_write, true, (reln: SMgrRelation, fork: ForkNumber::Type, block: BlockNumber, buffer: *mut c_char, skip_fsync: bool));
callback!(smgr_writeback, mdwriteback, slow_writeback, false, (reln: SMgrRelation, fork: ForkNumber::Type, block: BlockNumber, blocks: BlockNumber));
callback!(smgr_nblocks, mdnblocks, slow_nblocks, false, (reln: SMgrRelation, fork: ForkNumber::Type) -> BlockNumber);
callback!(smgr_truncate, mdtruncate, slow_truncate, true, (reln: SMgrRelation, fork: ForkNumber::Type, old_blocks: BlockNumber, blocks: BlockNumber));
callback!(smgr_immedsync, mdimmedsync, slow_immedsync, false, (reln: SMgrRelation, fork: ForkNumber::Type));

/// Any process, when it closes a relation or absorbs the barrier. Stops for a cut (D4).
#[pg_guard]
unsafe extern "C-unwind" fn smgr_close(reln: SMgrRelation, fork: ForkNumber::Type) {
    // SAFETY: smgr.c's own arguments.
    let sentinel = unsafe {
        raw::mdclose(reln, fork);
        stop::sentinel(&(*reln).smgr_rnode.node)
    };
    if sentinel.is_some() && fork == ForkNumber::MAIN_FORKNUM {
        handles::forget_all();
        stop::keep_sentinels(sentinel);
        halt::install();
        stop::stop_for_cut();
    }
}
