//! The session's schema of temporary objects. It belongs to one database, and namespace.c keeps its
//! number in statics, so it is forgotten when the session leaves: the next temporary object looks it
//! up, or makes it, in the database that the session is in then.
#![allow(unsafe_code)] // state of namespace.c, and a scan of pg_depend

use crate::attach::refuse;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::Cell;

/// Each time that a session starts to use temporary objects costs one of the 20 places for callbacks
/// at exit (ipc.c, `MAX_ON_EXITS`; namespace.c, `AtEOXact_Namespace`), of which the server and other
/// extensions need some.
const MOST: u32 = 6;

thread_local! {
    static FORGOTTEN: Cell<u32> = const { Cell::new(0) };
}

fn schemas() -> (pg_sys::Oid, pg_sys::Oid) {
    let (mut schema, mut toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: copies two statics.
    unsafe { pg_sys::GetTempNamespaceState(&mut schema, &mut toast) };
    (schema, toast)
}

/// Raises 55006 if the session has temporary objects, 0A000 if its schema for them cannot be forgotten.
pub fn refuse_objects() {
    let (schema, _) = schemas();
    if schema == pg_sys::InvalidOid {
        return;
    }
    if has_objects(schema) {
        refuse(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            "cannot leave the database while the session has temporary objects",
            "Drop them first: DISCARD TEMP.",
        );
    }
    if FORGOTTEN.get() >= MOST || assertions() {
        refuse(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot leave the database: the session has used temporary objects in too many databases",
            "Reconnect first, or connect to the fork by its name.",
        );
    }
}

/// A server built with assertions does not let the statics be cleared (namespace.c).
fn assertions() -> bool {
    // SAFETY: a static or palloc'd string.
    unsafe {
        let value = pg_sys::GetConfigOption(c"debug_assertions".as_ptr(), true, false);
        !value.is_null() && std::ffi::CStr::from_ptr(value) == c"on"
    }
}

/// Whether anything depends on the schema, as all that is in it does.
fn has_objects(schema: pg_sys::Oid) -> bool {
    // SAFETY: a scan of pg_depend by its index on refclassid, refobjid (2674).
    unsafe {
        let mut keys = [pg_sys::ScanKeyData::default(); 2];
        let equal = pg_sys::BTEqualStrategyNumber as u16;
        let wanted = [(4, pg_sys::Oid::from(2615)), (5, schema)]; // pg_namespace
        for (key, (column, value)) in keys.iter_mut().zip(wanted) {
            let function = pg_sys::Oid::from(184); // oideq
            pg_sys::ScanKeyInit(key, column, equal, function, value.into());
        }
        let lock = pg_sys::AccessShareLock as i32;
        let relation = pg_sys::table_open(pg_sys::Oid::from(2608), lock);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::Oid::from(2674),
            true,
            std::ptr::null_mut(),
            2,
            keys.as_mut_ptr(),
        );
        let found = !pg_sys::systable_getnext(scan).is_null();
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
        found
    }
}

/// Forgets the schema. Part of the switch.
pub fn forget() {
    if schemas().0 == pg_sys::InvalidOid {
        return;
    }
    FORGOTTEN.set(FORGOTTEN.get() + 1);
    // SAFETY: statics of this process; nothing temporary is left that they would be needed for.
    unsafe {
        pg_sys::SetTempNamespaceState(pg_sys::InvalidOid, pg_sys::InvalidOid);
        (*pg_sys::MyProc).tempNamespaceId = pg_sys::InvalidOid;
    }
}
