//! Looks databases up, holds them against change, and finds numbers for new ones (D11).
#![allow(unsafe_code)] // calls into dbcommands.c, lmgr.c, acl.c

use crate::fork::files;
use crate::pg::tuple::Catalog;
use crate::pg::{md, text};
use crate::shmem::registry::{self, ForkState};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// pg_database, and its index on oid.
pub const DATABASE_RELATION: u32 = 1262;
pub const DATABASE_OID_INDEX: u32 = 2672;

/// The database that a fork is taken from.
#[derive(Clone, Debug)]
pub struct Source {
    pub oid: u32,
    pub name: String,
    pub owner: u32,
    pub tablespace: u32,
}

/// Raises an I/O error (58030, or 53100 for a full disk).
pub fn io_error(message: &str, error: &std::io::Error) -> ! {
    let code = if error.kind() == std::io::ErrorKind::StorageFull {
        PgSqlErrorCode::ERRCODE_DISK_FULL
    } else {
        PgSqlErrorCode::ERRCODE_IO_ERROR
    };
    ereport!(ERROR, code, message.to_string(), error.to_string());
}

/// Raises 53400: no place in the registry.
pub fn too_many() -> ! {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        "too many forks",
        "fork_create",
    )
    .set_detail(format!(
        "pg_fork.max_forks is {}.",
        crate::guc::MAX_FORKS.get()
    ))
    .set_hint("Drop forks with fork_drop, or set pg_fork.max_forks higher and restart the server.")
    .report(PgLogLevel::ERROR);
    unreachable!()
}

/// The database's number; `None` if there is none by that name (dbcommands.c, `get_database_oid`).
pub fn database_oid(name: &str) -> Option<u32> {
    let name = text::to_server(name);
    // SAFETY: a C string.
    let oid = unsafe { pg_sys::get_database_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then(|| oid.to_u32())
}

fn database_row(oid: u32) -> Option<pg_sys::FormData_pg_database> {
    let mut row = None;
    Catalog::open(DATABASE_RELATION).each(DATABASE_OID_INDEX, 1, oid, |found| {
        // SAFETY: pg_database.
        row = Some(*unsafe { found.fixed::<pg_sys::FormData_pg_database>() });
    });
    row
}

fn is_named(row: &pg_sys::FormData_pg_database, name: &str) -> bool {
    let bytes = row.datname.data.iter().map(|byte| *byte as u8);
    let name = text::to_server(name);
    bytes
        .take_while(|byte| *byte != 0)
        .eq(name.to_bytes().iter().copied())
}

/// Finds the source and holds it against DROP and ALTER DATABASE until the transaction's end.
///
/// Raises 3D000 if there is none, 42501 without CONNECT on it, or if it allows no connections and
/// the caller is neither its owner nor a superuser.
pub fn find_source(name: &str) -> Source {
    let unknown = || -> ! {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            format!("database \"{name}\" does not exist")
        );
    };
    let (oid, row) = loop {
        let oid = database_oid(name).unwrap_or_else(|| unknown());
        // A weak lock: it must not keep anyone from connecting (D11).
        // SAFETY: released at the transaction's end.
        unsafe {
            pg_sys::LockSharedObject(
                DATABASE_RELATION.into(),
                oid.into(),
                0,
                pg_sys::AccessShareLock as i32,
            );
        }
        if let Some(row) = database_row(oid).filter(|row| is_named(row, name)) {
            break (oid, row);
        }
        pgrx::check_for_interrupts!();
        // SAFETY: taken above. Renamed or dropped while we waited: look again.
        unsafe {
            pg_sys::UnlockSharedObject(
                DATABASE_RELATION.into(),
                oid.into(),
                0,
                pg_sys::AccessShareLock as i32,
            );
        }
    };
    if let Some(fork) = registry::fork(oid).filter(|fork| fork.state == ForkState::Invalid) {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("cannot fork \"{name}\", which is an invalid fork"),
            "fork_create",
        )
        .set_detail(fork.reason())
        .set_hint("Drop it with fork_drop.")
        .report(PgLogLevel::ERROR);
    }
    if row.datconnlimit == pg_sys::DATCONNLIMIT_INVALID_DB {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("cannot fork invalid database \"{name}\""),
            "fork_create",
        )
        .set_hint("Use DROP DATABASE to drop invalid databases.")
        .report(PgLogLevel::ERROR);
    }
    // SAFETY: a plain look-up.
    let may_connect = unsafe {
        let user = pg_sys::GetUserId();
        let connect = pg_sys::pg_database_aclcheck(oid.into(), user, pg_sys::ACL_CONNECT as _);
        connect == pg_sys::AclResult::ACLCHECK_OK
    };
    if !may_connect || (!row.datallowconn && !owns(oid)) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for database {name}"),
            "Forking a database needs CONNECT on it, and ownership if it allows no connections."
        );
    }
    Source {
        oid,
        name: name.into(),
        owner: row.datdba.to_u32(),
        tablespace: row.dattablespace.to_u32(),
    }
}

