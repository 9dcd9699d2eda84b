//! The relation behind a mounted table: found once in a transaction, whose lock keeps its form.
#![allow(unsafe_code)] // reads the relation cache's entry

use super::label;
use crate::reader::relation::{self, Relation};
use crate::reader::{self, At};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_void, CStr};
use std::rc::Rc;

thread_local! {
    static OPENED: RefCell<HashMap<u32, Rc<Relation>>> = RefCell::default();
    /// Found in a subtransaction that was rolled back, its lock with it; slots may still point here.
    static STALE: RefCell<Vec<Rc<Relation>>> = RefCell::default();
}

/// From `_PG_init`.
pub fn register() {
    // SAFETY: functions of the right type that live as long as the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_sub_end), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    if matches!(
        event,
        XACT_EVENT_COMMIT
            | XACT_EVENT_ABORT
            | XACT_EVENT_PARALLEL_COMMIT
            | XACT_EVENT_PARALLEL_ABORT
    ) {
        OPENED.with_borrow_mut(HashMap::clear);
        STALE.with_borrow_mut(Vec::clear);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_sub_end(
    event: pg_sys::SubXactEvent::Type,
    _my: u32,
    _parent: u32,
    _arg: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        let stale = OPENED.take().into_values();
        STALE.with_borrow_mut(|all| all.extend(stale));
    }
}

/// The relation that the mounted table shows.
///
/// Raises 42P01 if it is gone, 42804 if its columns are not those of the mounted table any more, and
/// what [`reader::hold`] raises.
///
/// # Safety
/// `mounted` is an open relation of the access method.
pub unsafe fn open(mounted: pg_sys::Relation) -> Rc<Relation> {
    // SAFETY: by the caller's promise.
    let oid = unsafe { (*mounted).rd_id }.to_u32();
    if let Some(found) = OPENED.with_borrow(|opened| opened.get(&oid).cloned()) {
        return found;
    }
    // SAFETY: as above.
    let name = unsafe { CStr::from_ptr((*(*mounted).rd_rel).relname.data.as_ptr()) };
    let name = name.to_string_lossy();
    let Some(label) = label::of(oid) else {
        reader::refuse(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table \"{name}\" is not mounted from any fork"),
            "Tables of the access method \"fork\" are made by fork_mount.",
        );
    };
    let db = reader::hold(label.db, label.at);
    let Some(found) = relation::open(db, label.relation) else {
        let when = match label.at {
            At::Now => "any more",
            At::Cut => "at its cut",
        };
        reader::refuse(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("the table that \"{name}\" shows does not exist in the fork {when}"),
            "DROP TABLE removes the mounted table; fork_mount with at => 'cut' shows it as it was.",
        );
    };
    // SAFETY: as above.
    unsafe { check_columns(mounted, &found) };
    let found = Rc::new(found);
    OPENED.with_borrow_mut(|opened| opened.insert(oid, found.clone()));
    found
}

/// Tuples are shown as they lie on the pages: each column must still be what it was.
unsafe fn check_columns(mounted: pg_sys::Relation, found: &Relation) {
    // SAFETY: by the caller's promise.
    let columns = unsafe {
        (*(*mounted).rd_att)
            .attrs
            .as_slice((*(*mounted).rd_att).natts as usize)
    };
    for (n, column) in columns.iter().enumerate() {
        let same_layout = |other: &relation::Column| {
            other.len == column.attlen && other.align == column.attalign as i8
        };
        let same = found.columns.get(n).is_some_and(|other| {
            same_layout(other)
                && (column.attisdropped
                    || (!other.dropped
                        && other.kind == column.atttypid.to_u32()
                        && other.modifier == column.atttypmod))
        });
        if !same {
            // SAFETY: a C string in the relation cache.
            let name = unsafe { CStr::from_ptr(column.attname.data.as_ptr()) };
            reader::refuse(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "column \"{}\" of table \"{}\" was dropped or given another type in the fork",
                    name.to_string_lossy(),
                    found.name
                ),
                "Mount it again: fork_unmount, then fork_mount.",
            );
        }
    }
}
