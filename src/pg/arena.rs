//! Memory for many pages at once, touched before it is needed: where the source waits there is no time
//! for page faults.
#![allow(unsafe_code)] // maps memory

use pg_fork_core::types::{Page, PAGE_SIZE};
use std::io;

/// Room for a number of pages, some of them in use.
pub struct Arena {
    base: *mut u8,
    room: usize,
    used: usize,
}

impl Arena {
    /// Room for `room` pages, of which the first `soon` will be needed.
    pub fn new(room: usize, soon: usize) -> io::Result<Self> {
        let room = room.max(1);
        let bytes = room * PAGE_SIZE;
        // SAFETY: fresh anonymous memory, unmapped when this is dropped; the advice is no more than that.
        unsafe {
            let base = libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            if soon > 0 {
                libc::madvise(base, bytes, libc::MADV_HUGEPAGE);
                // Older kernels do not know it; then the faults come later.
                libc::madvise(base, soon.min(room) * PAGE_SIZE, libc::MADV_POPULATE_WRITE);
            }
            Ok(Arena {
                base: base.cast(),
                room,
                used: 0,
            })
        }
    }

    pub fn room(&self) -> usize {
        self.room
    }

    /// Makes it empty.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// The next page to fill; `None` if there is no room.
    pub fn next(&mut self) -> Option<&mut Page> {
        if self.used >= self.room {
            return None;
        }
        self.used += 1;
        // SAFETY: within the mapping; each page is given out once, to who holds this exclusively.
        unsafe { Some(&mut *self.base.add((self.used - 1) * PAGE_SIZE).cast()) }
    }

    /// The pages in use.
    pub fn pages(&mut self) -> &mut [Page] {
        // SAFETY: within the mapping, which is held exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.cast(), self.used) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nothing of it is lent out any more.
        unsafe { libc::munmap(self.base.cast(), self.room * PAGE_SIZE) };
    }
}
