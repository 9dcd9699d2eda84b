//! Copies the source's dirty pages into the new layer, while its backends are stopped (D5).
#![allow(unsafe_code)] // reads buffer headers

use crate::shmem::view::{self, Role};
use crate::smgr::host::Server;
use pg_fork_core::engine::{before_overwrite, current_len, EngineError, FileOf, Host};
use pg_fork_core::topology::Node;
use pg_fork_core::types::{MapState, Page, RelFork, PAGE_SIZE};
use pgrx::pg_sys;
use std::io;
use std::time::{Duration, Instant};

// buf_internals.h
const BM_DIRTY: u32 = 1 << 23;
const BM_VALID: u32 = 1 << 24;
const BM_TAG_VALID: u32 = 1 << 25;
const BM_IO_IN_PROGRESS: u32 = 1 << 26;

/// A page that is dirty in the buffer pool.
#[derive(Clone, Copy)]
pub struct Dirty {
    buffer: i32,
    tag: pg_sys::BufferTag,
}

fn header(n: i32) -> (*mut pg_sys::BufferDesc, u32) {
    // SAFETY: n is below NBuffers; the headers live as long as the server.
    unsafe {
        let desc = &raw mut (*pg_sys::BufferDescriptors.add(n as usize)).bufferdesc;
        (
            desc,
            std::ptr::read_volatile(&raw const (*desc).state.value),
        )
    }
}

fn buffers() -> i32 {
    // SAFETY: set at the start of the server.
    unsafe { pg_sys::NBuffers }
}

/// Which of the database's pages the buffer holds, if it holds one.
fn page_of(db: u32, desc: *mut pg_sys::BufferDesc, state: u32) -> Option<pg_sys::BufferTag> {
    // SAFETY: a tag that changes under us is of a page being replaced, so not dirty any more;
    // FlushDatabaseBuffers (bufmgr.c) looks the same way first.
    let tag = unsafe { std::ptr::read_volatile(&raw const (*desc).tag) };
    let valid = state & BM_TAG_VALID != 0 && state & BM_VALID != 0;
    (valid && tag.rnode.dbNode.to_u32() == db).then_some(tag)
}

/// The blocks of main forks that are dirty, as (tablespace, relation, block); nobody is stopped.
pub fn dirty_blocks(db: u32) -> Vec<(u32, u32, u32)> {
    let found = (0..buffers()).filter_map(|n| {
        let (desc, state) = header(n);
        let tag = page_of(db, desc, state).filter(|_| state & BM_DIRTY != 0)?;
        let main = tag.forkNum == pg_sys::ForkNumber::MAIN_FORKNUM;
        let (spc, rel) = (tag.rnode.spcNode.to_u32(), tag.rnode.relNode.to_u32());
        main.then_some((spc, rel, tag.blockNum))
    });
    found.collect()
}

/// How many of the database's pages are dirty, more or less: nobody is stopped.
pub fn count_dirty(db: u32) -> usize {
    let dirty = |n: &i32| {
        let (desc, state) = header(*n);
        state & BM_DIRTY != 0 && page_of(db, desc, state).is_some()
    };
    (0..buffers()).filter(dirty).count()
}

/// The database's dirty pages. Its backends are stopped, so none is added; others may write some
/// out meanwhile, and such a write is waited for: hint bits set after the cut must not get into it.
pub fn dirty_pages(db: u32, deadline: Instant) -> Option<Vec<Dirty>> {
    let mut dirty = Vec::new();
    for n in 0..buffers() {
        let (desc, mut state) = header(n);
        let Some(tag) = page_of(db, desc, state) else {
            continue;
        };
        while state & BM_IO_IN_PROGRESS != 0 {
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_micros(20));
            state = header(n).1;
        }
        if state & BM_DIRTY != 0 {
            dirty.push(Dirty { buffer: n + 1, tag });
        }
    }
    Some(dirty)
}

/// Copies the pages into the layer as its first pre-images; `false`: not all of them by the deadline.
pub fn capture(
    db: u32,
    layer: u32,
    space: u32,
    pages: &[Dirty],
    deadline: Instant,
) -> Result<bool, EngineError<io::Error>> {
    let node = match view::role(db) {
        Role::Node(node) => (*node).clone(),
        _ => Node::default(),
    };
    let mut page: Page = [0; PAGE_SIZE];
    let mut noted = None;
    for dirty in pages {
        if Instant::now() > deadline {
            return Ok(false);
        }
        let tag = &dirty.tag;
        let rel = RelFork {
            spc: tag.rnode.spcNode.to_u32(),
            rel: tag.rnode.relNode.to_u32(),
            fork: tag.forkNum as u8,
        };
        // SAFETY: pins by tag and checks it; the share lock keeps the bytes still. Nobody that
        // holds the lock exclusively waits for us: the database's own backends hold none (I5).
        unsafe {
            if !pg_sys::ReadRecentBuffer(tag.rnode, tag.forkNum, tag.blockNum, dirty.buffer) {
                // Written out and replaced since: what is on disk now is as of the cut.
                continue;
            }
            pg_sys::LockBuffer(dirty.buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let from = pg_sys::BufferBlocks.add((dirty.buffer as usize - 1) * PAGE_SIZE);
            std::ptr::copy_nonoverlapping(from.cast::<u8>(), page.as_mut_ptr(), PAGE_SIZE);
            pg_sys::UnlockReleaseBuffer(dirty.buffer);
            pg_sys::PageSetChecksumInplace(page.as_mut_ptr().cast(), tag.blockNum);
        }
        if noted != Some(rel) {
            let len = current_len(&Server, db, &node, rel)?.unwrap_or(0);
            Server.set_state(layer, space, rel, MapState::Noted { len }, false)?;
            noted = Some(rel);
        }
        // The page on disk is what the cut before this one may need. Once the page has its bit in the
        // new layer nobody will save it there, so it must be done now.
        before_overwrite(&Server, db, &node, rel, tag.blockNum)?;
        // I4: first the bytes, second the bit.
        Server.write_file(FileOf { oid: layer, rel }, tag.blockNum, &page)?;
        Server.set_bit(layer, space, rel, tag.blockNum)?;
    }
    Ok(true)
}
