//! Looks through the headers of the buffer pool for a database's dirty pages.
//!
//! There is no shorter way to them: one line of the processor's cache for each buffer, 64 MB for 8 GB, read
//! in order as fast as memory gives them. In very large pools some threads share in it.
#![allow(unsafe_code)] // reads buffer headers

use crate::pg::threads;
use pg_fork_core::types::RelFork;
use pgrx::pg_sys;
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

// buf_internals.h
const BM_LOCKED: u32 = 1 << 22;
const BM_DIRTY: u32 = 1 << 23;
const BM_VALID: u32 = 1 << 24;
const BM_TAG_VALID: u32 = 1 << 25;
const BM_IO_IN_PROGRESS: u32 = 1 << 26;

/// Buffers that are worth a thread: 8 GB, some 3 ms. Two threads of one core gain nothing.
const SHARE: usize = 1024 * 1024;
/// Headers between two looks at the clock.
const STRIDE: usize = 16 * 1024;

/// A header's words.
#[repr(transparent)]
struct Header([AtomicU32; size_of::<pg_sys::BufferDescPadded>() / 4]);

impl Header {
    #[inline]
    fn state(&self) -> u32 {
        const AT: usize = std::mem::offset_of!(pg_sys::BufferDesc, state) / 4;
        self.0[AT].load(Ordering::Relaxed)
    }
}

/// A page that is dirty in the buffer pool.
#[derive(Clone, Copy)]
pub struct Dirty {
    /// PostgreSQL's number, from 1.
    pub buffer: i32,
    pub tag: pg_sys::BufferTag,
}

impl Dirty {
    pub fn is_same(&self, other: &Dirty) -> bool {
        (self.buffer, self.tag.blockNum) == (other.buffer, other.tag.blockNum)
            && self.rel() == other.rel()
    }

    pub fn rel(&self) -> RelFork {
        RelFork {
            spc: self.tag.rnode.spcNode.to_u32(),
            rel: self.tag.rnode.relNode.to_u32(),
            fork: self.tag.forkNum as u8,
        }
    }
}

