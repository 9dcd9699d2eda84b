//! The relation behind a mounted table: found once in a transaction, whose lock keeps its form.
#![allow(unsafe_code)] // reads the relation cache's entry

use super::{label, view};
use crate::pg::text;
use crate::reader::encoding::{self, Conversion};
use crate::reader::relation::{self, Catalogs, Relation};
use crate::reader::rights::{self, OnTable};
use crate::reader::{self, kinds, At};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
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
    if event == XACT_EVENT_PRE_PREPARE && reader::holds() {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot PREPARE a transaction that has read a fork from another database"
        );
    }
    if matches!(
        event,
        XACT_EVENT_COMMIT
            | XACT_EVENT_ABORT
            | XACT_EVENT_PARALLEL_COMMIT
            | XACT_EVENT_PARALLEL_ABORT
    ) {
        view::forget();
        OPENED.with_borrow_mut(HashMap::clear);
        STALE.with_borrow_mut(Vec::clear);
        reader::let_go();
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
        view::forget();
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
    let name = unsafe { text::server_string((*(*mounted).rd_rel).relname.data.as_ptr()) };
    let Some(label) = label::of(oid) else {
        reader::refuse(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table \"{name}\" is not mounted from any fork"),
            "Tables of the access method \"fork\" are made by fork_mount.",
        );
    };
    let db = reader::hold(label.db, label.at);
    let Some(mut found) = relation::open(db, label.relation) else {
        let when = match label.at {
            At::Now => "any more",
            At::Cut => "at its cut",
        };
        let what = match Catalogs::open(db).class(label.relation) {
            None => "does not exist in the fork",
            Some(_) => "is no table with rows on pages of its own in the fork",
        };
        reader::refuse(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("the table that \"{name}\" shows {what} {when}"),
            "DROP TABLE removes the mounted table; fork_mount with at => 'cut' shows it as it was.",
        );
    };
    // SAFETY: as above.
    unsafe {
        check_columns(mounted, &found);
        check_owner(mounted, &label, &found);
        found.conversions = conversions(mounted, &found);
    }
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
            (other.len, other.align, other.by_value)
                == (column.attlen, column.attalign, column.attbyval)
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
            let name = unsafe { text::server_string(column.attname.data.as_ptr()) };
            reader::refuse(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "column \"{}\" of table \"{}\" was dropped or given another type in the fork",
                    name, found.name
                ),
                "Mount it again: fork_unmount, then fork_mount.",
            );
        }
    }
}

fn is_same(there: &Catalogs, kind: u32) -> bool {
    // SAFETY: a plain variable.
    let here = unsafe { pg_sys::MyDatabaseId }.to_u32();
    kind < 16384 || kinds::same(&Catalogs::open(here), there, kind)
}

/// As a view, a mounted table shows what its owner may see, now; and values of types that are the same here.
unsafe fn check_owner(mounted: pg_sys::Relation, label: &label::Label, found: &Relation) {
    // SAFETY: by the caller's promise.
    let (owner, columns) = unsafe {
        let form = (*mounted).rd_att;
        let columns = (*form).attrs.as_slice((*form).natts as usize);
        ((*(*mounted).rd_rel).relowner, columns)
    };
    rights::may_look_into(label.db, owner);
    let there = Catalogs::open(found.db);
    let live = || columns.iter().filter(|column| !column.attisdropped);
    if live().any(|column| !is_same(&there, column.atttypid.to_u32())) {
        reader::refuse(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!(
                "a type of a column of table \"{}\" was changed here or in the fork",
                found.name
            ),
            "Make it the same in both.",
        );
    }
    let both = view::on_both(label, &there, owner);
    let allowed = both.is_some_and(|(on, now)| {
        let open = |on: &OnTable| on.uses && !on.filtered;
        let may = |n: i16| on.reads(n) && now.as_ref().is_none_or(|now| now.reads(n));
        open(&on) && now.as_ref().is_none_or(open) && live().all(|column| may(column.attnum))
    });
    if !allowed {
        reader::refuse(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for table {} of the fork", found.name),
            "The owner of the mounted table must be allowed to read all of it there.",
        );
    }
}

/// How the values of the columns come into this database's encoding; empty if they are in it.
unsafe fn conversions(mounted: pg_sys::Relation, found: &Relation) -> Vec<Conversion> {
    if !encoding::is_foreign(found.encoding) {
        return Vec::new();
    }
    // SAFETY: by the caller's promise.
    let columns = unsafe {
        let form = (*mounted).rd_att;
        (*form).attrs.as_slice((*form).natts as usize)
    };
    let of = |column: &pg_sys::FormData_pg_attribute| {
        match column.attisdropped {
        true => Conversion::Plain,
        false => Conversion::of(column.atttypid).unwrap_or_else(|| {
            reader::refuse(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!(
                    "a column of table \"{}\" cannot be converted from the encoding of the other database",
                    found.name
                ),
                "Mount it again: fork_unmount, then fork_mount.",
            )
        }),
    }
    };
    columns.iter().map(of).collect()
}
