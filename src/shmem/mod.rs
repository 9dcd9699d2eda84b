//! The extension's shared memory: one region, laid out once, and the hooks that make it.
//!
//! Rust statics outlive a crash restart, and `_PG_init` is not run again then; the hooks
//! are. So everything is found again through `SHARED` each time.
#![allow(unsafe_code)] // the region is raw memory that all processes share

pub mod load;
pub mod pagemap;
pub mod registry;
pub mod stats;
pub mod view;

use crate::guc;
use pg_fork_core::cache::PageMapCache;
use pg_fork_core::filter::MapFilter;
use pg_fork_core::outcomes::OutcomeTable;
use pg_fork_core::table::{bucket_count, Head, Row};
use pgrx::pg_sys;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What changes often: in a cache line of its own, because its neighbours are read by all for each block.
#[repr(C, align(64))]
pub struct Line<T>(T);

impl<T> Deref for Line<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The fixed part of the region.
#[repr(C)]
pub struct Shared {
    /// Forks, layers and tombstones, plus `skipping`. While it is 0 every hook is md's own function (I9).
    pub live: AtomicU32,
    /// 1 once WAL of a database that is not here was met.
    pub skipping: AtomicU32,
    /// 1 while forks' folders have no links in `base` ([`crate::fork::restart`]).
    pub hidden: AtomicU32,
    pub next_space: AtomicU32,
    /// Changes whenever a fork or a layer comes or goes.
    pub generation: AtomicU64,
    pub next_seq: AtomicU64,
    /// Merges of layers that were done ([`pg_fork_core::summary`]).
    pub merges: AtomicU32,
    /// Hand-overs that were begun, and that have ended.
    pub hand_overs: [AtomicU32; 2],
    /// Changes whenever a page map says something new.
    pub map_changes: Line<AtomicU64>,
    /// Changes whenever a page map's state does, not its bits.
    pub state_changes: AtomicU64,
    /// The database that is being cut, or 0 (D4).
    pub cut_db: AtomicU32,
    /// How a cut stops those that do not answer ([`crate::smgr::halt`]).
    pub halt: crate::smgr::halt::Halt,
    /// Processes that have come to a database so far, each counted before it leaves again. By the database's
    /// number, in so many places.
    arrivals: [AtomicU64; ARRIVALS],
    /// Until when no source is stopped again, by the machine's clock: by anyone, and by callers who are no
    /// superusers ([`crate::fork::patience`]).
    pub rest_until: [AtomicU64; 2],
    /// Set while the worker is asked to clean up.
    pub cleanup: AtomicU32,
    /// What a page takes to capture, in nanoseconds ([`crate::fork::capture`]); 0: not known yet.
    pub capture_ns: AtomicU32,
    /// Dirty pages that the last cut has found; a guess before the first.
    pub dirty: AtomicU32,
    pub worker_latch: AtomicPtr<pg_sys::Latch>,
    pub stats: stats::Counters,
    /// Where the WAL was when a layer was written to last ([`crate::fork::marks`]).
    pub touched: [AtomicU64; crate::fork::marks::PLACES],
}

const ARRIVALS: usize = 64;

impl Shared {
    /// How many have come to the database so far, or to one that shares its place.
    pub fn arrivals(&self, db: u32) -> &AtomicU64 {
        &self.arrivals[db as usize % ARRIVALS]
    }
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());
static HEAD: AtomicPtr<Head> = AtomicPtr::new(std::ptr::null_mut());
static BUCKETS: AtomicPtr<u32> = AtomicPtr::new(std::ptr::null_mut());
static ROWS: AtomicPtr<Row<registry::Slot>> = AtomicPtr::new(std::ptr::null_mut());
static STOPPED: AtomicPtr<AtomicBool> = AtomicPtr::new(std::ptr::null_mut());
static HALTED: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
static MAP: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
static FILTER: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
static OUTCOMES: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());

/// The region, if it is there: never in a process that runs before the startup hook did.
pub fn shared() -> Option<&'static Shared> {
    // SAFETY: set once in the startup hook, to memory that lives as long as the server.
    unsafe { SHARED.load(Ordering::Relaxed).as_ref() }
}

/// Whether any fork, layer or tombstone exists.
#[inline]
pub fn any_live() -> bool {
    shared().is_some_and(|shared| shared.live.load(Ordering::Relaxed) != 0)
}

/// How often the postmaster has made the region.
static LIVES: AtomicU64 = AtomicU64::new(0);

static SLOT_COUNT: AtomicUsize = AtomicUsize::new(0);

/// How many slots the registry has: a fork takes one, its layer another, and those on their way out
/// as many. All that is on disk must fit, however low `pg_fork.max_forks` was set since: recovery must
/// know each.
fn slot_count() -> usize {
    SLOT_COUNT.load(Ordering::Relaxed)
}

/// The registry's table. Only under the registry's lock.
fn table() -> (*mut Head, *mut [u32], *mut [Row<registry::Slot>]) {
    let buckets = BUCKETS.load(Ordering::Relaxed);
    let rows = ROWS.load(Ordering::Relaxed);
    (
        HEAD.load(Ordering::Relaxed),
        std::ptr::slice_from_raw_parts_mut(buckets, bucket_count(slot_count())),
        std::ptr::slice_from_raw_parts_mut(rows, slot_count()),
    )
}

/// The flag that process `number` raises while it waits for a cut.
pub fn stopped_flag(number: usize) -> Option<&'static AtomicBool> {
    let flags = STOPPED.load(Ordering::Relaxed);
    if flags.is_null() || number >= processes() {
        return None;
    }
    // SAFETY: within the array, which lives as long as the server.
    Some(unsafe { &*flags.add(number) })
}