thread_local! {
    static MAPPED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this process has looked before: the first time it has a page fault for each of the headers' pages,
/// which takes longer than the look itself.
pub fn is_mapped() -> bool {
    MAPPED.get()
}

/// The headers; threads read them too, and call nothing of the server's.
#[derive(Clone, Copy)]
struct Pool {
    base: *mut pg_sys::BufferDescPadded,
    count: usize,
}

// SAFETY: shared memory, made to be read by many at a time.
unsafe impl Sync for Pool {}

impl Pool {
    fn of_server() -> Self {
        // SAFETY: set at the start of the server.
        unsafe {
            Pool {
                base: pg_sys::BufferDescriptors,
                count: pg_sys::NBuffers as usize,
            }
        }
    }

    fn state(&self, n: usize) -> u32 {
        assert!(n < self.count);
        // SAFETY: within the headers, which live as long as the server.
        unsafe { std::ptr::read_volatile(&raw const (*self.base.add(n)).bufferdesc.state.value) }
    }

    fn tag(&self, n: usize) -> pg_sys::BufferTag {
        assert!(n < self.count);
        // SAFETY: as above. A tag that changes under us is of a page being replaced, so not dirty any more;
        // FlushDatabaseBuffers (bufmgr.c) looks the same way first.
        unsafe { std::ptr::read_volatile(&raw const (*self.base.add(n)).bufferdesc.tag) }
    }

    /// The database's page that the buffer holds, if it holds one.
    #[cold]
    fn page(&self, n: usize, db: u32) -> Option<Dirty> {
        let state = self.state(n);
        let valid = state & BM_TAG_VALID != 0 && state & BM_VALID != 0;
        let tag = self.tag(n);
        (valid && tag.rnode.dbNode.to_u32() == db).then_some(Dirty {
            buffer: n as i32 + 1,
            tag,
        })
    }

    /// One of so many parts of the pool; `None`: not done by the deadline.
    fn look(&self, part: usize, parts: usize, what: &Look) -> Option<Vec<Dirty>> {
        let each = self.count.div_ceil(parts);
        let (begin, end) = (part * each, ((part + 1) * each).min(self.count));
        let mut found = Vec::new();
        for first in (begin..end).step_by(STRIDE) {
            if what.deadline.is_some_and(|end| Instant::now() > end) {
                return None;
            }
            // SAFETY: within the headers, which live as long as the server.
            let headers = unsafe {
                let count = STRIDE.min(end - first);
                std::slice::from_raw_parts(self.base.add(first).cast::<Header>(), count)
            };
            for (n, header) in headers.iter().enumerate() {
                if header.state() & what.flags != 0 {
                    found.extend(self.page(first + n, what.db));
                }
            }
        }
        Some(found)
    }

    /// `None`: not done by the deadline.
    fn look_everywhere(&self, what: &Look) -> Option<Vec<Dirty>> {
        let parts = (self.count / SHARE).clamp(1, threads::processors());
        let found = threads::share(parts, |part| self.look(part, parts, what));
        let found: Option<Vec<_>> = found.into_iter().collect();
        MAPPED.set(true);
        Some(found?.concat())
    }
}

struct Look {
    db: u32,
    flags: u32,
    deadline: Option<Instant>,
}

/// The database's dirty pages, more or less: nobody is stopped.
pub fn dirty(db: u32) -> Vec<Dirty> {
    let look = Look {
        db,
        flags: BM_DIRTY,
        deadline: None,
    };
    Pool::of_server().look_everywhere(&look).unwrap_or_default()
}

/// The databases with a dirty page of a main relation fork, more or less: nobody is stopped.
pub fn dirty_databases() -> HashSet<u32> {
    let pool = Pool::of_server();
    let mut found = HashSet::new();
    for n in 0..pool.count {
        if pool.state(n) & (BM_DIRTY | BM_TAG_VALID) == BM_DIRTY | BM_TAG_VALID {
            let tag = pool.tag(n);
            if tag.forkNum == 0 {
                found.insert(tag.rnode.dbNode.to_u32());
            }
        }
    }
    found
}

/// The database's dirty pages. Its backends are stopped, so none is added; others may write some
/// out meanwhile.
///
/// A write that is under way is waited for: who does it may have looked for the newest layer before there
/// was this one, and nothing new may come to the layers before it. `None`: not done by the deadline.
pub fn dirty_for_ever(db: u32, deadline: Instant) -> Option<Vec<Dirty>> {
    let pool = Pool::of_server();
    let look = Look {
        db,
        flags: BM_DIRTY | BM_IO_IN_PROGRESS,
        deadline: Some(deadline),
    };
    let mut pages = pool.look_everywhere(&look)?;
    if !await_writes(&pages, deadline) {
        return None;
    }
    pages.retain(|page| pool.state(page.buffer as usize - 1) & BM_DIRTY != 0);
    Some(pages)
}

/// Waits for the writes of these pages that have begun: as above. `false`: not done by the deadline.
pub fn await_writes(pages: &[Dirty], deadline: Instant) -> bool {
    let pool = Pool::of_server();
    pages.iter().all(|page| {
        // Whatever the buffer holds now: a read of another page is waited for as well.
        while pool.state(page.buffer as usize - 1) & BM_IO_IN_PROGRESS != 0 {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        true
    })
}

/// Whether the buffer holds the page still.
pub fn holds(page: &Dirty) -> bool {
    let db = page.tag.rnode.dbNode.to_u32();
    let now = Pool::of_server().page(page.buffer as usize - 1, db);
    now.is_some_and(|now| now.is_same(page))
}

/// Whether the page's header can be locked: who holds it may sleep until the cut is done.
pub fn is_free(page: &Dirty) -> bool {
    const LONGEST: Duration = Duration::from_millis(1);
    let pool = Pool::of_server();
    let locked = || pool.state(page.buffer as usize - 1) & BM_LOCKED != 0;
    let mut since = None;
    while locked() {
        if since.get_or_insert_with(Instant::now).elapsed() > LONGEST {
            return false;
        }
        std::hint::spin_loop();
    }
    true
}