/// A number for a database that neither a row nor a file has.
pub fn new_oid() -> u32 {
    loop {
        // SAFETY: pg_database and its index on oid, column 1.
        let oid = unsafe {
            let relation =
                pg_sys::table_open(DATABASE_RELATION.into(), pg_sys::AccessShareLock as i32);
            let oid = pg_sys::GetNewOidWithIndex(relation, DATABASE_OID_INDEX.into(), 1).to_u32();
            pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
            oid
        };
        let taken = |spc: u32| files::db_dir(oid, spc).symlink_metadata().is_ok();
        if !files::tablespaces().into_iter().any(taken) && registry::slot(oid).is_none() {
            return oid;
        }
    }
}

/// Locks the database against connections until the transaction's end.
pub fn lock_for_drop(oid: u32) {
    // SAFETY: released at the transaction's end.
    unsafe {
        pg_sys::LockSharedObject(
            DATABASE_RELATION.into(),
            oid.into(),
            0,
            pg_sys::AccessExclusiveLock as i32,
        );
    }
}

/// Keeps the database from being dropped until the transaction's end.
pub fn lock_shared(oid: u32) {
    // SAFETY: released at the transaction's end.
    unsafe {
        pg_sys::LockSharedObject(
            DATABASE_RELATION.into(),
            oid.into(),
            0,
            pg_sys::AccessShareLock as i32,
        );
    }
}

/// The fixed part of a database's row, from the catalog cache.
pub fn cached_row(oid: u32) -> Option<pg_sys::FormData_pg_database> {
    // SAFETY: a row of the catalog cache, held while it is copied.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Oid::from(oid).into());
        if tuple.is_null() {
            return None;
        }
        let row = *pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(tuple);
        pg_sys::ReleaseSysCache(tuple);
        Some(row)
    }
}

/// The encoding of a database that has a row.
pub fn encoding_of(oid: u32) -> i32 {
    cached_row(oid).map_or_else(text::server_encoding, |row| row.encoding)
}

/// The tablespace of a database that has a row.
pub fn tablespace_of(oid: u32) -> u32 {
    cached_row(oid).map_or(files::DEFAULT_TABLESPACE, |row| row.dattablespace.to_u32())
}

/// Whether the caller owns the database, or is a superuser.
pub fn owns(oid: u32) -> bool {
    // SAFETY: plain look-ups.
    unsafe { pg_sys::pg_database_ownercheck(oid.into(), pg_sys::GetUserId()) }
}

/// The database's name, if it has a row.
pub fn database_name(oid: u32) -> Option<String> {
    // SAFETY: palloc'd, or null.
    unsafe {
        let name = pg_sys::get_database_name(oid.into());
        (!name.is_null()).then(|| text::server_string(name))
    }
}

/// Takes back the checkpointer's requests for a database's, fork's or layer's files.
pub fn forget_files(oid: u32) {
    // SAFETY: any number will do.
    unsafe { md::ForgetDatabaseSyncRequests(oid.into()) };
}
