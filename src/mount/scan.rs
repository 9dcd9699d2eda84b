//! Scans of mounted tables: block by block, each pinned, the snapshot's tuples picked out at once.
#![allow(unsafe_code)] // the executor's scans

use super::{opened, slot};
use crate::reader::page::Pinned;
use crate::reader::relation::Relation;
use crate::reader::{damaged, horizon, visible};
use pg_fork_core::pages::heap::{self, Place};
use pg_fork_core::pages::items;
use pg_fork_core::types::{Page, PAGE_SIZE};
use pgrx::pg_sys;
use pgrx::pg_sys::{TableScanDesc, TupleTableSlot};
use pgrx::prelude::*;
use pgrx::PgMemoryContexts;
use std::rc::Rc;

/// Begins as every scan does.
#[repr(C)]
struct Scan {
    base: pg_sys::TableScanDescData,
    state: Box<State>,
}

struct State {
    relation: Rc<Relation>,
    table: pg_sys::Oid,
    hides: bool,
    snapshot: pg_sys::Snapshot,
    /// Registered by us, for a scan that came without one.
    own_snapshot: bool,
    strategy: pg_sys::BufferAccessStrategy,
    parallel: pg_sys::ParallelBlockTableScanWorkerData,
    blocks: u32,
    /// The block that is pinned; `None` before the first and after the last.
    at: Option<u32>,
    pinned: Option<Pinned>,
    tuples: Vec<Place>,
    /// The tuple that was returned last.
    position: usize,
    sampled: u32,
}

impl State {
    fn load(&mut self, block: u32) {
        pgrx::check_for_interrupts!();
        self.leave();
        let pinned = self.relation.pages.pin(block, self.strategy);
        (self.at, self.pinned) = (Some(block), Some(pinned));
        // SAFETY: pinned, and locked until it is looked through.
        let page = unsafe { &*pinned.page() };
        let seen = visible::places(page, self.snapshot, &mut self.tuples);
        pinned.unlock();
        if let Err(error) = seen {
            damaged(self.relation.db, self.relation.oid, error);
        }
    }

    fn leave(&mut self) {
        self.at = None;
        if let Some(pinned) = self.pinned.take() {
            pinned.release();
        }
    }

    #[inline]
    unsafe fn put(&self, tuple: Place, into: *mut TupleTableSlot) {
        let (Some(block), Some(pinned)) = (self.at, self.pinned) else {
            return;
        };
        // SAFETY: the relation stays as long as the scan, the pin until the next block, and the slot holds
        // the tuple no longer than until the next is asked for.
        unsafe {
            let page = pinned.page().cast::<u8>();
            slot::store(
                into,
                (page.add(tuple.at.into()), tuple.len.into()),
                (block, tuple.number),
                self.table,
                &self.relation,
                self.hides,
            );
        }
    }
}

unsafe fn state<'a>(scan: TableScanDesc) -> &'a mut State {
    // SAFETY: made by `begin`.
    unsafe { &mut (*scan.cast::<Scan>()).state }
}

