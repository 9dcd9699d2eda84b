//! Skips relation map updates of databases that are not here, when WAL is replayed (D13).
//!
//! `relmap_redo` (relmapper.c) writes to the database's folder, past the storage manager, and recovery
//! stops if there is none. `RmgrTable[]` (rmgr.c) is exported and writable.
#![allow(unsafe_code)] // replaces a function pointer that C calls

use crate::fork::files;
use pgrx::pg_guard;
use pgrx::pg_sys;
use std::sync::OnceLock;

type Redo = unsafe extern "C-unwind" fn(*mut pg_sys::XLogReaderState);

static ORIGINAL: OnceLock<Redo> = OnceLock::new();

/// From `_PG_init`, in the postmaster: the startup process inherits it.
pub fn install() {
    // SAFETY: an exported array with an entry for each resource manager; the postmaster has one
    // thread while it preloads.
    unsafe {
        let table = (&raw mut pg_sys::RmgrTable).cast::<pg_sys::RmgrData>();
        let entry = table.add(pg_sys::RmgrIds::RM_RELMAP_ID as usize);
        if let Some(redo) = (*entry).rm_redo {
            let _ = ORIGINAL.set(redo);
            (*entry).rm_redo = Some(relmap_redo);
        }
    }
}

/// Runs in the startup process. An error stops recovery, as the original's does.
#[pg_guard]
unsafe extern "C-unwind" fn relmap_redo(record: *mut pg_sys::XLogReaderState) {
    // SAFETY: the record's data is an xl_relmap_update, whose first field is the database.
    let db = unsafe { (*(*record).record).main_data.cast::<u32>().read_unaligned() };
    if db != 0 && !files::database_is_here(db) {
        return;
    }
    if let Some(original) = ORIGINAL.get() {
        // SAFETY: the caller's record, to the function that it was meant for.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| original(record)) };
    }
}
