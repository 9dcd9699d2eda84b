//! Whether a role may look into another database, and read a table of it: what a login there, and the
//! executor there, would ask (postinit.c, aclchk.c, acl.c).
//!
//! The lists of rights are gone through here. acl.c takes whoever owns the database that this session is in
//! for a member of `pg_database_owner`; what counts is who owns the one that is looked into.
#![allow(unsafe_code)] // lists of rights, and look-ups in shared catalogs

use super::relation::{self, Catalogs};
use super::toast;
use crate::fork::catalog;
use crate::pg::tuple::Row;
use crate::shmem::registry::{self, Use};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;

const PG_NAMESPACE: (u32, u32) = (2615, 2685);
const PG_DATABASE_OWNER: u32 = 6171;
const PG_READ_ALL_DATA: u32 = 6181;
/// `ACL_ID_PUBLIC`
const PUBLIC: u32 = 0;

/// The number that sessions of the database are in: a base's is its fork's.
fn home(db: u32) -> u32 {
    registry::slot(db)
        .filter(|slot| slot.used == Use::Base)
        .map_or(db, |slot| slot.twin)
}

/// What pg_database says of a database.
struct Database {
    owner: Oid,
    allows: bool,
    limit: i32,
    /// The list of rights, copied.
    acl: Option<Datum>,
}

fn database(db: u32) -> Option<Database> {
    // SAFETY: a row of the catalog cache, held while it is looked at.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
        let row = pg_sys::SearchSysCache1(cache, Oid::from(db).into());
        if row.is_null() {
            return None;
        }
        let form = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(row);
        let mut null = false;
        let column = pg_sys::Anum_pg_database_datacl as i16;
        let acl = pg_sys::SysCacheGetAttr(cache, row, column, &mut null);
        let copied = |acl: Datum| Datum::from(pg_sys::pg_detoast_datum_copy(acl.cast_mut_ptr()));
        let found = Database {
            owner: form.datdba,
            allows: form.datallowconn,
            limit: form.datconnlimit,
            acl: (!null).then(|| copied(acl)),
        };
        pg_sys::ReleaseSysCache(row);
        Some(found)
    }
}

/// Asks what a login of the role would be asked, but for limits of connections.
///
/// `db`: a fork, its base, or a source. Raises 42501 without CONNECT, 55000 if the database accepts no
/// connections, 3D000 if it is gone.
pub fn may_look_into(db: u32, role: Oid) {
    let db = home(db);
    let name = catalog::database_name(db).unwrap_or_default();
    let Some(row) = database(db) else {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            format!("the database with OID {db} does not exist any more")
        );
    };
    if !row.allows || row.limit == pg_sys::DATCONNLIMIT_INVALID_DB {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("database \"{name}\" is not currently accepting connections")
        );
    }
    let reader = Reader::of(role, row.owner);
    let list = Acl::of(row.acl, pg_sys::ObjectType::OBJECT_DATABASE, row.owner);
    if !reader.superuser && !reader.has(&list, pg_sys::ACL_CONNECT) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for database {name}"),
            "User does not have CONNECT privilege."
        );
    }
}

/// A list of rights.
struct Acl(Vec<pg_sys::AclItem>);

impl Acl {
    /// The list, or the usual one of that kind of object.
    fn of(acl: Option<Datum>, kind: pg_sys::ObjectType::Type, owner: Oid) -> Self {
        match acl {
            Some(acl) => Self::items(acl),
            // SAFETY: palloc'd.
            None => Self::items(unsafe { Datum::from(pg_sys::acldefault(kind, owner)) }),
        }
    }

    /// The items of an `aclitem[]` that lies in the row, or was fetched. Raises XX001 for what is none.
    fn items(acl: Datum) -> Self {
        // SAFETY: a whole varlena; of an array its header is looked at first.
        unsafe {
            let array = pg_sys::pg_detoast_datum(acl.cast_mut_ptr());
            let size = (array.cast::<u32>().read() >> 2) as usize;
            let array = array.cast::<pg_sys::ArrayType>();
            // One dimension: its length, its lower bound.
            let header = std::mem::size_of::<pg_sys::ArrayType>() + 2 * std::mem::size_of::<i32>();
            let item = std::mem::size_of::<pg_sys::AclItem>();
            let at = header.next_multiple_of(std::mem::align_of::<u64>());
            let empty = size >= std::mem::size_of::<pg_sys::ArrayType>() && (*array).ndim == 0;
            if empty {
                return Acl(Vec::new());
            }
            let whole = size >= header
                && (*array).ndim == 1
                && (*array).dataoffset == 0
                && (*array).elemtype == pg_sys::ACLITEMOID;
            let count = match whole {
                true => array.add(1).cast::<i32>().read().max(0) as usize,
                false => 0,
            };
            if !whole || size < at + count.saturating_mul(item) {
                ereport!(
                    ERROR,
                    PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                    "a list of rights in another database's catalogs is damaged"
                );
            }
            let first = array.cast::<u8>().add(at).cast::<pg_sys::AclItem>();
            Acl((0..count).map(|n| first.add(n).read()).collect())
        }
    }
}

