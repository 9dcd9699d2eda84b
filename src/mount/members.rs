//! Mounted tables and their schemas are members of the extension: pg_dump passes over them, and they go
//! with it. Unlike other members they can be dropped by hand.
#![allow(unsafe_code)] // calls into pg_depend.c, and parse nodes

use super::watch;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use std::ffi::CString;

const PG_CLASS: u32 = 1259;
const PG_NAMESPACE: u32 = 2615;
const PG_EXTENSION: u32 = 3079;
const MEMBER: i8 = pg_sys::DependencyType::DEPENDENCY_EXTENSION as i8;

fn extension() -> Option<Oid> {
    // SAFETY: a look-up.
    let oid = unsafe { pg_sys::get_extension_oid(c"pg_fork".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

fn address(class: u32, object: Oid) -> pg_sys::ObjectAddress {
    pg_sys::ObjectAddress {
        classId: class.into(),
        objectId: object,
        objectSubId: 0,
    }
}

fn add(class: u32, object: Oid) {
    if let Some(extension) = extension() {
        let kind = pg_sys::DependencyType::DEPENDENCY_EXTENSION;
        // SAFETY: addresses of objects that exist.
        unsafe {
            pg_sys::recordDependencyOn(
                &address(class, object),
                &address(PG_EXTENSION, extension),
                kind,
            );
        }
    }
}

pub fn add_table(table: u32) {
    add(PG_CLASS, table.into());
}

pub fn add_schema(name: &str) {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: a look-up of what was made just now.
    let oid = unsafe { pg_sys::get_namespace_oid(name.as_ptr(), false) };
    add(PG_NAMESPACE, oid);
}

/// Whether fork_mount made the schema.
pub fn is_schema(schema: u32) -> bool {
    // SAFETY: a look-up in pg_depend.
    let owner = unsafe { pg_sys::getExtensionOfObject(PG_NAMESPACE.into(), schema.into()) };
    owner != pg_sys::InvalidOid && extension() == Some(owner)
}

fn let_go(class: u32, object: Oid) {
    if let Some(extension) = extension() {
        // SAFETY: removes one row of pg_depend.
        unsafe {
            pg_sys::deleteDependencyRecordsForSpecific(
                class.into(),
                object,
                MEMBER as _,
                PG_EXTENSION.into(),
                extension,
            );
        }
    }
}

/// Lets go of the mounted tables for which the SQL condition on pg_class holds.
fn let_go_of_tables(condition: &str) {
    let sql = format!(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am a ON a.oid = c.relam
         WHERE a.amname = 'fork' AND a.amtype = 't' AND {condition}"
    );
    for table in oids(&sql) {
        let_go(PG_CLASS, table);
    }
    // SAFETY: makes it seen by the rest of this transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

fn oids(sql: &str) -> Vec<Oid> {
    let found = Spi::connect(|client| {
        let rows = client.select(sql, None, &[])?;
        rows.map(|row| row.get::<Oid>(1))
            .collect::<Result<Vec<_>, _>>()
    });
    found.into_iter().flatten().flatten().collect()
}

/// Whether this database has mounted tables.
pub fn any_mounted() -> bool {
    // SAFETY: a look-up.
    let method = unsafe { pg_sys::get_am_oid(c"fork".as_ptr(), true) }.to_u32();
    let sql = format!("SELECT oid FROM pg_catalog.pg_class WHERE relam = {method} LIMIT 1");
    method != 0 && !oids(&sql).is_empty()
}

/// What VACUUM of the whole database comes to (vacuum.c, `get_all_vacuum_rels`), mounted tables apart.
pub fn not_mounted() -> Vec<Oid> {
    oids(
        "SELECT c.oid FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
         WHERE c.relkind IN ('r', 'm', 'p') AND a.amname IS DISTINCT FROM 'fork'",
    )
}

/// So that the schema and the tables in it can be dropped.
pub fn let_go_of_schema(schema: u32) {
    let_go(PG_NAMESPACE, schema.into());
    let_go_of_tables(&format!("c.relnamespace = {schema}"));
}

/// Before DROP TABLE, DROP SCHEMA, and DROP OWNED.
///
/// # Safety
/// A parse node.
pub unsafe fn before_drop(node: *mut pg_sys::Node) {
    // SAFETY: by the caller's promise, cast to what the tag says.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_DropStmt if extension().is_some() => before_drop_of(&*node.cast()),
            pg_sys::NodeTag::T_DropOwnedStmt if extension().is_some() => {
                let roles = (*node.cast::<pg_sys::DropOwnedStmt>()).roles;
                for role in pgrx::PgList::<pg_sys::RoleSpec>::from_pg(roles).iter_ptr() {
                    let role = pg_sys::get_rolespec_oid(role, false).to_u32();
                    let_go_of_tables(&format!("c.relowner = {role}"));
                    let sql =
                        format!("SELECT oid FROM pg_catalog.pg_namespace WHERE nspowner = {role}");
                    for schema in oids(&sql).into_iter().filter(|oid| is_schema(oid.to_u32())) {
                        let_go_of_schema(schema.to_u32());
                    }
                }
            }
            _ => {}
        }
    }
}

unsafe fn before_drop_of(statement: &pg_sys::DropStmt) {
    let table = statement.removeType == pg_sys::ObjectType::OBJECT_TABLE;
    if !table && statement.removeType != pg_sys::ObjectType::OBJECT_SCHEMA {
        return;
    }
    // SAFETY: a parse node: lists of names, or names.
    unsafe {
        let objects = pgrx::PgList::<pg_sys::Node>::from_pg(statement.objects);
        for object in objects.iter_ptr() {
            if table {
                let range = pg_sys::makeRangeVarFromNameList(object.cast());
                if let Some(oid) = watch::mounted_of(range) {
                    let_go(PG_CLASS, oid);
                    pg_sys::CommandCounterIncrement();
                }
            } else {
                let name = (*object.cast::<pg_sys::String>()).sval;
                let oid = pg_sys::get_namespace_oid(name, true);
                // Tables may have been moved to any.
                if oid != pg_sys::InvalidOid {
                    let_go_of_schema(oid.to_u32());
                }
            }
        }
    }
}
