//! A fork's own files, by way of md.c.
//!
//! Whatever md, the filesystem or the disk's end does to one of them is an error in the fork's own
//! session. For everyone else (the checkpointer, the background writer, a session of another database
//! that wants the buffer, recovery) the fork is invalid then, and life goes on (D14, I7).
//!
//! Nothing here asks md to sync: it ends the server where it cannot (md.c, `data_sync_elevel`).
#![allow(unsafe_code)] // calls of md.c, and counters of this process

use crate::fork::files::{segment_path, SEGMENT_BLOCKS};
use crate::pg::{disk, md, process};
use crate::shmem::load::invalidate;
use crate::smgr::failure::fork_failed;
use crate::smgr::host::Server;
use crate::smgr::ops::Fork;
use crate::smgr::{handles, sync};
use crate::stop_point;
use pg_fork_core::engine::{EngineError, FileOf, Host};
use pg_fork_core::types::{Block, RelFork, PAGE_SIZE};
use pgrx::pg_sys::{self, SMgrRelation};
use pgrx::prelude::*;
use std::ffi::c_char;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;

/// Whether a call changes the fork's files, or looks at them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Changes,
    /// Who looks from another database is told too, and does the fork no harm.
    Looks,
}

/// Whether an error may be raised here for what becomes of a fork.
fn may_raise(db: u32, call: Call) -> bool {
    let told = call == Call::Looks || process::my_database() == db;
    told && !process::in_critical_section() && !process::in_recovery()
}

/// Calls md for a fork's own file. `None`: what md raised made the fork invalid.
pub(super) fn guarded<T>(db: u32, call: Call, what: &str, md: impl FnOnce() -> T) -> Option<T> {
    if may_raise(db, call) {
        return Some(md());
    }
    let caught = caught(md);
    match caught {
        Ok(done) => Some(done),
        Err(error) => {
            invalidate(db, &format!("could not {what}: {error}"));
            None
        }
    }
}

/// What `md` returns, or the message that it raises.
///
/// An error sets the counters of this process to zero (elog.c, `errfinish`), and is a PANIC in a critical
/// section: here there is none meanwhile, and afterwards all is as it was, because the caller goes on under
/// the locks that it holds. Nor may an interrupt be taken for a failure of the fork.
fn caught<T>(md: impl FnOnce() -> T) -> Result<T, String> {
    // SAFETY: plain counters of this process.
    let before = unsafe {
        let before = (
            pg_sys::InterruptHoldoffCount,
            pg_sys::QueryCancelHoldoffCount,
            pg_sys::CritSectionCount,
        );
        pg_sys::InterruptHoldoffCount += 1;
        pg_sys::CritSectionCount = 0;
        before
    };
    let done = PgTryBuilder::new(AssertUnwindSafe(|| Ok(md())))
        .catch_others(|error| {
            use pgrx::pg_sys::panic::CaughtError::*;
            let (PostgresError(report)
            | ErrorReport(report)
            | RustPanic {
                ereport: report, ..
            }) = &error;
            Err(report.message().to_string())
        })
        .execute();
    // SAFETY: as above.
    unsafe {
        (
            pg_sys::InterruptHoldoffCount,
            pg_sys::QueryCancelHoldoffCount,
            pg_sys::CritSectionCount,
        ) = before;
    }
    done
}

/// Whether the relation's own first segment is there.
pub(super) unsafe fn is_there(reln: SMgrRelation, fork: Fork) -> bool {
    // SAFETY: smgr.c's own relation.
    unsafe {
        if (*reln).md_num_open_segs[fork as usize] > 0 {
            return true;
        }
        stop_point::at("md-exists");
        md::mdexists(reln, fork)
    }
}

/// Makes the relation's own first segment if it is not there.
pub(super) unsafe fn ensure(reln: SMgrRelation, db: u32, rel: RelFork) -> io::Result<()> {
    // SAFETY: as above.
    if unsafe { is_there(reln, Fork::from(rel.fork as i8)) } {
        return Ok(());
    }
    stop_point::io("md-create")?;
    handles::open(db, rel, 0, true)?;
    sync::register(db, rel, 0)
}

/// Makes the file of a new relation; with `redo` it may be there. The folder is.
pub(super) fn create(db: u32, rel: RelFork, redo: bool) -> io::Result<()> {
    stop_point::io("md-create")?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).create_new(!redo);
    options.mode(0o600).open(segment_path(db, rel, 0))?;
    sync::register(db, rel, 0)
}

