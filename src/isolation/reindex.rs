//! REINDEX of a whole database, of its system catalogs or of `pg_catalog`, by someone who may also reindex the
//! catalogs that all databases share: in a fork these are passed over. The server has no place to be asked, so
//! the tables are gone through here.
#![allow(unsafe_code)] // transactions and parse nodes

use crate::isolation::shared::{self, named, option};
use crate::isolation::{in_force, refuse};
use pgrx::pg_sys::{self, NodeTag, Oid, ProcessUtilityContext, ReindexObjectType};
use pgrx::prelude::*;
use std::ffi::CStr;

/// Raises 42501 if REINDEX names a shared catalog, or an index of one.
///
/// # Safety
/// A parse node.
pub unsafe fn check(statement: &pg_sys::ReindexStmt) {
    let one = matches!(
        statement.kind,
        ReindexObjectType::REINDEX_OBJECT_INDEX | ReindexObjectType::REINDEX_OBJECT_TABLE
    );
    // SAFETY: by the caller's promise.
    if one && unsafe { named(statement.relation) }.is_some_and(shared::is_shared) {
        refuse("reindex what databases share");
    }
}

/// Does the statement's work if it is such a REINDEX; `true` if it is done. What indexcmds.c does in
/// `ReindexMultipleTables`: a transaction for each table.
///
/// # Safety
/// A utility statement, and how it is run.
pub unsafe fn without_shared(
    node: *mut pg_sys::Node,
    context: ProcessUtilityContext::Type,
) -> bool {
    // SAFETY: by the caller's promise, cast to what the tag says.
    unsafe {
        if (*node).type_ != NodeTag::T_ReindexStmt || !in_force() {
            return false;
        }
        let statement = &*node.cast::<pg_sys::ReindexStmt>();
        let Some((title, is_meant)) = meant(statement) else {
            return false;
        };
        let top = context == ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL;
        pg_sys::PreventInTransactionBlock(top, title.as_ptr());
        let verbose = option(statement.params, c"verbose");
        let tables = tables(is_meant);
        // Back to no transaction: the caller's ends here, and another is open when we are done.
        if pg_sys::ActiveSnapshotSet() {
            pg_sys::PopActiveSnapshot();
        }
        pg_sys::CommitTransactionCommand();
        for table in tables {
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            reindex(table, verbose);
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        pg_sys::StartTransactionCommand();
        true
    }
}

/// Whether a row of pg_class is one of those that the statement means.
type IsMeant = fn(&pg_sys::FormData_pg_class) -> bool;

/// What the statement is called, and which tables it means; `None` for one that comes to no shared catalog, or
/// that the server refuses.
unsafe fn meant(statement: &pg_sys::ReindexStmt) -> Option<(&'static CStr, IsMeant)> {
    // SAFETY: a parse node, whose name is given in all of these.
    unsafe {
        let here = || {
            let database = pg_sys::get_database_name(pg_sys::MyDatabaseId);
            !database.is_null() && CStr::from_ptr(database) == CStr::from_ptr(statement.name)
        };
        let found: (&CStr, IsMeant) = match statement.kind {
            ReindexObjectType::REINDEX_OBJECT_SYSTEM if here() => {
                (c"REINDEX SYSTEM", is_of_the_system)
            }
            ReindexObjectType::REINDEX_OBJECT_DATABASE if here() => (c"REINDEX DATABASE", |_| true),
            ReindexObjectType::REINDEX_OBJECT_SCHEMA
                if CStr::from_ptr(statement.name) == c"pg_catalog" =>
            {
                (c"REINDEX SCHEMA", |class| {
                    class.relnamespace.to_u32() == pg_sys::PG_CATALOG_NAMESPACE
                })
            }
            _ => return None,
        };
        // Concurrently, or into another tablespace, shared catalogs are passed over; and for who does not
        // own them.
        let params = pgrx::PgList::<pg_sys::DefElem>::from_pg(statement.params);
        let mut names = params
            .iter_ptr()
            .map(|param| CStr::from_ptr((*param).defname));
        let moves = names.any(|name| name == c"tablespace");
        let plain = !moves && !option(statement.params, c"concurrently");
        let owns = pg_sys::pg_class_ownercheck(pg_sys::DatabaseRelationId, pg_sys::GetUserId());
        (owns && plain).then_some(found)
    }
}

fn is_of_the_system(class: &pg_sys::FormData_pg_class) -> bool {
    // SAFETY: looks at a number. It is no TOAST table.
    unsafe { pg_sys::IsCatalogRelationOid(class.oid) }
}

/// The database's own tables, pg_class first: if its indexes are damaged, the others are found by them.
fn tables(is_meant: IsMeant) -> Vec<Oid> {
    let mut found = Vec::new();
    shared::each_class(|class| {
        let kind = class.relkind as u8;
        let has_rows = [pg_sys::RELKIND_RELATION, pg_sys::RELKIND_MATVIEW].contains(&kind);
        // SAFETY: looks at a number.
        let others = class.relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP
            && unsafe { pg_sys::isOtherTempNamespace(class.relnamespace) };
        if !has_rows || others || !is_meant(class) || class.relisshared {
            return;
        }
        let at = if class.oid == pg_sys::RelationRelationId {
            0
        } else {
            found.len()
        };
        found.insert(at, class.oid);
    });
    found
}

unsafe fn reindex(table: Oid, verbose: bool) {
    let mut params = pg_sys::ReindexParams {
        options: pg_sys::REINDEXOPT_REPORT_PROGRESS | pg_sys::REINDEXOPT_MISSING_OK,
        tablespaceOid: pg_sys::InvalidOid,
    };
    if verbose {
        params.options |= pg_sys::REINDEXOPT_VERBOSE;
    }
    let flags = pg_sys::REINDEX_REL_PROCESS_TOAST | pg_sys::REINDEX_REL_CHECK_CONSTRAINTS;
    // SAFETY: in a transaction with a snapshot; a table that is gone is passed over.
    unsafe {
        if pg_sys::reindex_relation(table, flags as i32, &mut params) && verbose {
            let [schema, name] = [
                pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table)),
                pg_sys::get_rel_name(table),
            ]
            .map(|name| match name.is_null() {
                true => String::new(),
                false => CStr::from_ptr(name).to_string_lossy().into_owned(),
            });
            ereport!(
                INFO,
                PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
                format!("table \"{schema}.{name}\" was reindexed")
            );
        }
    }
}
