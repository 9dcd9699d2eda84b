//! VACUUM FULL passes over mounted tables: it would rewrite them, and end there.
#![allow(unsafe_code)] // parse nodes

use super::{members, watch};
use crate::pg::text;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::PgList;

/// The statement without the mounted tables, if it is a VACUUM FULL that would come to any; null if that
/// leaves nothing to do.
///
/// # Safety
/// A utility statement. The result lives in the current memory context.
pub unsafe fn without_mounted(
    statement: *mut pg_sys::PlannedStmt,
) -> Option<*mut pg_sys::PlannedStmt> {
    // SAFETY: by the caller's promise, cast to what the tag says.
    unsafe {
        let node = (*statement).utilityStmt;
        if (*node).type_ != pg_sys::NodeTag::T_VacuumStmt {
            return None;
        }
        let vacuum = &*node.cast::<pg_sys::VacuumStmt>();
        if !vacuum.is_vacuumcmd || !is_full(vacuum) {
            return None;
        }
        let mut kept = PgList::<pg_sys::VacuumRelation>::new();
        if vacuum.rels.is_null() {
            for table in members::not_mounted()? {
                let none = std::ptr::null_mut();
                kept.push(pg_sys::makeVacuumRelation(none, table, none.cast()));
            }
        }
        let named = PgList::<pg_sys::VacuumRelation>::from_pg(vacuum.rels);
        for relation in named.iter_ptr() {
            match watch::mounted_of((*relation).relation) {
                None => kept.push(relation),
                Some(_) => warning!(
                    "skipping \"{}\" --- it is mounted from a fork",
                    text::server_string((*(*relation).relation).relname)
                ),
            }
        }
        if !vacuum.rels.is_null() && kept.len() == named.len() {
            return None;
        }
        if kept.is_empty() {
            return Some(std::ptr::null_mut());
        }
        let copy = pg_sys::copyObjectImpl(statement.cast()).cast::<pg_sys::PlannedStmt>();
        (*(*copy).utilityStmt.cast::<pg_sys::VacuumStmt>()).rels = kept.into_pg();
        Some(copy)
    }
}

/// Whether it makes tables anew.
///
/// # Safety
/// A parse node.
pub unsafe fn is_full(statement: &pg_sys::VacuumStmt) -> bool {
    // SAFETY: a parse node's list of DefElem nodes.
    unsafe {
        let options = PgList::<pg_sys::DefElem>::from_pg(statement.options);
        let named =
            |option: *mut pg_sys::DefElem| std::ffi::CStr::from_ptr((*option).defname) == c"full";
        let mut full = options.iter_ptr().filter(|option| named(*option));
        full.next()
            .is_some_and(|option| pg_sys::defGetBoolean(option))
    }
}
