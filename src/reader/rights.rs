//! Whether a role may read a table of another database: what the executor asks there (aclchk.c).
#![allow(unsafe_code)] // calls into acl.c

use super::relation::Catalogs;
use crate::pg::tuple::Row;
use pgrx::pg_sys::{self, Oid};

const PG_NAMESPACE: (u32, u32) = (2615, 2685);
const PG_READ_ALL_DATA: u32 = 6181;

unsafe fn allows(
    acl: Option<pg_sys::Datum>,
    kind: Option<pg_sys::ObjectType::Type>,
    owner: Oid,
    role: Oid,
    right: u32,
) -> bool {
    // SAFETY: an aclitem[] of a catalog's row, or none; a copy that is freed with the transaction.
    unsafe {
        let acl = match (acl, kind) {
            (Some(acl), _) => pg_sys::pg_detoast_datum_copy(acl.cast_mut_ptr()).cast(),
            (None, Some(kind)) => pg_sys::acldefault(kind, owner),
            (None, None) => return false,
        };
        let right = pg_sys::AclMode::from(right);
        pg_sys::aclmask(acl, role, owner, right, pg_sys::AclMaskHow::ACLMASK_ANY) != 0
    }
}

/// Whether the role reads everything.
pub fn reads_all(role: Oid) -> bool {
    // SAFETY: look-ups in shared catalogs.
    unsafe {
        pg_sys::superuser_arg(role) || pg_sys::has_privs_of_role(role, PG_READ_ALL_DATA.into())
    }
}

/// Whether the role may use the schema.
pub fn uses_schema(catalogs: &Catalogs, schema: u32, role: Oid) -> bool {
    let mut uses = false;
    catalogs.each(PG_NAMESPACE.0, PG_NAMESPACE.1, schema, |row| {
        // SAFETY: pg_namespace: nspacl is column 4.
        unsafe {
            let owner = row.fixed::<pg_sys::FormData_pg_namespace>().nspowner;
            let kind = pg_sys::ObjectType::OBJECT_SCHEMA;
            uses = allows(row.column(4), Some(kind), owner, role, pg_sys::ACL_USAGE);
        }
    });
    uses || reads_all(role)
}

/// Whether the role may read the whole table, of which this is pg_class's row.
pub fn reads_table(class: &Row, role: Oid) -> bool {
    // SAFETY: pg_class: relacl is column 31.
    unsafe {
        let owner = class.fixed::<pg_sys::FormData_pg_class>().relowner;
        let acl = class.column(pg_sys::Anum_pg_class_relacl as i32);
        let kind = Some(pg_sys::ObjectType::OBJECT_TABLE);
        reads_all(role) || allows(acl, kind, owner, role, pg_sys::ACL_SELECT)
    }
}

/// Whether the role may read the column, of which this is pg_attribute's row.
pub fn reads_column(attribute: &Row, owner: Oid, role: Oid) -> bool {
    let acl = attribute.column(pg_sys::Anum_pg_attribute_attacl as i32);
    // SAFETY: pg_attribute; without a list there are no rights on the column alone.
    unsafe { allows(acl, None, owner, role, pg_sys::ACL_SELECT) }
}

/// Whether row security would hide rows of the table from the role (rls.c, `check_enable_rls`).
pub fn is_filtered(class: &pg_sys::FormData_pg_class, role: Oid) -> bool {
    // SAFETY: look-ups in shared catalogs.
    unsafe {
        class.relrowsecurity
            && !pg_sys::has_bypassrls_privilege(role)
            && (class.relforcerowsecurity || !pg_sys::has_privs_of_role(role, class.relowner))
    }
}
