//! A page of another database's relation, pinned or copied.
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

    /// A block, below [`Pages::count`], pinned, and locked against changes until [`Pinned::unlock`].
    pub fn pin(&self, block: u32, strategy: pg_sys::BufferAccessStrategy) -> Pinned {
        // SAFETY: a relation that a lock keeps. An error releases pin and lock.
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
            Pinned(buffer)
        }
    }

    /// Shows a block, below [`Pages::count`], as it is at this moment. Its writers wait meanwhile, so
    /// `what` must lock no other page.
    pub fn show<R>(
        &self,
        block: u32,
        strategy: pg_sys::BufferAccessStrategy,
        what: impl FnOnce(&Page) -> R,
    ) -> R {
        let pinned = self.pin(block, strategy);
        // SAFETY: it is pinned and locked while it is shown.
        let result = unsafe { what(&*pinned.page()) };
        pinned.unlock();
        pinned.release();
        result
    }

    /// Copies a block, below [`Pages::count`], as it is at this moment.
    pub fn read(&self, block: u32, strategy: pg_sys::BufferAccessStrategy, page: &mut Page) {
        self.show(block, strategy, |shown| page.copy_from_slice(shown));
    }
}

/// A page in the shared buffers. While it is pinned nobody moves its tuples, though their headers may be
/// written to (bufmgr's README). The transaction's end releases what was not.
#[derive(Clone, Copy, Debug)]
pub struct Pinned(pg_sys::Buffer);

impl Pinned {
    pub fn page(&self) -> *const Page {
        // SAFETY: a valid buffer of the shared ones.
        unsafe { pg_sys::BufferBlocks.add((self.0 as usize - 1) * PAGE_SIZE) }.cast()
    }

    pub fn unlock(&self) {
        // SAFETY: locked by `pin`.
        unsafe { pg_sys::LockBuffer(self.0, pg_sys::BUFFER_LOCK_UNLOCK as i32) };
    }

    pub fn release(self) {
        // SAFETY: pinned by `pin`.
        unsafe { pg_sys::ReleaseBuffer(self.0) };
    }
}
