//! Copies the source's dirty pages while its backends are stopped (D5), and writes the copies to a file
//! beside the new layer once they go on.
//!
//! Only forks of this very cut read that file. What is on disk of those pages is older; forks of earlier
//! cuts may need it, and it is saved as any block is, by who overwrites it.
#![allow(unsafe_code)] // reads buffer headers

use crate::fork::files;
use crate::pg::arena::Arena;
use crate::shmem;
use pg_fork_core::format::captured::Captured;
use pg_fork_core::types::{Block, RelFork, PAGE_SIZE};
use pgrx::pg_sys;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

// buf_internals.h
const BM_DIRTY: u32 = 1 << 23;
const BM_VALID: u32 = 1 << 24;
const BM_TAG_VALID: u32 = 1 << 25;
const BM_IO_IN_PROGRESS: u32 = 1 << 26;

/// What a page is thought to take before any was copied, in nanoseconds.
const FIRST_GUESS: u32 = 3000;
/// Pages between two looks at the clock.
const STRIDE: usize = 32;

/// A page that is dirty in the buffer pool.
#[derive(Clone, Copy)]
pub struct Dirty {
    buffer: i32,
    header: Header,
    tag: pg_sys::BufferTag,
}

impl Dirty {
    fn rel(&self) -> RelFork {
        RelFork {
            spc: self.tag.rnode.spcNode.to_u32(),
            rel: self.tag.rnode.relNode.to_u32(),
            fork: self.tag.forkNum as u8,
        }
    }
}

type Header = *mut pg_sys::BufferDesc;

fn state_of(header: Header) -> u32 {
    // SAFETY: a header lives as long as the server.
    unsafe { std::ptr::read_volatile(&raw const (*header).state.value) }
}

/// The buffers whose headers have one of the flags: the buffer's number, its header and its state. One line
/// of the processor's cache for each of the pool's buffers, in order, and nothing else.
fn with_flag(flags: u32) -> impl Iterator<Item = (i32, Header, u32)> {
    // SAFETY: set at the start of the server.
    let (base, count) = unsafe { (pg_sys::BufferDescriptors, pg_sys::NBuffers) };
    (0..count).filter_map(move |n| {
        // SAFETY: n is below NBuffers.
        let header = unsafe { &raw mut (*base.add(n as usize)).bufferdesc };
        let state = state_of(header);
        (state & flags != 0).then_some((n + 1, header, state))
    })
}

/// Which of the database's pages the buffer holds, if it holds one.
fn page_of(db: u32, desc: Header, state: u32) -> Option<pg_sys::BufferTag> {
    // SAFETY: a tag that changes under us is of a page being replaced, so not dirty any more;
    // FlushDatabaseBuffers (bufmgr.c) looks the same way first.
    let tag = unsafe { std::ptr::read_volatile(&raw const (*desc).tag) };
    let valid = state & BM_TAG_VALID != 0 && state & BM_VALID != 0;
    (valid && tag.rnode.dbNode.to_u32() == db).then_some(tag)
}

/// The blocks of main forks that are dirty, as (tablespace, relation, block); nobody is stopped.
pub fn dirty_blocks(db: u32) -> Vec<(u32, u32, u32)> {
    let found = with_flag(BM_DIRTY).filter_map(|(_, header, state)| {
        let tag = page_of(db, header, state)?;
        let main = tag.forkNum == pg_sys::ForkNumber::MAIN_FORKNUM;
        let (spc, rel) = (tag.rnode.spcNode.to_u32(), tag.rnode.relNode.to_u32());
        main.then_some((spc, rel, tag.blockNum))
    });
    found.collect()
}

/// How many of the database's pages are dirty, more or less: nobody is stopped.
pub fn count_dirty(db: u32) -> usize {
    let dirty = with_flag(BM_DIRTY);
    dirty
        .filter(|(_, header, state)| page_of(db, *header, *state).is_some())
        .count()
}

/// Writes out as many of the database's dirty pages, without stopping anyone (bufmgr.c,
/// `FlushDatabaseBuffers`, which writes all of them and serves no interrupts). In a transaction.
pub fn write_out(db: u32, most: usize) {
    let mut written = 0;
    for (buffer, header, state) in with_flag(BM_DIRTY) {
        let Some(tag) = page_of(db, header, state) else {
            continue;
        };
        if written >= most {
            return;
        }
        // SAFETY: pins by tag and checks it; the share lock is what a write wants.
        unsafe {
            if !pg_sys::ReadRecentBuffer(tag.rnode, tag.forkNum, tag.blockNum, buffer) {
                continue;
            }
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            pg_sys::FlushOneBuffer(buffer);
            pg_sys::UnlockReleaseBuffer(buffer);
        }
        written += 1;
        pgrx::check_for_interrupts!();
    }
}

/// The database's dirty pages. Its backends are stopped, so none is added; others may write some
/// out meanwhile.
///
/// A write that is under way is waited for: who does it may have looked for the newest layer before there
/// was this one, and nothing new may come to the layers before it. `None`: not done by the deadline.
pub fn dirty_pages(db: u32, deadline: Instant) -> Option<Vec<Dirty>> {
    let mut dirty = Vec::new();
    for (buffer, header, mut state) in with_flag(BM_DIRTY | BM_IO_IN_PROGRESS) {
        let Some(tag) = page_of(db, header, state) else {
            continue;
        };
        while state & BM_IO_IN_PROGRESS != 0 {
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_micros(20));
            state = state_of(header);
        }
        if state & BM_DIRTY != 0 {
            dirty.push(Dirty {
                buffer,
                header,
                tag,
            });
        }
    }
    Some(dirty)
}

/// Waits for the writes of these pages that began before the new layer was known: as above. `false`: not
/// done by the deadline.
pub fn await_writes(pages: &[Dirty], deadline: Instant) -> bool {
    pages.iter().all(|dirty| {
        // Whatever the buffer holds now: a read of another page is waited for as well.
        while state_of(dirty.header) & BM_IO_IN_PROGRESS != 0 {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        true
    })
}

/// How many pages can be captured in a pause, by what they took so far; a part of it is for the rest that
/// is to be done.
pub fn affordable(pause: Duration) -> usize {
    let learned = shmem::shared().map_or(0, |shared| shared.capture_ns.load(Ordering::Relaxed));
    let each = if learned == 0 { FIRST_GUESS } else { learned };
    let pages = pause.as_nanos() * 7 / 10 / u128::from(each.max(100));
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
/// deadline, or more than there is room for.
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
                let from = pg_sys::BufferBlocks.add((dirty.buffer as usize - 1) * PAGE_SIZE);
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

/// Writes the copies to the layer's file. Not synced: the layer's mark says so.
pub fn write(layer: u32, copied: &[(RelFork, Block)], arena: &mut Arena) -> io::Result<()> {
    if copied.is_empty() {
        return Ok(());
    }
    crate::stop_point::io("write-captured")?;
    let pages = arena.pages();
    for (page, (_, block)) in pages.iter_mut().zip(copied) {
        // SAFETY: a whole page of our own; sets the checksum only if the cluster has them.
        unsafe { pg_sys::PageSetChecksumInplace(page.as_mut_ptr().cast(), *block) };
    }
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(files::captured_path(layer))?;
    file.write_all(&Captured::new(copied.iter().copied()).encode())?;
    file.write_all(pages.as_flattened())
}
