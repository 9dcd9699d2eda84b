//! Mounted tables, views and their schemas are members of the extension: pg_dump passes over them, and they go
//! with it. Unlike other members they can be dropped by hand.
//!
//! All is looked up in the catalogs themselves, by numbers: these functions run before each DROP of a
//! superuser's too, so no name and no operator must be found by his search path.
#![allow(unsafe_code)] // calls into pg_depend.c, and parse nodes

use super::{am, label, watch};
use crate::pg::catalogs::{self, Depend, Rewrite};
use crate::pg::tuple::Catalog;
use pgrx::pg_sys::{self, Oid};
use std::collections::HashSet;

const MEMBER: i8 = pg_sys::DependencyType::DEPENDENCY_EXTENSION as i8;

fn extension() -> Option<Oid> {
    // SAFETY: a look-up.
    let oid = unsafe { pg_sys::get_extension_oid(c"pg_fork".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

fn address(class: Oid, object: Oid) -> pg_sys::ObjectAddress {
    pg_sys::ObjectAddress {
        classId: class,
        objectId: object,
        objectSubId: 0,
    }
}

/// Makes a relation or a schema a member.
pub fn add(class: Oid, object: Oid) {
    if let Some(extension) = extension() {
        let kind = pg_sys::DependencyType::DEPENDENCY_EXTENSION;
        let owner = address(pg_sys::ExtensionRelationId, extension);
        // SAFETY: addresses of objects that exist.
        unsafe { pg_sys::recordDependencyOn(&address(class, object), &owner, kind) };
    }
}

/// Whether fork_mount made the schema.
pub fn is_schema(schema: Oid) -> bool {
    // SAFETY: a look-up in pg_depend.
    let owner = unsafe { pg_sys::getExtensionOfObject(pg_sys::NamespaceRelationId, schema) };
    let internal = || {
        // SAFETY: a look-up.
        let own = unsafe { pg_sys::get_namespace_oid(c"fork_internal".as_ptr(), true) };
        schema == own
    };
    owner != pg_sys::InvalidOid && extension() == Some(owner) && !internal()
}

/// Whether a relation is a view that fork_mount made.
pub fn is_view(relation: Oid) -> bool {
    // SAFETY: look-ups.
    unsafe {
        pg_sys::get_rel_relkind(relation) as u8 == pg_sys::RELKIND_VIEW
            && label::of(relation.to_u32()).is_some()
    }
}

/// The members that are mounted tables or views, by their numbers.
fn mounted() -> Vec<Oid> {
    let Some(extension) = extension() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let on = [
        (
            catalogs::DEPEND_ON_CLASS,
            pg_sys::ExtensionRelationId.to_u32(),
        ),
        (catalogs::DEPEND_ON_OBJECT, extension.to_u32()),
    ];
    Catalog::read(catalogs::DEPEND).find(catalogs::DEPEND_BY_REFERENCE, &on, |row| {
        // SAFETY: pg_depend.
        let row = unsafe { row.fixed::<Depend>() };
        if row.class == pg_sys::RelationRelationId && row.kind == MEMBER {
            found.push(row.object);
        }
    });
    found.retain(|relation| am::is_method_of(*relation) || is_view(*relation));
    found
}

fn let_go(class: Oid, object: Oid) {
    if let Some(extension) = extension() {
        // SAFETY: removes one row of pg_depend.
        unsafe {
            pg_sys::deleteDependencyRecordsForSpecific(
                class,
                object,
                MEMBER as _,
                pg_sys::ExtensionRelationId,
                extension,
            );
        }
    }
}

/// Lets go of mounted tables and views, and of the mounted views that show the tables: where a member is to go
/// with another object, the server takes its extension along.
fn let_go_of_relations(mut relations: HashSet<Oid>) {
    let views: Vec<Oid> = relations.iter().flat_map(|it| views_of(*it)).collect();
    relations.extend(views);
    for relation in relations {
        let_go(pg_sys::RelationRelationId, relation);
    }
    // SAFETY: makes it seen by the rest of this transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// The mounted views that show a mounted table.
fn views_of(relation: Oid) -> Vec<Oid> {
    let mut rules = Vec::new();
    let on = [
        (
            catalogs::DEPEND_ON_CLASS,
            pg_sys::RelationRelationId.to_u32(),
        ),
        (catalogs::DEPEND_ON_OBJECT, relation.to_u32()),
    ];
    Catalog::read(catalogs::DEPEND).find(catalogs::DEPEND_BY_REFERENCE, &on, |row| {
        // SAFETY: pg_depend.
        let row = unsafe { row.fixed::<Depend>() };
        if row.class.to_u32() == catalogs::REWRITE {
            rules.push(row.object);
        }
    });
    let mut views = Vec::new();
    let rewrite = Catalog::read(catalogs::REWRITE);
    for rule in rules {
        rewrite.each(catalogs::REWRITE_BY_OID, 1, rule.to_u32(), |row| {
            // SAFETY: pg_rewrite.
            views.push(unsafe { row.fixed::<Rewrite>() }.relation);
        });
    }
    views.retain(|view| is_view(*view));
    views
}

/// The mounted tables and views for which that holds.
fn mounted_where(holds: impl Fn(&pg_sys::FormData_pg_class) -> bool) -> HashSet<Oid> {
    let mut found = mounted();
    // SAFETY: a row of the catalog cache, held while it is looked at.
    found.retain(|relation| unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let row = pg_sys::SearchSysCache1(cache, (*relation).into());
        if row.is_null() {
            return false;
        }
        let holds = holds(&*pg_sys::heap_tuple_get_struct(row));
        pg_sys::ReleaseSysCache(row);
        holds
    });
    found.into_iter().collect()
}

/// So that the schema and the tables in it can be dropped.
pub fn let_go_of_schema(schema: Oid) {
    if is_schema(schema) {
        let_go(pg_sys::NamespaceRelationId, schema);
    }
    let_go_of_relations(mounted_where(|class| class.relnamespace == schema));
}

fn let_go_of_owned(role: Oid) {
    let_go_of_relations(mounted_where(|class| class.relowner == role));
    let mut schemas = Vec::new();
    Catalog::read(pg_sys::NamespaceRelationId.to_u32()).all(0, |row| {
        // SAFETY: pg_namespace.
        let row = unsafe { row.fixed::<pg_sys::FormData_pg_namespace>() };
        if row.nspowner == role {
            schemas.push(row.oid);
        }
    });
    for schema in schemas.into_iter().filter(|schema| is_schema(*schema)) {
        let_go_of_schema(schema);
    }
}

/// The extension's members that are no objects: rows that an older version wrote for names that it did not
/// find again. What drops the extension could not describe them.
fn let_go_of_nothing() {
    let none = [
        (catalogs::DEPEND_CLASS, pg_sys::RelationRelationId.to_u32()),
        (catalogs::DEPEND_OBJECT, pg_sys::InvalidOid.to_u32()),
    ];
    let mut any = false;
    Catalog::read(catalogs::DEPEND).find(catalogs::DEPEND_BY_DEPENDER, &none, |_| any = true);
    if !any {
        return;
    }
    let depend = Catalog::open(catalogs::DEPEND);
    depend.find(catalogs::DEPEND_BY_DEPENDER, &none, |row| {
        depend.remove(row)
    });
    // SAFETY: removes rows of pg_seclabel; makes that seen by the rest of this transaction.
    unsafe {
        pg_sys::DeleteSecurityLabel(&address(pg_sys::RelationRelationId, pg_sys::InvalidOid));
        pg_sys::CommandCounterIncrement();
    }
}

/// What VACUUM of the whole database comes to (vacuum.c, `get_all_vacuum_rels`), mounted tables apart; `None`
/// if there are none of those.
pub fn not_mounted() -> Option<Vec<Oid>> {
    // SAFETY: a look-up.
    let method = unsafe { pg_sys::get_am_oid(c"fork".as_ptr(), true) };
    if method == pg_sys::InvalidOid {
        return None;
    }
    let (mut others, mut any) = (Vec::new(), false);
    Catalog::read(pg_sys::RelationRelationId.to_u32()).all(0, |row| {
        // SAFETY: pg_class.
        let row = unsafe { row.fixed::<pg_sys::FormData_pg_class>() };
        let kind = row.relkind as u8;
        if row.relam == method {
            any = true;
        } else if matches!(
            kind,
            pg_sys::RELKIND_RELATION | pg_sys::RELKIND_MATVIEW | pg_sys::RELKIND_PARTITIONED_TABLE
        ) {
            others.push(row.oid);
        }
    });
    any.then_some(others)
}

/// Before DROP TABLE, VIEW, SCHEMA, EXTENSION, and DROP OWNED.
///
/// # Safety
/// A parse node.
pub unsafe fn before_drop(node: *mut pg_sys::Node) {
    // SAFETY: by the caller's promise, cast to what the tag says.
    unsafe {
        // Refused in a moment.
        if pg_sys::XactReadOnly {
            return;
        }
        match (*node).type_ {
            pg_sys::NodeTag::T_DropStmt if extension().is_some() => before_drop_of(&*node.cast()),
            pg_sys::NodeTag::T_DropOwnedStmt if extension().is_some() => {
                let_go_of_nothing();
                let roles = (*node.cast::<pg_sys::DropOwnedStmt>()).roles;
                for role in pgrx::PgList::<pg_sys::RoleSpec>::from_pg(roles).iter_ptr() {
                    let_go_of_owned(pg_sys::get_rolespec_oid(role, false));
                }
            }
            _ => {}
        }
    }
}

unsafe fn before_drop_of(statement: &pg_sys::DropStmt) {
    use pg_sys::ObjectType::*;
    let mut relations = HashSet::new();
    if matches!(statement.removeType, OBJECT_EXTENSION | OBJECT_SCHEMA) {
        // A schema takes the extension along that was made in it.
        let_go_of_nothing();
    }
    // SAFETY: a parse node: lists of names, or names.
    unsafe {
        let objects = pgrx::PgList::<pg_sys::Node>::from_pg(statement.objects);
        for object in objects.iter_ptr() {
            let name = || (*object.cast::<pg_sys::String>()).sval;
            match statement.removeType {
                OBJECT_TABLE | OBJECT_VIEW => {
                    let range = pg_sys::makeRangeVarFromNameList(object.cast());
                    relations.extend(watch::shown_of(range));
                }
                OBJECT_SCHEMA => {
                    let oid = pg_sys::get_namespace_oid(name(), true);
                    // Tables may have been moved to any.
                    if oid != pg_sys::InvalidOid {
                        let_go_of_schema(oid);
                    }
                }
                _ => {}
            }
        }
    }
    if !relations.is_empty() {
        let_go_of_relations(relations);
    }
}