/// Whether columns of the mounted table are dropped, as those are that its owner may not read.
unsafe fn hides(relation: pg_sys::Relation) -> bool {
    // SAFETY: an open relation.
    unsafe {
        let form = (*relation).rd_att;
        let columns = (*form).attrs.as_slice((*form).natts as usize);
        columns.iter().any(|column| column.attisdropped)
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn begin(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    keys: i32,
    key: *mut pg_sys::ScanKeyData,
    parallel: pg_sys::ParallelTableScanDesc,
    flags: u32,
) -> TableScanDesc {
    // SAFETY: called by tableam.h's wrappers with an open relation; the scan lives in the caller's memory
    // context, and is dropped with it.
    unsafe {
        let found = opened::open(relation);
        let own_snapshot = snapshot.is_null();
        let snapshot = if own_snapshot {
            // ANALYZE brings none.
            pg_sys::RegisterSnapshot(horizon::new_snapshot())
        } else {
            if (*snapshot).snapshot_type != pg_sys::SnapshotType::SNAPSHOT_MVCC {
                super::change::refuse(relation, "scan without a snapshot");
            }
            horizon::check(snapshot);
            snapshot
        };
        let blocks = found.pages.count();
        let bulk = blocks > (pg_sys::NBuffers / 4) as u32;
        let strategy = match bulk {
            true => pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_BULKREAD),
            false => std::ptr::null_mut(),
        };
        pg_sys::RelationIncrementReferenceCount(relation);
        let mut base: pg_sys::TableScanDescData = std::mem::zeroed();
        base.rs_rd = relation;
        base.rs_snapshot = snapshot;
        base.rs_nkeys = keys;
        base.rs_key = key;
        base.rs_flags = flags;
        base.rs_parallel = parallel;
        let state = Box::new(State {
            relation: found,
            table: (*relation).rd_id,
            hides: hides(relation),
            snapshot,
            own_snapshot,
            strategy,
            parallel: std::mem::zeroed(),
            blocks,
            at: None,
            pinned: None,
            tuples: Vec::new(),
            position: 0,
            sampled: 0,
        });
        let scan = Scan { base, state };
        PgMemoryContexts::CurrentMemoryContext
            .leak_and_drop_on_delete(scan)
            .cast()
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn end(scan: TableScanDesc) {
    // SAFETY: a scan of ours.
    unsafe {
        let state = state(scan);
        state.leave();
        pg_sys::RelationDecrementReferenceCount((*scan).rs_rd);
        if state.own_snapshot || (*scan).rs_flags & pg_sys::ScanOptions::SO_TEMP_SNAPSHOT != 0 {
            pg_sys::UnregisterSnapshot(state.snapshot);
        }
        if !state.strategy.is_null() {
            pg_sys::FreeAccessStrategy(state.strategy);
        }
        state.tuples = Vec::new();
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn rescan(
    scan: TableScanDesc,
    _key: *mut pg_sys::ScanKeyData,
    _set_params: bool,
    _allow_strat: bool,
    _allow_sync: bool,
    _allow_pagemode: bool,
) {
    // SAFETY: a scan of ours.
    let state = unsafe { state(scan) };
    state.leave();
    state.tuples.clear();
    state.sampled = 0;
    state.blocks = state.relation.pages.count();
}

/// The block after, or before, the one that the scan is at.
unsafe fn next_block(scan: TableScanDesc, forward: bool) -> Option<u32> {
    // SAFETY: a scan of ours; a parallel scan goes forward only.
    unsafe {
        let state = state(scan);
        let shared = (*scan)
            .rs_parallel
            .cast::<pg_sys::ParallelBlockTableScanDescData>();
        if !shared.is_null() {
            let relation = (*scan).rs_rd;
            if state.at.is_none() {
                pg_sys::table_block_parallelscan_startblock_init(
                    relation,
                    &mut state.parallel,
                    shared,
                );
            }
            let block =
                pg_sys::table_block_parallelscan_nextpage(relation, &mut state.parallel, shared);
            // The workers know of the blocks that the leader saw.
            return (block != pg_sys::InvalidBlockNumber).then_some(block);
        }
        let next = match (state.at, forward) {
            (None, true) => 0,
            (None, false) => state.blocks.wrapping_sub(1),
            (Some(at), true) => at + 1,
            (Some(at), false) => at.wrapping_sub(1),
        };
        (next < state.blocks).then_some(next)
    }
}

/// Not guarded: a guard would cost as much as the rest.
pub unsafe extern "C-unwind" fn getnextslot(
    scan: TableScanDesc,
    direction: pg_sys::ScanDirection::Type,
    into: *mut TupleTableSlot,
) -> bool {
    let forward = direction != pg_sys::ScanDirection::BackwardScanDirection;
    // SAFETY: a scan of ours, a slot with our operations. Nothing here raises an error.
    unsafe {
        let state = state(scan);
        if state.at.is_some() {
            let next = match forward {
                true => state.position.wrapping_add(1),
                false => state.position.wrapping_sub(1),
            };
            if let Some(tuple) = state.tuples.get(next) {
                state.position = next;
                state.put(*tuple, into);
                return true;
            }
        }
        turn_page(scan, forward, into)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn turn_page(
    scan: TableScanDesc,
    forward: bool,
    into: *mut TupleTableSlot,
) -> bool {
    // SAFETY: as above.
    unsafe {
        let state = state(scan);
        while let Some(block) = next_block(scan, forward) {
            state.load(block);
            state.position = if forward {
                0
            } else {
                state.tuples.len().wrapping_sub(1)
            };
            if let Some(tuple) = state.tuples.get(state.position) {
                state.put(*tuple, into);
                return true;
            }
        }
        // From here the other way round, or all over.
        state.leave();
        if let Some(clear) = (*(*into).tts_ops).clear {
            clear(into);
        }
        false
    }
}

/// One tuple by its place.
#[pg_guard]
pub unsafe extern "C-unwind" fn fetch_row_version(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    into: *mut TupleTableSlot,
) -> bool {
    // SAFETY: an open relation, a place, a snapshot, and a slot with our operations, whose memory the
    // page's copy is put in.
    unsafe {
        // A row that was joined is asked for again, whatever its state (execMain.c, `EvalPlanQualFetchRowMark`).
        let any = (*snapshot).snapshot_type == pg_sys::SnapshotType::SNAPSHOT_ANY;
        if !any && (*snapshot).snapshot_type != pg_sys::SnapshotType::SNAPSHOT_MVCC {
            super::change::read_only(relation);
        }
        let found = opened::open(relation);
        if !any {
            horizon::check(snapshot);
        }
        let (block, number) = pgrx::itemptr::item_pointer_get_both(*tid);
        if block >= found.pages.count() {
            return false;
        }
        let page = pg_sys::MemoryContextAlloc((*into).tts_mcxt, PAGE_SIZE).cast::<Page>();
        found.pages.read(block, std::ptr::null_mut(), &mut *page);
        let known = items(&*page).and_then(|count| match (1..=count).contains(&number) {
            true => heap::tuple(&*page, number),
            false => Ok(None),
        });
        let tuple = match known {
            Ok(tuple) => tuple.filter(|tuple| match any {
                true => visible::kept(tuple),
                false => visible::sees(tuple, &*page, snapshot),
            }),
            Err(error) => damaged(found.db, found.oid, error),
        };
        if let Some(tuple) = tuple {
            let data = (page.cast::<u8>().add(tuple.at).cast_const(), tuple.len);
            slot::store(
                into,
                data,
                (block, number),
                (*relation).rd_id,
                &found,
                hides(relation),
            );
            if let Some(materialize) = (*(*into).tts_ops).materialize {
                materialize(into);
            }
        }
        pg_sys::pfree(page.cast());
        tuple.is_some()
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn tid_valid(scan: TableScanDesc, tid: pg_sys::ItemPointer) -> bool {
    // SAFETY: a scan of ours, a place.
    unsafe {
        let (block, _) = pgrx::itemptr::item_pointer_get_both(*tid);
        block < state(scan).blocks
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn sample_next_block(
    scan: TableScanDesc,
    sample: *mut pg_sys::SampleScanState,
) -> bool {
    // SAFETY: a scan of ours, and the sampling method's state.
    unsafe {
        let state = state(scan);
        let block = match (*(*sample).tsmroutine).NextSampleBlock {
            Some(next) => {
                let blocks = state.blocks;
                let block = pg_sys::ffi::pg_guard_ffi_boundary(|| next(sample, blocks));
                (block != pg_sys::InvalidBlockNumber).then_some(block)
            }
            None => next_block(scan, true),
        };
        match block {
            Some(block) => state.load(block),
            None => state.leave(),
        }
        block.is_some()
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn sample_next_tuple(
    scan: TableScanDesc,
    sample: *mut pg_sys::SampleScanState,
    into: *mut TupleTableSlot,
) -> bool {
    // SAFETY: as above, on a block that `sample_next_block` has loaded.
    unsafe {
        let state = state(scan);
        let (Some(block), Some(next)) = (state.at, (*(*sample).tsmroutine).NextSampleTuple) else {
            return false;
        };
        let Some(pinned) = state.pinned else {
            return false;
        };
        // Those that come or go meanwhile are not among the tuples.
        let last = items(&*pinned.page()).unwrap_or(0);
        loop {
            let number = pg_sys::ffi::pg_guard_ffi_boundary(|| next(sample, block, last));
            if number == 0 {
                return false;
            }
            if let Some(tuple) = state.tuples.iter().find(|tuple| tuple.number == number) {
                state.put(*tuple, into);
                return true;
            }
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn analyze_next_block(
    scan: TableScanDesc,
    block: pg_sys::BlockNumber,
    _strategy: pg_sys::BufferAccessStrategy,
) -> bool {
    // SAFETY: a scan of ours.
    let state = unsafe { state(scan) };
    // It may have been truncated since; what VACUUM took away was dead.
    if block >= state.blocks {
        return false;
    }
    state.load(block);
    state.sampled = 0;
    true
}

#[pg_guard]
pub unsafe extern "C-unwind" fn analyze_next_tuple(
    scan: TableScanDesc,
    _oldest: pg_sys::TransactionId,
    live: *mut f64,
    _dead: *mut f64,
    into: *mut TupleTableSlot,
) -> bool {
    // SAFETY: a scan of ours, on a block that `analyze_next_block` has loaded.
    unsafe {
        let state = state(scan);
        let Some(tuple) = state.tuples.get(state.sampled as usize) else {
            return false;
        };
        state.sampled += 1;
        *live += 1.0;
        state.put(*tuple, into);
        true
    }
}

/// The table's size in bytes: what the planner and parallel scans go by.
#[pg_guard]
pub unsafe extern "C-unwind" fn size(
    relation: pg_sys::Relation,
    fork: pg_sys::ForkNumber::Type,
) -> u64 {
    match fork {
        pg_sys::ForkNumber::MAIN_FORKNUM | pg_sys::ForkNumber::InvalidForkNumber => {
            // SAFETY: an open relation.
            let found = unsafe { opened::open(relation) };
            u64::from(found.pages.count()) * PAGE_SIZE as u64
        }
        _ => 0,
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn estimate_size(
    relation: pg_sys::Relation,
    widths: *mut i32,
    pages: *mut pg_sys::BlockNumber,
    tuples: *mut f64,
    all_visible: *mut f64,
) {
    // SAFETY: an open relation, and places for the results.
    unsafe {
        let found = opened::open(relation);
        if found.relpages <= 0 || found.reltuples < 0.0 {
            // Never vacuumed there: by the columns' widths, as for any table (heapam_handler.c).
            pg_sys::table_block_relation_estimate_size(
                relation,
                widths,
                pages,
                tuples,
                all_visible,
                24 + 4,
                (PAGE_SIZE - 24) as pg_sys::Size,
            );
            return;
        }
        *pages = found.pages.count();
        let density = f64::from(found.reltuples) / f64::from(found.relpages);
        *tuples = (density * f64::from(*pages)).round();
        *all_visible = 0.0;
    }
}
