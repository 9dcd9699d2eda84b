//! Queries that reach out of the database: they write to foreign tables, which are another server's, or this
//! one's, outside of the fork; to catalogs that all databases share; lock rows of either; or run programs.
#![allow(unsafe_code)] // plans and catalogs

use crate::isolation::{in_force, programs, refuse, shared};
use pgrx::pg_sys::{self, Oid};
use pgrx::PgList;
use std::ffi::c_void;

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// pg_inherits.c; pgrx does not bind it.
    fn find_all_inheritors(
        parent: Oid,
        lock: i32,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}

/// Raises 42501 if the plan reaches out.
///
/// # Safety
/// `query` is what the executor is about to start.
pub unsafe fn check(query: *mut pg_sys::QueryDesc, flags: i32) {
    // SAFETY: by the caller's promise; a planned statement's lists are well formed.
    unsafe {
        let plan = (*query).plannedstmt;
        let explains = flags as u32 & pg_sys::EXEC_FLAG_EXPLAIN_ONLY != 0;
        if explains || plan.is_null() || !in_force() {
            return;
        }
        let tables = PgList::<pg_sys::RangeTblEntry>::from_pg((*plan).rtable);
        let table = |at: usize| tables.get_ptr(at - 1).map(|table| (*table).relid);
        for at in PgList::<c_void>::from_pg((*plan).resultRelations).iter_int() {
            table(at as usize).into_iter().for_each(check_relation);
        }
        for mark in PgList::<pg_sys::PlanRowMark>::from_pg((*plan).rowMarks).iter_ptr() {
            if (*mark).strength != pg_sys::LockClauseStrength::LCS_NONE {
                table((*mark).rti as usize)
                    .into_iter()
                    .for_each(check_row_lock);
            }
        }
        for table in tables.iter_ptr() {
            let relation = (*table).rtekind == pg_sys::RTEKind::RTE_RELATION;
            if relation && (*table).relkind as u8 == pg_sys::RELKIND_FOREIGN_TABLE {
                programs::check((*table).relid);
            }
        }
    }
}

/// FOR UPDATE and the like: a wrapper passes them on to the other server.
fn check_row_lock(relation: Oid) {
    if is_foreign(relation) {
        refuse("lock rows of a foreign table");
    }
    if shared::is_shared(relation) {
        refuse("lock rows that databases share");
    }
}

/// Raises 42501 if the relation that COPY writes to is not the database's own.
///
/// # Safety
/// `range` is a parse node.
pub unsafe fn check_range(range: *mut pg_sys::RangeVar) {
    // SAFETY: by the caller's promise.
    if let Some(oid) = unsafe { shared::named(range) } {
        check_relation(oid);
    }
}

/// Raises 42501 for a relation that must not be written to: it, or a partition of it, is foreign, or all
/// databases share it.
pub fn check_relation(oid: Oid) {
    if shared::is_shared(oid) {
        refuse("write to what databases share");
    }
    // SAFETY: a look-up.
    let kind = unsafe { pg_sys::get_rel_relkind(oid) } as u8;
    let partitioned = kind == pg_sys::RELKIND_PARTITIONED_TABLE;
    if is_foreign(oid)
        || (partitioned && !foreign_tables().is_empty() && members(oid).into_iter().any(is_foreign))
    {
        refuse("write to a foreign table");
    }
}

fn is_foreign(relation: Oid) -> bool {
    // SAFETY: a look-up.
    unsafe { pg_sys::get_rel_relkind(relation) as u8 == pg_sys::RELKIND_FOREIGN_TABLE }
}

/// The database's foreign tables: there are few, or none.
pub fn foreign_tables() -> Vec<Oid> {
    let mut found = Vec::new();
    // SAFETY: a scan of a catalog; a row lives until the next.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let none = std::ptr::null_mut();
        let relation = pg_sys::table_open(pg_sys::ForeignTableRelationId, lock);
        let no_index = pg_sys::InvalidOid;
        let scan =
            pg_sys::systable_beginscan(relation, no_index, false, none, 0, std::ptr::null_mut());
        loop {
            let row = pg_sys::systable_getnext(scan);
            if row.is_null() {
                break;
            }
            let form = pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_foreign_table>();
            found.push((*form).ftrelid);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    found
}

/// The table, and all that inherit from it.
pub fn members(table: Oid) -> Vec<Oid> {
    // SAFETY: a list of numbers; the relation itself is locked by the statement.
    unsafe {
        let all = find_all_inheritors(table, pg_sys::NoLock as i32, std::ptr::null_mut());
        PgList::<c_void>::from_pg(all).iter_oid().collect()
    }
}
