//! Before a statement looks into another database for the first time: its snapshot must be one that is
//! respected there.
#![allow(unsafe_code)] // the executor's hook data

use crate::reader::horizon;
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    /// A table of the access method was opened in this process.
    static IN_USE: Cell<bool> = const { Cell::new(false) };
}

/// Called when the first mounted table is opened.
pub fn in_use() {
    IN_USE.set(true);
}

/// Whether any mounted table was opened in this process.
#[inline]
pub fn is_in_use() -> bool {
    IN_USE.get()
}

/// Whether the relation is a mounted table. Needs a lock on it, or a transaction that has one.
pub fn is_mounted(relation: pg_sys::Oid) -> bool {
    // SAFETY: an entry of the relation cache, held while it is looked at; null if there is none.
    unsafe {
        let found = pg_sys::RelationIdGetRelation(relation);
        if found.is_null() {
            return false;
        }
        let ours = !(*found).rd_tableam.is_null()
            && (*(*found).rd_tableam).slot_callbacks == Some(super::am::slot_callbacks as _);
        pg_sys::RelationClose(found);
        ours
    }
}

/// From ExecutorStart: gives the statement a new snapshot if its own may be too old for what it reads.
///
/// # Safety
/// `query` is what ExecutorStart was called with.
pub unsafe fn before_execution(query: *mut pg_sys::QueryDesc) {
    // SAFETY: by the caller's promise.
    unsafe {
        if horizon::protected() || pg_sys::ParallelWorkerNumber >= 0 {
            return;
        }
        let tables = pgrx::PgList::<pg_sys::RangeTblEntry>::from_pg((*(*query).plannedstmt).rtable);
        let mounted = tables.iter_ptr().any(|entry| {
            (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                && (*entry).relkind as u8 == b'r'
                && is_mounted((*entry).relid)
        });
        if !mounted {
            return;
        }
        horizon::protect();
        // One snapshot for the whole transaction stays: the scan says if it is not good.
        let snapshot = (*query).snapshot;
        let per_statement =
            (*(&raw const pg_sys::XactIsoLevel)) < pg_sys::XACT_REPEATABLE_READ as i32;
        if per_statement && !snapshot.is_null() && !pg_sys::IsInParallelMode() {
            let new = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            pg_sys::UnregisterSnapshot(snapshot);
            (*query).snapshot = new;
        }
    }
}

/// Before COPY ... TO of a table, which runs without the executor: a new snapshot, if one is needed. `true`:
/// the caller pops it when the statement is done.
///
/// # Safety
/// A parse node.
pub unsafe fn before_copy(statement: &pg_sys::CopyStmt) -> bool {
    if statement.relation.is_null() || statement.is_from || horizon::protected() {
        return false;
    }
    // SAFETY: by the caller's promise.
    unsafe {
        let oid = pg_sys::RangeVarGetRelidExtended(
            statement.relation,
            pg_sys::AccessShareLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        );
        if oid == pg_sys::InvalidOid || !is_mounted(oid) {
            return false;
        }
        horizon::protect();
        if (*(&raw const pg_sys::XactIsoLevel)) >= pg_sys::XACT_REPEATABLE_READ as i32 {
            return false;
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        true
    }
}