/// The number of the cut for which process `number` sleeps where a signal has arrived, or 0. Asked in signal handlers.
pub fn halted_flag(number: usize) -> Option<&'static AtomicU32> {
    let flags = HALTED.load(Ordering::Relaxed);
    if flags.is_null() || number >= processes() {
        return None;
    }
    // SAFETY: within the array, which lives as long as the server.
    Some(unsafe { &*flags.add(number) })
}

/// The page-map cache.
pub fn page_map() -> PageMapCache<'static> {
    // SAFETY: the array was made with this many words and lives as long as the server.
    PageMapCache::new(unsafe {
        std::slice::from_raw_parts(MAP.load(Ordering::Relaxed), map_words())
    })
}

/// Which forks and layers surely have no map of a relation.
pub fn map_filter() -> MapFilter<'static> {
    // SAFETY: as above.
    MapFilter::new(unsafe {
        std::slice::from_raw_parts(FILTER.load(Ordering::Relaxed), filter_words())
    })
}

/// Words of known outcomes: of a million transactions, in half a megabyte.
const OUTCOME_WORDS: usize = 1 << 16;

/// How transactions have ended, if anyone asked for it.
pub fn outcomes() -> OutcomeTable<'static> {
    // SAFETY: as above.
    OutcomeTable::new(unsafe {
        std::slice::from_raw_parts(OUTCOMES.load(Ordering::Relaxed), OUTCOME_WORDS)
    })
}

/// Twice as many places as slots: numbers of spaces that live long are in the way of newer ones.
fn filter_words() -> usize {
    MapFilter::words(slot_count() * 2)
}

fn map_words() -> usize {
    (guc::PAGE_MAP_MEMORY.get() as usize * 1024 / 4).max(PageMapCache::min_words())
}

extern "C" {
    /// twophase.c
    static max_prepared_xacts: i32;
}

/// An upper bound of `ProcGlobal->allProcCount`, which is not known yet when memory is asked for.
fn processes() -> usize {
    // SAFETY: plain variables, set before shared memory is asked for.
    unsafe { (pg_sys::MaxBackends + max_prepared_xacts) as usize + 64 }
}

fn size() -> usize {
    size_of::<Shared>()
        + size_of::<Head>()
        + bucket_count(slot_count()) * 4
        + slot_count() * size_of::<Row<registry::Slot>>()
        + processes() * (1 + size_of::<AtomicU32>())
        + map_words() * 4
        + filter_words() * 4
        + OUTCOME_WORDS * 8
        + 1024
}

/// From `shmem_request_hook`, in the postmaster.
pub fn request() {
    crate::fork::restart::show_folders();
    let slots = guc::MAX_FORKS.get() as usize * 5 + 64 + crate::fork::files::count();
    SLOT_COUNT.store(slots, Ordering::Relaxed);
    // SAFETY: called in the phase in which requests are taken.
    unsafe { pg_sys::RequestAddinShmemSpace(size()) };
    crate::pg::lwlock::request();
}

/// The postmaster's end: its children have forgotten this (ipc.c, `on_exit_reset`).
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, _arg: pg_sys::Datum) {
    crate::fork::files::unlink_versions();
}

/// From `shmem_startup_hook`: in the postmaster, at the start and after each crash of a backend.
pub fn attach() {
    crate::pg::lwlock::attach();
    // SAFETY: ShmemInitStruct under its lock, as PostgreSQL's own users of it do; the pieces are
    // carved from one allocation, each aligned to 64 bytes.
    unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(21)).lock; // AddinShmemInitLock
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let mut found = false;
        let base = pg_sys::ShmemInitStruct(c"pg_fork".as_ptr(), size(), &mut found).cast::<u8>();
        if !found {
            std::ptr::write_bytes(base, 0, size());
        }
        let mut at = 0usize;
        let mut carve = |bytes: usize| {
            at = at.next_multiple_of(64);
            let piece = base.add(at);
            at += bytes;
            piece
        };
        SHARED.store(carve(size_of::<Shared>()).cast(), Ordering::Relaxed);
        HEAD.store(carve(size_of::<Head>()).cast(), Ordering::Relaxed);
        let buckets = carve(bucket_count(slot_count()) * 4);
        BUCKETS.store(buckets.cast(), Ordering::Relaxed);
        let rows = carve(slot_count() * size_of::<Row<registry::Slot>>());
        ROWS.store(rows.cast(), Ordering::Relaxed);
        STOPPED.store(carve(processes()).cast(), Ordering::Relaxed);
        HALTED.store(carve(processes() * 4).cast(), Ordering::Relaxed);
        MAP.store(carve(map_words() * 4).cast(), Ordering::Relaxed);
        FILTER.store(carve(filter_words() * 4).cast(), Ordering::Relaxed);
        OUTCOMES.store(carve(OUTCOME_WORDS * 8).cast(), Ordering::Relaxed);
        pg_sys::LWLockRelease(lock);
        if !found {
            // What this process saw of the registry before a crash must not be taken for what is in it
            // now, by the processes that it forks either.
            let life = LIVES.fetch_add(1, Ordering::Relaxed);
            if life == 0 {
                pg_sys::on_proc_exit(Some(at_exit), pg_sys::Datum::from(0usize));
            }
            if let Some(shared) = shared() {
                shared.generation.store(life << 40, Ordering::SeqCst);
                shared.dirty.store(u32::MAX, Ordering::Relaxed);
            }
            crate::fork::restart::show_folders();
            crate::fork::start::begin();
        }
    }
}
