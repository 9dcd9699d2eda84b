//! Changes of a row of `pg_database` that no transaction can take back, as dropdb and VACUUM make them
//! (dbcommands.c, `dropdb`; vacuum.c, `vac_update_datfrozenxid`): in place, with no new version of the row, and
//! seen by everyone at once.
//!
//! They need no index, so a process that works in no database can make them.
#![allow(unsafe_code)] // calls into genam.c, heapam.c

use crate::pg::tuple::Catalog;
use pgrx::pg_sys::{self, Datum, FormData_pg_database, Oid};

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    Yes,
    /// The row is as it should be.
    No,
    /// A transaction that has not ended changes the row, or locks it.
    Busy,
    /// There is no such row.
    Gone,
}

/// Changes the row of the database, in a transaction. `what` tells whether it changed anything. Waits for no
/// other transaction but one that comes in this very moment.
pub fn change(database: u32, what: impl FnOnce(&mut FormData_pg_database) -> bool) -> Changed {
    let databases = Catalog::open(pg_sys::DatabaseRelationId.to_u32());
    let mut busy = None;
    databases.each(pg_sys::DatabaseOidIndexId, 1, database, |row| {
        busy = Some(row.is_being_changed());
    });
    match busy {
        None => return Changed::Gone,
        Some(true) => return Changed::Busy,
        Some(false) => {}
    }
    let (mut copy, mut state) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: a whole key, of the index's first column; the row stays locked from `begin` to `finish` or
    // `cancel`, and nothing between them raises an error.
    unsafe {
        let mut key = std::mem::zeroed::<pg_sys::ScanKeyData>();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_database_oid as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::RegProcedure::from(pg_sys::F_OIDEQ),
            Datum::from(Oid::from(database)),
        );
        pg_sys::systable_inplace_update_begin(
            databases.relation(),
            pg_sys::DatabaseOidIndexId.into(),
            pg_sys::criticalSharedRelcachesBuilt,
            std::ptr::null_mut(),
            1,
            &key,
            &mut copy,
            &mut state,
        );
        if copy.is_null() {
            return Changed::Gone;
        }
        let header = (*copy).t_data;
        let form = header.cast::<u8>().add(usize::from((*header).t_hoff));
        let changed = what(&mut *form.cast::<FormData_pg_database>());
        match changed {
            true => pg_sys::systable_inplace_update_finish(state, copy),
            false => pg_sys::systable_inplace_update_cancel(state),
        }
        pg_sys::heap_freetuple(copy);
        match changed {
            true => Changed::Yes,
            false => Changed::No,
        }
    }
}
