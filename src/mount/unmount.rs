//! `fork_unmount`.
#![allow(unsafe_code)] // calls into dependency.c

use super::members;
use crate::pg::text;
use crate::reader::refuse;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// Removes a schema that fork_mount made, with its tables, and what depends on these.
///
/// No statement is run: an event trigger for dropped objects is none of this function's.
///
/// Raises 3F000 (no such schema), 42809 (not made by fork_mount), 42501 (not the schema's owner), 25006 (a
/// read-only transaction).
pub fn unmount(schema: &str) {
    let name = text::to_server(schema);
    let class = pg_sys::NamespaceRelationId;
    // SAFETY: raises an error where nothing may be written; look-ups; a lock until the transaction's end, as
    // DROP SCHEMA takes it (objectaddress.c, `get_object_address`).
    let oid = unsafe {
        pg_sys::PreventCommandIfReadOnly(c"fork_unmount()".as_ptr());
        pg_sys::PreventCommandIfParallelMode(c"fork_unmount()".as_ptr());
        let found = pg_sys::get_namespace_oid(name.as_ptr(), false);
        pg_sys::LockDatabaseObject(class, found, 0, pg_sys::AccessExclusiveLock as i32);
        // It may have been dropped, or another be called so, by whom we waited for.
        if pg_sys::get_namespace_oid(name.as_ptr(), false) != found {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME,
                format!("schema \"{schema}\" was changed meanwhile")
            );
        }
        found
    };
    if !members::is_schema(oid) {
        refuse(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("schema \"{schema}\" was not made by fork_mount"),
            "Use DROP SCHEMA for a schema of its own.",
        );
    }
    // SAFETY: look-ups.
    if !unsafe { pg_sys::pg_namespace_ownercheck(oid, pg_sys::GetUserId()) } {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must be owner of schema {schema}")
        );
    }
    members::let_go_of_schema(oid);
    let object = pg_sys::ObjectAddress {
        classId: class,
        objectId: oid,
        objectSubId: 0,
    };
    // SAFETY: an object that exists and is locked.
    unsafe { pg_sys::performDeletion(&object, pg_sys::DropBehavior::DROP_CASCADE, 0) };
}
