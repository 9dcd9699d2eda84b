//! Where the session may move, and with which rights: what a login checks (postinit.c, `InitPostgres`
//! and `CheckMyDatabase`).
#![allow(unsafe_code)] // catalog caches and locks

use crate::attach::settings::{self, Setting};
use crate::attach::{refuse, request};
use crate::fork::catalog;
use crate::shmem::registry::{self, ForkState};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

const DATABASE_RELATION: u32 = 1262;
/// One lock for the time from the checks until the session is seen in its new database, as a login
/// takes it: DROP DATABASE waits for it, or is over.
const LOCK: i32 = pg_sys::RowExclusiveLock as i32;

/// A database that the session is about to move to.
#[derive(Clone, Debug)]
pub struct Target {
    pub oid: u32,
    pub tablespace: u32,
    pub name: CString,
    pub path: CString,
    pub settings: Vec<Setting>,
}

/// What of a row of pg_database matters here.
struct Row {
    name: CString,
    tablespace: u32,
    allows: bool,
    limit: i32,
    /// Encoding and locale, which a process cannot change.
    locale: (i32, i8, [Option<CString>; 3]),
}

fn row(oid: u32) -> Option<Row> {
    // SAFETY: a row of the catalog cache, held while it is copied.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Oid::from(oid).into());
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(tuple);
        let text = |column: i16| {
            let mut null = false;
            let datum = pg_sys::SysCacheGetAttr(cache, tuple, column, &mut null);
            (!null)
                .then(|| CStr::from_ptr(pg_sys::text_to_cstring(datum.cast_mut_ptr())).to_owned())
        };
        let row = Row {
            name: CStr::from_ptr(form.datname.data.as_ptr()).to_owned(),
            tablespace: form.dattablespace.to_u32(),
            allows: form.datallowconn,
            limit: form.datconnlimit,
            locale: (
                form.encoding,
                form.datlocprovider,
                // datcollate, datctype, daticulocale
                [text(12), text(13), text(14)],
            ),
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(row)
    }
}

fn unknown(name: &str) -> ! {
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
        format!("database \"{name}\" does not exist")
    );
}

/// Takes the lock that keeps the database; it outlives the transaction.
fn lock(oid: u32) {
    // SAFETY: the tag of a database; waits for a DROP DATABASE under way.
    unsafe {
        pg_sys::LockSharedObjectForSession(DATABASE_RELATION.into(), oid.into(), 0, LOCK);
    }
    request::locked(oid);
    // SAFETY: who held the lock before may have changed the row.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Gives the lock back.
pub fn unlock(oid: u32) {
    // SAFETY: taken in `lock`.
    unsafe {
        pg_sys::UnlockSharedObjectForSession(DATABASE_RELATION.into(), oid.into(), 0, LOCK);
    }
}

/// The database of that name, locked, if the session may move to it.
///
/// Raises 3D000 (no such database), 0A000 (neither a fork nor where the session logged in, or of
/// another encoding or locale), 55000 (accepts no connections, or is an invalid fork), 42501 (no
/// CONNECT), 53300 (its limit of connections).
pub fn find(name: &str) -> Target {
    let Some(oid) = catalog::database_oid(name) else {
        unknown(name)
    };
    check_kind(oid, name);
    lock(oid);
    if catalog::database_oid(name) != Some(oid) {
        unknown(name);
    }
    check(oid)
}

/// As [`find`], by number: where the session logged in.
pub fn find_by_oid(oid: u32) -> Target {
    lock(oid);
    check(oid)
}

fn check_kind(oid: u32, name: &str) {
    let unsupported = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
    match registry::fork(oid) {
        None if oid == request::home() => {}
        None => refuse(
            unsupported,
            format!("database \"{name}\" is not a fork"),
            "A session can move to forks, and back to the database that it logged in to. Connect to others by name.",
        ),
        Some(fork) => match fork.state {
            ForkState::Ready | ForkState::Creating => {}
            ForkState::Dropping => unknown(name),
            ForkState::Invalid => refuse(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("fork \"{name}\" is invalid: {}", fork.reason()),
                "Drop it with fork_drop.",
            ),
        },
    }
}

fn check(oid: u32) -> Target {
    let Some(target) = row(oid) else {
        unknown(&oid.to_string())
    };
    let name = target.name.to_string_lossy().into_owned();
    check_kind(oid, &name);
    // SAFETY: plain look-ups. A login's rights are the session user's, whatever SET ROLE says.
    let (user, superuser, here) = unsafe {
        let user = pg_sys::GetSessionUserId();
        (user, pg_sys::superuser_arg(user), pg_sys::MyDatabaseId)
    };
    if !target.allows || target.limit == -2 {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("database \"{name}\" is not currently accepting connections")
        );
    }
    // SAFETY: a look-up, and a count under ProcArrayLock.
    let (connect, full) = unsafe {
        let acl = pg_sys::ACL_CONNECT as pg_sys::AclMode;
        (
            pg_sys::pg_database_aclcheck(oid.into(), user, acl) == pg_sys::AclResult::ACLCHECK_OK,
            target.limit >= 0 && pg_sys::CountDBConnections(oid.into()) >= target.limit,
        )
    };
    if !superuser && !connect {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for database \"{name}\""),
            "User does not have CONNECT privilege."
        );
    }
    if !superuser && full {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_TOO_MANY_CONNECTIONS,
            format!("too many connections for database \"{name}\"")
        );
    }
    if row(here.to_u32()).is_none_or(|here| here.locale != target.locale) {
        refuse(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("database \"{name}\" has another encoding or locale"),
            "Connect to it by name.",
        );
    }
    Target {
        oid,
        tablespace: target.tablespace,
        path: folder(oid, target.tablespace, &name),
        name: target.name,
        settings: settings::read(oid, user.to_u32()),
    }
}

/// The database's folder. Raises 55000 if it is not one that this server can work in: past the checks
/// a folder without its relation map ends the session.
fn folder(oid: u32, tablespace: u32, name: &str) -> CString {
    // SAFETY: a palloc'd string.
    let path = unsafe {
        CStr::from_ptr(pg_sys::GetDatabasePath(oid.into(), tablespace.into())).to_owned()
    };
    let at = std::path::PathBuf::from(path.to_string_lossy().into_owned());
    let map = std::fs::read(at.join("pg_filenode.map")).is_ok_and(|map| map.len() == 512);
    if !map || std::fs::read(at.join("PG_VERSION")).is_err() {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("database \"{name}\" has no valid data directory")
        );
    }
    path
}
