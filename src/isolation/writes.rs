//! Writes to foreign tables: they are another server's, or this one's, outside of the fork.
#![allow(unsafe_code)] // plans and catalogs

use crate::isolation::{in_force, refuse};
use pgrx::pg_sys;

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// pg_inherits.c; pgrx does not bind it.
    fn find_all_inheritors(
        parent: pg_sys::Oid,
        lock: i32,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}

const FOREIGN: i8 = b'f' as i8;
const PARTITIONED: i8 = b'p' as i8;

/// Raises 42501 if the plan writes to a foreign table.
///
/// # Safety
/// `query` is what the executor is about to start.
pub unsafe fn check(query: *mut pg_sys::QueryDesc, flags: i32) {
    // SAFETY: by the caller's promise; a planned statement's lists are well formed.
    unsafe {
        let plan = (*query).plannedstmt;
        if flags as u32 & pg_sys::EXEC_FLAG_EXPLAIN_ONLY != 0
            || plan.is_null()
            || (*plan).resultRelations.is_null()
            || !in_force()
        {
            return;
        }
        let tables = pgrx::PgList::<pg_sys::RangeTblEntry>::from_pg((*plan).rtable);
        let targets = pgrx::PgList::<std::ffi::c_void>::from_pg((*plan).resultRelations);
        for at in targets.iter_int() {
            if let Some(table) = tables.get_ptr(at as usize - 1) {
                check_relation((*table).relid, (*table).relkind);
            }
        }
    }
}

/// Raises 42501 if the relation that COPY writes to is foreign.
///
/// # Safety
/// `range` is a parse node.
pub unsafe fn check_range(range: *mut pg_sys::RangeVar) {
    // SAFETY: by the caller's promise. No lock: the statement itself looks again.
    unsafe {
        let missing_ok = pg_sys::RVROption::RVR_MISSING_OK;
        let none = std::ptr::null_mut();
        let oid =
            pg_sys::RangeVarGetRelidExtended(range, pg_sys::NoLock as i32, missing_ok, None, none);
        if oid != pg_sys::InvalidOid {
            check_relation(oid, pg_sys::get_rel_relkind(oid));
        }
    }
}

/// Raises 42501 if the relation, or a partition of it, is foreign.
pub fn check_relation(oid: pg_sys::Oid, kind: i8) {
    if kind == FOREIGN || (kind == PARTITIONED && any_foreign() && has_foreign_partition(oid)) {
        refuse("write to a foreign table");
    }
}

/// Whether the database has any foreign table: pg_foreign_table (3118) has a row.
fn any_foreign() -> bool {
    // SAFETY: a scan of a catalog.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let none = std::ptr::null_mut();
        let relation = pg_sys::table_open(pg_sys::Oid::from(3118), lock);
        let no_index = pg_sys::InvalidOid;
        let scan =
            pg_sys::systable_beginscan(relation, no_index, false, none, 0, std::ptr::null_mut());
        let found = !pg_sys::systable_getnext(scan).is_null();
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
        found
    }
}

fn has_foreign_partition(oid: pg_sys::Oid) -> bool {
    // SAFETY: a list of numbers; the relation itself is locked by the statement.
    unsafe {
        let all = find_all_inheritors(oid, pg_sys::NoLock as i32, std::ptr::null_mut());
        pgrx::PgList::<std::ffi::c_void>::from_pg(all)
            .iter_oid()
            .any(|oid| pg_sys::get_rel_relkind(oid) == FOREIGN)
    }
}
