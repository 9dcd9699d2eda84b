//! Whether a role may look into another database, and read a table of it: what a login there, and the
//! executor there, would ask (postinit.c, aclchk.c, acl.c).
//!
//! The lists of rights are gone through here. acl.c takes whoever owns the database that this session is in
//! for a member of `pg_database_owner`; what counts is who owns the one that is looked into.
#![allow(unsafe_code)] // lists of rights, and look-ups in shared catalogs

use super::relation::{self, Catalogs};
use super::{database, toast};
use crate::fork::catalog;
use crate::pg::catalogs::{self, Inherits};
use crate::pg::tuple::Row;
use crate::shmem::registry::{self, ForkState};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;

const PG_DATABASE_OWNER: u32 = pg_sys::ROLE_PG_DATABASE_OWNER;
/// As deep as partitions of partitions may lie; a catalog that is damaged could go round in circles.
const DEEPEST: usize = 1000;

/// Asks what a login of the role would be asked, but for limits of connections.
///
/// `db`: a fork, its base, or a source. Raises 42501 without CONNECT, 55000 if the database accepts no
/// connections, 3D000 if it is gone.
pub fn may_look_into(db: u32, role: Oid) {
    let name = catalog::database_name(database::home(db)).unwrap_or_default();
    let Some(row) = database::of(db) else {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            format!("the database with OID {db} does not exist any more")
        );
    };
    let fork = registry::fork(database::home(db));
    if let Some(fork) = fork.filter(|fork| fork.state == ForkState::Invalid) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("fork \"{name}\" is invalid: {}", fork.reason())
        );
    }
    if !row.open {
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

/// What a role may read of a table.
pub struct OnTable {
    /// The schema may be used.
    pub uses: bool,
    /// Row security hides rows from it.
    pub filtered: bool,
    /// It may read all columns.
    pub whole: bool,
    /// Else those.
    columns: Vec<i16>,
}

impl OnTable {
    /// Whether it may read the column, in all rows.
    pub fn reads(&self, column: i16) -> bool {
        self.uses && !self.filtered && (self.whole || self.columns.contains(&column))
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
        let owner = database::of(catalogs.db).map(|row| row.owner);
        Self::of(role, owner.unwrap_or(PG_DATABASE_OWNER.into()))
    }

    fn of(role: Oid, database_owner: Oid) -> Self {
        // SAFETY: look-ups in shared catalogs.
        let (superuser, all) = unsafe {
            let all = pg_sys::has_privs_of_role(role, pg_sys::ROLE_PG_READ_ALL_DATA.into());
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
        granted.any(|item| {
            item.ai_grantee.to_u32() == pg_sys::ACL_ID_PUBLIC || self.is(item.ai_grantee)
        })
    }

    /// Whether the role may use the schema.
    pub fn uses_schema(&self, catalogs: &Catalogs, schema: u32) -> bool {
        if self.all {
            return true;
        }
        let table = pg_sys::NamespaceRelationId.to_u32();
        let mut uses = false;
        catalogs.each(table, pg_sys::NamespaceOidIndexId, schema, |row| {
            // SAFETY: pg_namespace.
            let form = unsafe { row.fixed::<pg_sys::FormData_pg_namespace>() };
            if form.oid.to_u32() != schema {
                return;
            }
            let acl = row.whole(pg_sys::Anum_pg_namespace_nspacl as i32);
            let acl = acl.map(|acl| from_there(catalogs, table, acl));
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
        let acl = class.whole(pg_sys::Anum_pg_class_relacl as i32);
        let list = Acl::of(acl, pg_sys::ObjectType::OBJECT_TABLE, owner);
        self.has(&list, pg_sys::ACL_SELECT)
    }

    /// What the role may read of a table there; `None` if there is none.
    pub fn on_table(&self, catalogs: &Catalogs, table: u32) -> Option<OnTable> {
        let (mut on, partition) = self.on_alone(catalogs, table)?;
        let open = on.uses && on.whole && !on.filtered;
        if partition && !open && self.reads_through_parent(catalogs, table) {
            (on.uses, on.whole, on.filtered) = (true, true, false);
        }
        if !on.whole {
            let (class, index) = (
                pg_sys::AttributeRelationId.to_u32(),
                pg_sys::AttributeRelidNumIndexId,
            );
            catalogs.each(class, index, table, |row| {
                // SAFETY: pg_attribute, which has no TOAST table.
                let form = unsafe { row.fixed::<pg_sys::FormData_pg_attribute>() };
                let acl = row.whole(pg_sys::Anum_pg_attribute_attacl as i32);
                let live = form.attrelid.to_u32() == table && !form.attisdropped;
                let reads = |acl| self.has(&Acl::items(acl), pg_sys::ACL_SELECT);
                if live && acl.is_some_and(reads) {
                    on.columns.push(form.attnum);
                }
            });
        }
        Some(on)
    }

    /// Its own rights, and whether it is a partition.
    fn on_alone(&self, catalogs: &Catalogs, table: u32) -> Option<(OnTable, bool)> {
        let mut found = None;
        let class = pg_sys::RelationRelationId.to_u32();
        catalogs.each(class, pg_sys::ClassOidIndexId, table, |row| {
            // SAFETY: pg_class.
            let class = unsafe { row.fixed::<pg_sys::FormData_pg_class>() };
            if class.oid.to_u32() == table {
                let on = OnTable {
                    uses: true,
                    filtered: self.is_filtered(class),
                    whole: self.reads_table(row),
                    columns: Vec::new(),
                };
                found = Some((on, class.relnamespace.to_u32(), class.relispartition));
            }
        });
        let (mut on, schema, partition) = found?;
        on.uses = self.uses_schema(catalogs, schema);
        Some((on, partition))
    }

    /// Whether the role may read all of a partition by reading what it is a partition of: rights on, and row
    /// security of, the partition itself do not count then.
    pub fn reads_through_parent(&self, catalogs: &Catalogs, partition: u32) -> bool {
        let mut at = partition;
        for _ in 0..DEEPEST {
            let mut parent = None;
            catalogs.each(catalogs::INHERITS, catalogs::INHERITS_BY_CHILD, at, |row| {
                // SAFETY: pg_inherits.
                let row = unsafe { row.fixed::<Inherits>() };
                if row.child.to_u32() == at && !row.detaching {
                    parent = Some(row.parent.to_u32());
                }
            });
            let on = parent.and_then(|parent| self.on_alone(catalogs, parent));
            let (Some(parent), Some((on, partition))) = (parent, on) else {
                return false;
            };
            if on.uses && on.whole && !on.filtered {
                return true;
            }
            if !partition {
                return false;
            }
            at = parent;
        }
        false
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