/// A role, as it is in one database.
#[derive(Clone, Copy)]
pub struct Reader {
    role: Oid,
    /// Who owns that database.
    database_owner: Oid,
    superuser: bool,
    all: bool,
}

impl Reader {
    /// The role in the database that the catalogs are of.
    pub fn new(catalogs: &Catalogs, role: Oid) -> Self {
        let owner = database(home(catalogs.db)).map(|row| row.owner);
        Self::of(role, owner.unwrap_or(PG_DATABASE_OWNER.into()))
    }

    fn of(role: Oid, database_owner: Oid) -> Self {
        // SAFETY: look-ups in shared catalogs.
        let (superuser, all) = unsafe {
            let all = pg_sys::has_privs_of_role(role, PG_READ_ALL_DATA.into());
            (pg_sys::superuser_arg(role), all)
        };
        Reader {
            role,
            database_owner,
            superuser,
            all: superuser || all,
        }
    }

    /// Whether the role has the rights of that one (acl.c, `has_privs_of_role`).
    fn is(&self, other: Oid) -> bool {
        let other = match other.to_u32() {
            PG_DATABASE_OWNER => self.database_owner,
            _ => other,
        };
        // SAFETY: a look-up in shared catalogs.
        self.superuser
            || (other.to_u32() != PG_DATABASE_OWNER
                && unsafe { pg_sys::has_privs_of_role(self.role, other) })
    }

    fn has(&self, list: &Acl, right: u32) -> bool {
        let mut granted = list.0.iter().filter(|item| item.ai_privs & right != 0);
        granted.any(|item| item.ai_grantee.to_u32() == PUBLIC || self.is(item.ai_grantee))
    }

    /// Whether the role may use the schema.
    pub fn uses_schema(&self, catalogs: &Catalogs, schema: u32) -> bool {
        if self.all {
            return true;
        }
        let mut uses = false;
        catalogs.each(PG_NAMESPACE.0, PG_NAMESPACE.1, schema, |row| {
            // SAFETY: pg_namespace.
            let form = unsafe { row.fixed::<pg_sys::FormData_pg_namespace>() };
            if form.oid.to_u32() != schema {
                return;
            }
            let acl = row.column(pg_sys::Anum_pg_namespace_nspacl as i32);
            let acl = acl.map(|acl| from_there(catalogs, PG_NAMESPACE.0, acl));
            let list = Acl::of(acl, pg_sys::ObjectType::OBJECT_SCHEMA, form.nspowner);
            uses = self.has(&list, pg_sys::ACL_USAGE);
        });
        uses
    }

    /// Whether the role may read the whole table, of which this is pg_class's row.
    pub fn reads_table(&self, class: &Row) -> bool {
        if self.all {
            return true;
        }
        // SAFETY: pg_class, which has no TOAST table.
        let owner = unsafe { class.fixed::<pg_sys::FormData_pg_class>() }.relowner;
        let acl = class.column(pg_sys::Anum_pg_class_relacl as i32);
        let list = Acl::of(acl, pg_sys::ObjectType::OBJECT_TABLE, owner);
        self.has(&list, pg_sys::ACL_SELECT)
    }

    /// Whether the role may read the column, of which this is pg_attribute's row, by a right on it alone.
    pub fn reads_column(&self, attribute: &Row) -> bool {
        // pg_attribute has no TOAST table.
        let acl = attribute.column(pg_sys::Anum_pg_attribute_attacl as i32);
        self.all || acl.is_some_and(|acl| self.has(&Acl::items(acl), pg_sys::ACL_SELECT))
    }

    /// Whether row security would hide rows of the table from the role (rls.c, `check_enable_rls`).
    pub fn is_filtered(&self, class: &pg_sys::FormData_pg_class) -> bool {
        // SAFETY: a look-up in a shared catalog.
        class.relrowsecurity
            && !unsafe { pg_sys::has_bypassrls_privilege(self.role) }
            && (class.relforcerowsecurity || !self.is(class.relowner))
    }
}

/// A value of a catalog's row, which may lie in that database's TOAST table of the catalog.
fn from_there(catalogs: &Catalogs, catalog: u32, value: Datum) -> Datum {
    // SAFETY: a whole varlena of a catalog's row.
    let Some(pointer) = (unsafe { toast::pointer(value.cast_mut_ptr()) }) else {
        return value;
    };
    match relation::open(catalogs.db, catalog) {
        Some(table) => Datum::from(toast::fetch(&table, &pointer)),
        None => super::damaged(
            catalogs.db,
            catalog,
            pg_fork_core::pages::Damaged("a catalog is not in pg_class"),
        ),
    }
}
