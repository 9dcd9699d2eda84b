//! The table access method `fork` (tableam.h, `TableAmRoutine`).
#![allow(unsafe_code)] // C calls the handler

use super::{change, opened, scan, slot};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::sync::OnceLock;

struct Routine(pg_sys::TableAmRoutine);

// SAFETY: function pointers.
unsafe impl Send for Routine {}
// SAFETY: never changed once made.
unsafe impl Sync for Routine {}

/// From `_PG_init`.
pub fn register() {
    opened::register();
}

static ROUTINE: OnceLock<Routine> = OnceLock::new();

/// Whether a table's access method is this one.
pub(super) fn is_ours(routine: *const pg_sys::TableAmRoutine) -> bool {
    ROUTINE
        .get()
        .is_some_and(|ours| std::ptr::eq(&raw const ours.0, routine))
}

/// Whether a relation's access method is this one, by the catalog caches: needs no lock, and says nothing of
/// what becomes of the relation meanwhile.
pub(super) fn is_method_of(relation: pg_sys::Oid) -> bool {
    const HEAP: u32 = 2;
    // SAFETY: a row of the catalog cache, held while it is looked at; then a look-up by name.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let row = pg_sys::SearchSysCache1(cache, relation.into());
        if row.is_null() {
            return false;
        }
        let method = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_class>(row)).relam;
        pg_sys::ReleaseSysCache(row);
        !matches!(method.to_u32(), 0 | HEAP) && method == pg_sys::get_am_oid(c"fork".as_ptr(), true)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn slot_callbacks(
    _relation: pg_sys::Relation,
) -> *const pg_sys::TupleTableSlotOps {
    slot::operations()
}

#[pg_guard]
unsafe extern "C-unwind" fn parallel_estimate(relation: pg_sys::Relation) -> pg_sys::Size {
    // SAFETY: an open relation, here and below.
    unsafe { pg_sys::table_block_parallelscan_estimate(relation) }
}

#[pg_guard]
unsafe extern "C-unwind" fn parallel_initialize(
    relation: pg_sys::Relation,
    scan: pg_sys::ParallelTableScanDesc,
) -> pg_sys::Size {
    // SAFETY: see parallel_estimate.
    unsafe { pg_sys::table_block_parallelscan_initialize(relation, scan) }
}

#[pg_guard]
unsafe extern "C-unwind" fn parallel_reinitialize(
    relation: pg_sys::Relation,
    scan: pg_sys::ParallelTableScanDesc,
) {
    // SAFETY: see parallel_estimate.
    unsafe { pg_sys::table_block_parallelscan_reinitialize(relation, scan) }
}

fn routine() -> pg_sys::TableAmRoutine {
    pg_sys::TableAmRoutine {
        type_: pg_sys::NodeTag::T_TableAmRoutine,
        slot_callbacks: Some(slot_callbacks),
        scan_begin: Some(scan::begin),
        scan_end: Some(scan::end),
        scan_rescan: Some(scan::rescan),
        scan_getnextslot: Some(scan::getnextslot),
        parallelscan_estimate: Some(parallel_estimate),
        parallelscan_initialize: Some(parallel_initialize),
        parallelscan_reinitialize: Some(parallel_reinitialize),
        index_fetch_begin: Some(change::index_fetch_begin),
        index_fetch_reset: Some(change::index_fetch_none),
        index_fetch_end: Some(change::index_fetch_none),
        index_fetch_tuple: Some(change::index_fetch_tuple),
        tuple_fetch_row_version: Some(scan::fetch_row_version),
        tuple_tid_valid: Some(scan::tid_valid),
        tuple_get_latest_tid: Some(change::latest_tid),
        tuple_satisfies_snapshot: Some(change::satisfies_snapshot),
        index_delete_tuples: Some(change::index_delete_tuples),
        tuple_insert: Some(change::insert),
        tuple_insert_speculative: Some(change::insert_speculative),
        tuple_complete_speculative: Some(change::complete_speculative),
        multi_insert: Some(change::multi_insert),
        tuple_delete: Some(change::delete),
        tuple_update: Some(change::update),
        tuple_lock: Some(change::lock),
        relation_set_new_filenode: Some(change::set_new_filenode),
        relation_nontransactional_truncate: Some(change::truncate),
        relation_copy_data: Some(change::copy_data),
        relation_copy_for_cluster: Some(change::copy_for_cluster),
        relation_vacuum: Some(change::vacuum),
        scan_analyze_next_block: Some(scan::analyze_next_block),
        scan_analyze_next_tuple: Some(scan::analyze_next_tuple),
        index_build_range_scan: Some(change::index_build),
        index_validate_scan: Some(change::index_validate),
        relation_size: Some(scan::size),
        relation_needs_toast_table: Some(change::needs_toast_table),
        relation_estimate_size: Some(scan::estimate_size),
        scan_sample_next_block: Some(scan::sample_next_block),
        scan_sample_next_tuple: Some(scan::sample_next_tuple),
        ..Default::default()
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_fork_handler_c() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// Returns the access method's routine, which lives as long as the process.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_handler_c(_call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    super::watch::in_use();
    pg_sys::Datum::from(&raw const ROUTINE.get_or_init(|| Routine(routine())).0)
}

extension_sql!(
    r#"
CREATE FUNCTION fork_internal.fork_handler(internal) RETURNS table_am_handler
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'fork_handler_c';
REVOKE ALL ON FUNCTION fork_internal.fork_handler(internal) FROM PUBLIC;
CREATE ACCESS METHOD fork TYPE TABLE HANDLER fork_internal.fork_handler;
COMMENT ON ACCESS METHOD fork IS 'tables of a fork, mounted to be read; made by fork_mount';
"#,
    name = "fork_access_method"
);
