//! What pg_database says of the database that is looked into.
#![allow(unsafe_code)] // a row of a catalog cache

use crate::shmem::registry::{self, Use};
use pgrx::pg_sys::{self, Datum, Oid};

/// The number that sessions of the database are in: a base's is its fork's.
pub fn home(db: u32) -> u32 {
    registry::slot(db)
        .filter(|slot| slot.used == Use::Base)
        .map_or(db, |slot| slot.twin)
}

pub struct Database {
    pub owner: Oid,
    pub encoding: i32,
    /// It accepts connections, and is valid.
    pub open: bool,
    /// The list of rights, copied.
    pub acl: Option<Datum>,
}

/// The row of a database, or of a base's fork.
pub fn of(db: u32) -> Option<Database> {
    // SAFETY: a row of the catalog cache, held while it is looked at.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
        let row = pg_sys::SearchSysCache1(cache, Oid::from(home(db)).into());
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
            encoding: form.encoding,
            open: form.datallowconn && form.datconnlimit != pg_sys::DATCONNLIMIT_INVALID_DB,
            acl: (!null).then(|| copied(acl)),
        };
        pg_sys::ReleaseSysCache(row);
        Some(found)
    }
}
