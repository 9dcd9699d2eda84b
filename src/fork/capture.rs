//! Copies the source's dirty pages while its backends are stopped (D5), and writes the copies to a file
//! beside the new layer once they go on.
//!
//! Only forks of this very cut read that file. What is on disk of those pages is older; forks of earlier
//! cuts may need it, and it is saved as any block is, by who overwrites it.
#![allow(unsafe_code)] // calls into bufmgr.c, reads buffers

use crate::fork::files;
use crate::fork::pool::{self, Dirty};
use crate::pg::arena::Arena;
use crate::pg::checksum;
use crate::shmem;
use pg_fork_core::format::captured::Captured;
use pg_fork_core::types::{Block, RelFork, PAGE_SIZE};
use pgrx::pg_sys;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a page is thought to take before any was copied, in nanoseconds.
const FIRST_GUESS: u32 = 3000;
/// Pages between two looks at the clock.
const STRIDE: usize = 32;

/// Writes out the first of these pages, as many as asked, without stopping anyone (bufmgr.c,
/// `FlushDatabaseBuffers`, which serves no interrupts). In a transaction.
pub fn write_out(pages: &[Dirty], most: usize) {
    for page in pages.iter().take(most) {
        let (tag, buffer) = (&page.tag, page.buffer);
        // SAFETY: pins by tag and checks it; the share lock is what a write wants.
        unsafe {
            if !pg_sys::ReadRecentBuffer(tag.rnode, tag.forkNum, tag.blockNum, buffer) {
                continue;
            }
            // First the WAL, with nothing but the pin: a cut waits for a write that is under way, and the
            // page's writers for the lock, and both would wait for the disk (bufmgr.c, `FlushBuffer`).
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let lsn = pg_sys::BufferGetLSNAtomic(buffer);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
            pg_sys::XLogFlush(lsn);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            pg_sys::FlushOneBuffer(buffer);
            pg_sys::UnlockReleaseBuffer(buffer);
        }
        pgrx::check_for_interrupts!();
    }
}

/// Has this process map what it will copy: each first touch of shared memory is a page fault, which takes
/// longer than the copy, and in the pause the source would wait for it.
pub fn touch(pages: &[Dirty]) {
    /// Linux's smallest pages.
    const STEP: usize = 4096;
    for page in pages {
        for at in (0..PAGE_SIZE).step_by(STEP) {
            // SAFETY: a byte of the buffer pool, whatever is in it now; nothing is done with it.
            unsafe { pg_sys::BufferBlocks.add(place(page) + at).read_volatile() };
        }
    }
}

/// Where the page's buffer is in the pool.
fn place(page: &Dirty) -> usize {
    (page.buffer as usize - 1) * PAGE_SIZE
}

/// How many pages can be captured in a pause, by what they took so far; a part of it is for the rest that
/// is to be done.
pub fn affordable(pause: Duration) -> usize {
    let learned = shmem::shared().map_or(0, |shared| shared.capture_ns.load(Ordering::Relaxed));
    let each = if learned == 0 { FIRST_GUESS } else { learned };
    let pages = pause.as_nanos() * 8 / 10 / u128::from(each.max(100));
    // The file is one segment.
    (pages as usize).clamp(1, 100_000)
}

fn learn(pages: usize, took: Duration) {
    if let (Some(shared), true) = (shmem::shared(), pages >= 2 * STRIDE) {
        let now = (took.as_nanos() / pages as u128) as u32;
        let before = match shared.capture_ns.load(Ordering::Relaxed) {
            0 => now,
            before => before,
        };
        let mean = before / 4 * 3 + now / 4;
        shared.capture_ns.store(mean.max(1), Ordering::Relaxed);
    }
}

/// Copies the pages, and says which they are, in the order of the copies; `None`: not all of them by the
/// deadline, more than there is room for, or one whose header is not let go of.
pub fn copy(
    pages: &[Dirty],
    arena: &mut Arena,
    deadline: Instant,
) -> Option<Vec<(RelFork, Block)>> {
    arena.clear();
    let began = Instant::now();
    let mut copied = Vec::with_capacity(pages.len());
    for (n, dirty) in pages.iter().enumerate() {
        if n % STRIDE == 0 && Instant::now() > deadline {
            learn(n, began.elapsed());
            return None;
        }
        if !pool::is_free(dirty) {
            return None;
        }
        let tag = &dirty.tag;
        // SAFETY: pins by tag and checks it; the share lock keeps the bytes still. Nobody that
        // holds the lock exclusively waits for us: the database's own backends hold none (I5).
        unsafe {
            if !pg_sys::ReadRecentBuffer(tag.rnode, tag.forkNum, tag.blockNum, dirty.buffer) {
                // Written out and replaced since: what is on disk now is as of the cut.
                continue;
            }
            let to = arena.next();
            let to = to.map_or(std::ptr::null_mut(), |page| page.as_mut_ptr());
            if !to.is_null() {
                pg_sys::LockBuffer(dirty.buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
                let from = pg_sys::BufferBlocks.add(place(dirty));
                std::ptr::copy_nonoverlapping(from.cast::<u8>(), to, PAGE_SIZE);
                pg_sys::LockBuffer(dirty.buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
            }
            pg_sys::ReleaseBuffer(dirty.buffer);
            if to.is_null() {
                return None;
            }
        }
        copied.push((dirty.rel(), tag.blockNum));
    }
    learn(pages.len(), began.elapsed());
    Some(copied)
}

/// For tests: whether a page has changed since it was copied, or got dirty, a moment later. Says which.
pub fn changed_since(
    db: u32,
    pages: &[Dirty],
    copied: &[(RelFork, Block)],
    arena: &mut Arena,
) -> Option<String> {
    std::thread::sleep(Duration::from_millis(3));
    let known = |page: &Dirty| pages.iter().any(|other| other.is_same(page));
    if let Some(new) = pool::dirty(db).iter().find(|page| !known(page)) {
        return Some(format!("{:?} {} got dirty", new.rel(), new.tag.blockNum));
    }
    let copies = arena.pages();
    let find = |page: &&Dirty| {
        let place = (page.rel(), page.tag.blockNum);
        let Some(n) = copied.iter().position(|copy| *copy == place) else {
            return false;
        };
        // SAFETY: a page of the pool; if it is another by now it is not looked at.
        let now = unsafe {
            std::slice::from_raw_parts(
                pg_sys::BufferBlocks.add(self::place(page)).cast::<u8>(),
                PAGE_SIZE,
            )
        };
        pool::holds(page) && now != copies[n].as_slice() && pool::holds(page)
    };
    let changed = pages.iter().find(find);
    changed.map(|page| format!("{:?} {} changed", page.rel(), page.tag.blockNum))
}

/// Writes the copies to the layer's file. Not synced: the layer's mark says so.
pub fn write(layer: u32, copied: &[(RelFork, Block)], arena: &mut Arena) -> io::Result<()> {
    if copied.is_empty() {
        return Ok(());
    }
    crate::stop_point::io("write-captured")?;
    let pages = arena.pages();
    for (page, (_, block)) in pages.iter_mut().zip(copied) {
        checksum::set(page, *block);
    }
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(files::captured_path(layer))?;
    file.write_all(&Captured::new(copied.iter().copied()).encode())?;
    file.write_all(pages.as_flattened())
}