/// Makes the segments before this one as long as they get.
///
/// md fills a segment that is shorter than it should be with a page of zeros at its end, after it has looked
/// at the length (md.c, `_mdfd_getseg`): over what another process may have written there in between. A new
/// length writes over nothing.
fn fill_before(db: u32, rel: RelFork, segment: u32) -> io::Result<()> {
    const FULL: u64 = SEGMENT_BLOCKS as u64 * PAGE_SIZE as u64;
    for earlier in 0..segment {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(segment_path(db, rel, earlier))?;
        if file.metadata()?.len() < FULL {
            file.set_len(FULL)?;
            sync::register(db, rel, earlier)?;
        }
    }
    Ok(())
}

/// Writes a page; `new` if it may be past the end of the file.
pub(super) unsafe fn write(
    reln: SMgrRelation,
    db: u32,
    rel: RelFork,
    block: Block,
    page: *mut c_char,
    new: bool,
) -> io::Result<()> {
    let (fork, segment) = (Fork::from(rel.fork as i8), block / SEGMENT_BLOCKS);
    // SAFETY: smgr.c's own relation and page.
    unsafe {
        if !new {
            stop_point::at("md-write");
            md::mdwrite(reln, fork, block, page, true);
            return Ok(());
        }
        // Those that are open were looked at.
        if i64::from((*reln).md_num_open_segs[fork as usize]) <= i64::from(segment) {
            fill_before(db, rel, segment)?;
        }
        stop_point::at("md-extend");
        md::mdextend(reln, fork, block, page, true);
    }
    Ok(())
}

/// Asks the operating system to begin to write out pages that were written.
pub(super) fn write_back(db: u32, rel: RelFork, block: Block, blocks: Block) {
    let mut block = block;
    let end = block.saturating_add(blocks);
    while block < end {
        let segment = block / SEGMENT_BLOCKS;
        let last = end.min((segment + 1).saturating_mul(SEGMENT_BLOCKS));
        let [offset, len] =
            [block % SEGMENT_BLOCKS, last - block].map(|n| u64::from(n) * PAGE_SIZE as u64);
        let done = stop_point::io("md-writeback")
            .and_then(|()| handles::open(db, rel, segment, false))
            .and_then(|file| file.map_or(Ok(()), |file| disk::write_back(&file, offset, len)));
        if let Err(error) = done {
            return invalidate(db, &format!("could not write a file back: {error}"));
        }
        block = last;
    }
}

/// Syncs all segments now. What could not be synced may be lost, so the fork is invalid, and its own session
/// is told, too.
///
/// Where the compiler has found that the table's last entry is always the same (smgr.c, `smgrimmedsync`, as Debian
/// has it), md does this itself.
pub(super) fn sync_now(db: u32, rel: RelFork) {
    let sync = || -> io::Result<()> {
        stop_point::io("md-immedsync")?;
        for segment in 0.. {
            match File::open(segment_path(db, rel, segment)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                file => file?.sync_all()?,
            }
        }
        Ok(())
    };
    if let Err(error) = sync() {
        invalidate(db, &format!("could not sync a file: {error}"));
        fork_failed(db, "sync a file", &EngineError::Host(error));
    }
}

/// Shortens the files.
pub(super) unsafe fn shorten(
    reln: SMgrRelation,
    db: u32,
    rel: RelFork,
    blocks: Block,
) -> io::Result<()> {
    let own = Server.file_len(FileOf { oid: db, rel })?.unwrap_or(0);
    if own <= blocks {
        return Ok(());
    }
    stop_point::io("truncate-file")?;
    for segment in (blocks / SEGMENT_BLOCKS..=(own - 1) / SEGMENT_BLOCKS).rev() {
        let keep = u64::from(blocks.saturating_sub(segment * SEGMENT_BLOCKS));
        let file = OpenOptions::new()
            .write(true)
            .open(segment_path(db, rel, segment))?;
        file.set_len(keep * PAGE_SIZE as u64)?;
        sync::register(db, rel, segment)?;
    }
    // SAFETY: smgr.c's own relation. md finds the new end when it opens the file next.
    unsafe { md::mdclose(reln, Fork::from(rel.fork as i8)) };
    Ok(())
}
