//! Asks the checkpointer to make a file of ours durable before the next checkpoint ends.
#![allow(unsafe_code)] // a call into sync.c

use crate::fork::files::{segment_number, MAP_SEGMENT};
use crate::smgr::handles;
use pg_fork_core::types::RelFork;
use pgrx::pg_sys;
use std::io;

fn tag(oid: u32, rel: RelFork, segment: u32) -> pg_sys::FileTag {
    let (fork, segno) = match segment {
        MAP_SEGMENT => (rel.fork, MAP_SEGMENT),
        _ => segment_number(oid, rel, segment),
    };
    pg_sys::FileTag {
        handler: pg_sys::SyncRequestHandler::SYNC_HANDLER_MD as i16,
        forknum: i16::from(fork),
        rnode: pg_sys::RelFileNode {
            spcNode: rel.spc.into(),
            dbNode: oid.into(),
            relNode: rel.rel.into(),
        },
        segno,
    }
}

/// Registers the file with the checkpointer, as md does (`register_dirty_segment`); syncs it here
/// when the queue is full.
pub fn register(oid: u32, rel: RelFork, segment: u32) -> io::Result<()> {
    let tag = tag(oid, rel, segment);
    // SAFETY: a whole tag; without retry the call raises no error.
    if unsafe { pg_sys::RegisterSyncRequest(&tag, pg_sys::SyncRequestType::SYNC_REQUEST, false) } {
        return Ok(());
    }
    match handles::open(oid, rel, segment, false)? {
        Some(file) => file.sync_data(),
        None => Ok(()),
    }
}

/// Takes a registration back, before the file is unlinked or renamed.
pub fn forget(oid: u32, rel: RelFork, segment: u32) {
    let tag = tag(oid, rel, segment);
    // SAFETY: as above; waits for room in the queue (`register_forget_request`).
    unsafe {
        pg_sys::RegisterSyncRequest(&tag, pg_sys::SyncRequestType::SYNC_FORGET_REQUEST, true)
    };
}
