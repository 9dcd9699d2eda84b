//! Keeps a failing fsync of a fork's file from failing the checkpoint (D14).
//!
//! The checkpointer syncs files through a table of its own (sync.c, `syncsw[]`), past `smgrsw[]`.
//! Its entry for md calls `mdsyncfiletag`, which ours calls in turn.
#![allow(unsafe_code)] // C calls it

use crate::fork::files;
use crate::shmem::load::{invalidate, invalidate_forks_of};
use crate::shmem::registry;
use crate::shmem::view::{self, Role};
use pg_fork_core::types::RelFork;
use pgrx::pg_guard;
use pgrx::pg_sys::FileTag;
use std::cell::Cell;
use std::ffi::{c_char, c_int};
use std::fs::File;

extern "C-unwind" {
    pub fn mdsyncfiletag(ftag: *const FileTag, path: *mut c_char) -> c_int;
    pub fn mdunlinkfiletag(ftag: *const FileTag, path: *mut c_char) -> c_int;
    pub fn mdfiletagmatches(ftag: *const FileTag, candidate: *const FileTag) -> bool;
}

/// Syncs a file of ours: md does not know the names of page maps, and goes by links that may not be there yet.
unsafe fn sync_ours(ftag: &FileTag, path: *mut c_char) -> c_int {
    let rel = RelFork {
        spc: ftag.rnode.spcNode.to_u32(),
        rel: ftag.rnode.relNode.to_u32(),
        fork: ftag.forknum as u8,
    };
    let oid = ftag.rnode.dbNode.to_u32();
    let name = match ftag.segno {
        files::MAP_SEGMENT => files::segment_path(oid, rel, files::MAP_SEGMENT),
        number => files::numbered_path(oid, rel, number),
    };
    let bytes = name.as_os_str().as_encoded_bytes();
    // SAFETY: sync.c's buffer is of MAXPGPATH bytes, far more than any name of ours.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), path.cast(), bytes.len());
        *path.add(bytes.len()) = 0;
    }
    match File::open(name).and_then(|file| file.sync_all()) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

/// Runs in the checkpointer; in recovery also in the startup process. 0: synced, or nobody's loss.
#[pg_guard]
pub unsafe extern "C-unwind" fn sync_file(ftag: *const FileTag, path: *mut c_char) -> c_int {
    // SAFETY: sync.c's own arguments.
    let (result, db, spc) = unsafe {
        let node = &(*ftag).rnode;
        let result = match (*ftag).segno {
            files::MAP_SEGMENT => sync_ours(&*ftag, path),
            _ if registry::slot(node.dbNode.to_u32()).is_some() => sync_ours(&*ftag, path),
            _ => mdsyncfiletag(ftag, path),
        };
        // Of our files only: a source's that cannot be synced stops any server.
        let result = match crate::stop_point::io("sync-file") {
            Err(error) if registry::slot(node.dbNode.to_u32()).is_some() => failed(&error),
            _ => result,
        };
        (result, node.dbNode.to_u32(), node.spcNode.to_u32())
    };
    if result == 0 || db == 0 {
        return result;
    }
    let error = std::io::Error::last_os_error();
    // SAFETY: sync.c's own argument.
    if error.kind() == std::io::ErrorKind::NotFound && first_miss(unsafe { &*ftag }) {
        return failed(&error);
    }
    let ours = match view::role(db) {
        Role::Tombstone | Role::Invalid(_) => true,
        Role::Node(node) if node.origin.is_some() => {
            invalidate(db, &format!("could not sync a file: {error}"));
            true
        }
        Role::Node(_) => false,
        Role::Plain => match registry::layer_source(db) {
            Some(source) => {
                invalidate_forks_of(source, &format!("could not sync a layer's file: {error}"));
                true
            }
            // A layer or a fork whose folder is gone: a plain database always has one.
            None => files::db_dir(db, spc).symlink_metadata().is_err(),
        },
    };
    if ours {
        return 0;
    }
    failed(&error)
}

fn failed(error: &std::io::Error) -> c_int {
    // SAFETY: what sync.c reads to tell what went wrong.
    unsafe { *libc::__errno_location() = error.raw_os_error().unwrap_or(0) };
    -1
}

/// Whether this file was not found for the first time. Who unlinks a file takes its requests back
/// first, but the checkpointer may not have heard of it: it looks, and asks once more if the request
/// still stands (sync.c, `ProcessSyncRequests`).
fn first_miss(ftag: &FileTag) -> bool {
    thread_local! {
        static LAST: Cell<[u32; 5]> = const { Cell::new([0; 5]) };
    }
    let node = &ftag.rnode;
    let (spc, db, rel) = (node.spcNode, node.dbNode, node.relNode);
    let file = [
        spc.to_u32(),
        db.to_u32(),
        rel.to_u32(),
        ftag.forknum as u32,
        ftag.segno,
    ];
    LAST.replace(file) != file
}
