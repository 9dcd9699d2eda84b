//! `DROP TABLESPACE` where forks have been: what they left there goes first.
//!
//! `destroy_tablespace_directories` (tablespace.c) removes the empty folders that databases leave, but
//! cannot remove the link that a fork has instead, nor our own folder while there is one in it.
#![allow(unsafe_code)] // calls the server, takes one of its locks
#![allow(non_snake_case)] // C's names

use crate::fork::files::{self, ROOT};
use pgrx::pg_sys;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// `CHECKPOINT_IMMEDIATE`, `_FORCE` and `_WAIT` (xlog.h).
const CHECKPOINT_NOW: i32 = 0x04 | 0x08 | 0x20;

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    fn RequestCheckpoint(flags: i32);
}

/// Runs `work` under `TablespaceCreateLock`, as the server makes and removes databases' folders. An
/// error that `work` raises must not be caught: the transaction's end releases the lock.
fn locked<T>(mode: pg_sys::LWLockMode::Type, work: impl FnOnce() -> T) -> T {
    // SAFETY: the array is set up before there are processes that get here; 19 by lwlocknames.h.
    let lock = unsafe { &raw mut (*pg_sys::MainLWLockArray.add(19)).lock };
    // SAFETY: a lock of the server's, which is not held already.
    unsafe { pg_sys::LWLockAcquire(lock, mode) };
    let done = work();
    // SAFETY: held.
    unsafe { pg_sys::LWLockRelease(lock) };
    done
}

/// Makes a fork's link and then a file behind it. Were the link removed in between, md would make a
/// folder in its place. With the link there, md itself does not ask for the lock.
pub fn with_link_kept<T>(work: impl FnOnce() -> T) -> T {
    locked(pg_sys::LWLockMode::LW_SHARED, work)
}

/// Any backend that is about to drop a tablespace. One that may not do that, or that turns out not to
/// be empty, is left as it is.
pub fn vacate(spc: pg_sys::Oid) {
    // SAFETY: a look at the catalogs, in a transaction.
    if !unsafe { pg_sys::pg_tablespace_ownercheck(spc, pg_sys::GetUserId()) } {
        return;
    }
    let spc = spc.to_u32();
    let dir = files::tablespace_dir(spc);
    if !is_empty(&dir.join(ROOT)) && !is_deserted(&dir) {
        // As DropTableSpace does: dropped relations have files until the checkpointer removes them. It
        // also means that no crash recovery makes them, and our folders, again.
        // SAFETY: no lightweight lock is held.
        unsafe { RequestCheckpoint(CHECKPOINT_NOW) };
    }
    locked(pg_sys::LWLockMode::LW_EXCLUSIVE, || {
        if is_deserted(&dir) {
            files::leave_tablespace(spc);
        }
    });
}

/// Whether all folders of databases, forks and layers in a tablespace are empty.
fn is_deserted(dir: &Path) -> bool {
    let all_empty = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        // Not a database's: our own folder, looked into by itself, and the temporary files'.
        let ours = |name: OsString| name.as_encoded_bytes().starts_with(b"pgsql_tmp");
        entries
            .filter(|entry| !ours(entry.file_name()))
            .map(|entry| entry.path())
            .all(|path| files::is_first_version(&path) || is_empty(&path))
    };
    all_empty(dir) && all_empty(&dir.join(ROOT))
}

fn is_empty(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}
