//! A page of another database's relation, copied.
#![allow(unsafe_code)] // calls into bufmgr.c and smgr.c

use pg_fork_core::types::{Page, PAGE_SIZE};
use pgrx::pg_sys;

const MAIN: pg_sys::ForkNumber::Type = pg_sys::ForkNumber::MAIN_FORKNUM;

/// Where the pages are.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    pub node: pg_sys::RelFileNode,
    /// Not unlogged.
    pub permanent: bool,
}

impl Pages {
    /// The relation's length in blocks, now.
    pub fn count(&self) -> u32 {
        // SAFETY: a relation that a lock keeps.
        unsafe {
            let reln = pg_sys::smgropen(self.node, pg_sys::InvalidBackendId);
            pg_sys::smgrnblocks(reln, MAIN)
        }
    }

    /// Copies a block, below [`Pages::count`], as it is at this moment.
    pub fn read(&self, block: u32, strategy: pg_sys::BufferAccessStrategy, page: &mut Page) {
        // SAFETY: a buffer that is pinned and locked while it is copied. An error releases both.
        unsafe {
            let buffer = pg_sys::ReadBufferWithoutRelcache(
                self.node,
                MAIN,
                block,
                pg_sys::ReadBufferMode::RBM_NORMAL,
                strategy,
                self.permanent,
            );
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let from = pg_sys::BufferBlocks.add((buffer as usize - 1) * PAGE_SIZE);
            std::ptr::copy_nonoverlapping(from.cast::<u8>(), page.as_mut_ptr(), PAGE_SIZE);
            pg_sys::UnlockReleaseBuffer(buffer);
        }
    }
}
