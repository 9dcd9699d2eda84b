//! Catalogs that all databases share: pg_database, pg_authid and the like. Who locks one, or writes to it by
//! hand, or makes it anew, does so to the source's sessions.
//!
//! Reading them stays allowed, and so does plain VACUUM and ANALYZE, which autovacuum does from any database.
#![allow(unsafe_code)] // parse nodes, catalogs

use crate::isolation::{in_force, refuse};
use crate::mount::vacuum;
use pgrx::pg_sys::{self, NodeTag, Oid};
use pgrx::prelude::*;
use pgrx::PgList;
use std::ffi::{c_void, CStr};

/// Whether it is one of those, or an index or a TOAST table of one.
pub fn is_shared(relation: Oid) -> bool {
    // SAFETY: looks at the number.
    relation.to_u32() < pg_sys::FirstNormalObjectId && unsafe { pg_sys::IsSharedRelation(relation) }
}

/// The relation of that name, not locked: the statement itself looks again. `None` if there is none.
///
/// # Safety
/// A parse node, or null.
pub unsafe fn named(range: *mut pg_sys::RangeVar) -> Option<Oid> {
    if range.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise.
    let oid = unsafe {
        pg_sys::RangeVarGetRelidExtended(
            range,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Raises 42501 if LOCK would keep others from a shared catalog: it locks what views read, too.
///
/// # Safety
/// A parse node.
pub unsafe fn check_lock(statement: &pg_sys::LockStmt) {
    if statement.mode <= pg_sys::AccessShareLock as i32 {
        return;
    }
    // SAFETY: by the caller's promise, a list of RangeVar nodes.
    unsafe {
        for range in PgList::<pg_sys::RangeVar>::from_pg(statement.relations).iter_ptr() {
            if let Some(oid) = named(range) {
                check_locked(oid);
            }
        }
    }
}

unsafe fn check_locked(relation: Oid) {
    if is_shared(relation) {
        refuse("lock what databases share");
    }
    // SAFETY: an open view has a query; the walker's context is the view's number, which lives as long as
    // this call. Views cannot go in circles: the depth is checked all the same.
    unsafe {
        if pg_sys::get_rel_relkind(relation) as u8 != pg_sys::RELKIND_VIEW {
            return;
        }
        pg_sys::check_stack_depth();
        let lock = pg_sys::AccessShareLock as i32;
        let view = pg_sys::try_relation_open(relation, lock);
        if !view.is_null() {
            let query = pg_sys::get_view_query(view);
            locks_in(query.cast(), (&raw const relation).cast_mut().cast());
            pg_sys::relation_close(view, lock);
        }
    }
}

/// What `LockViewRecurse` (lockcmds.c) locks: all relations in the query of the view `context` and in its
/// subqueries. The view is among them itself, for rules (rewriteDefine.c).
#[pg_guard]
unsafe extern "C-unwind" fn locks_in(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: nodes of a view's query, cast to what their tags say.
    unsafe {
        if node.is_null() {
            return false;
        }
        if (*node).type_ != NodeTag::T_Query {
            return pg_sys::expression_tree_walker(node, Some(locks_in), context);
        }
        let query = node.cast::<pg_sys::Query>();
        for table in PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable).iter_ptr() {
            let itself = (*table).relid == *context.cast::<Oid>();
            if (*table).rtekind == pg_sys::RTEKind::RTE_RELATION && !itself {
                check_locked((*table).relid);
            }
        }
        let flags = pg_sys::QTW_IGNORE_JOINALIASES as i32;
        pg_sys::query_tree_walker(query, Some(locks_in), context, flags)
    }
}

/// Whether a list of DefElem nodes has this option, and it is on.
///
/// # Safety
/// A parse node's list.
pub unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> bool {
    // SAFETY: a parse node's list of DefElem nodes.
    unsafe {
        let options = PgList::<pg_sys::DefElem>::from_pg(options);
        let mut options = options.iter_ptr();
        options.any(|option| {
            CStr::from_ptr((*option).defname) == name && pg_sys::defGetBoolean(option)
        })
    }
}

/// The statement without the shared catalogs, if it is a VACUUM FULL, which would make them anew; null if
/// that leaves nothing to do.
///
/// # Safety
/// A utility statement. The result lives in the current memory context.
pub unsafe fn without_shared(
    statement: *mut pg_sys::PlannedStmt,
) -> Option<*mut pg_sys::PlannedStmt> {
    // SAFETY: by the caller's promise, cast to what the tag says.
    unsafe {
        let node = (*statement).utilityStmt;
        if (*node).type_ != NodeTag::T_VacuumStmt {
            return None;
        }
        let full = &*node.cast::<pg_sys::VacuumStmt>();
        if !full.is_vacuumcmd || !vacuum::is_full(full) || !in_force() {
            return None;
        }
        let mut kept = PgList::<pg_sys::VacuumRelation>::new();
        if full.rels.is_null() {
            let none = std::ptr::null_mut();
            for table in vacuumed().into_iter().filter(|table| !is_shared(*table)) {
                kept.push(pg_sys::makeVacuumRelation(none, table, none.cast()));
            }
        }
        for relation in PgList::<pg_sys::VacuumRelation>::from_pg(full.rels).iter_ptr() {
            let oid = match (*relation).oid {
                pg_sys::InvalidOid => named((*relation).relation),
                oid => Some(oid),
            };
            match oid.filter(|oid| is_shared(*oid)) {
                None => kept.push(relation),
                Some(_) if (*relation).relation.is_null() => {}
                Some(_) => warning!(
                    "skipping \"{}\" --- all databases share it",
                    CStr::from_ptr((*(*relation).relation).relname).to_string_lossy()
                ),
            }
        }
        if kept.is_empty() {
            return Some(std::ptr::null_mut());
        }
        let copy = pg_sys::copyObjectImpl(statement.cast()).cast::<pg_sys::PlannedStmt>();
        (*(*copy).utilityStmt.cast::<pg_sys::VacuumStmt>()).rels = kept.into_pg();
        Some(copy)
    }
}

/// What VACUUM of the whole database comes to (vacuum.c, `get_all_vacuum_rels`).
fn vacuumed() -> Vec<Oid> {
    let kinds = [
        pg_sys::RELKIND_RELATION,
        pg_sys::RELKIND_MATVIEW,
        pg_sys::RELKIND_PARTITIONED_TABLE,
    ];
    let mut found = Vec::new();
    each_class(|class| {
        if kinds.contains(&(class.relkind as u8)) {
            found.push(class.oid);
        }
    });
    found
}

/// Calls `what` with each row of pg_class.
pub fn each_class(mut what: impl FnMut(&pg_sys::FormData_pg_class)) {
    // SAFETY: a scan of a catalog; a row lives until the next.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let (none, no_index) = (std::ptr::null_mut(), pg_sys::InvalidOid);
        let classes = pg_sys::table_open(pg_sys::RelationRelationId, lock);
        let scan =
            pg_sys::systable_beginscan(classes, no_index, false, none, 0, std::ptr::null_mut());
        loop {
            let row = pg_sys::systable_getnext(scan);
            if row.is_null() {
                break;
            }
            what(&*pg_sys::GETSTRUCT(row).cast());
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(classes, lock);
    }
}
