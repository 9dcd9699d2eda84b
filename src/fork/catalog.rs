//! The catalog rows of a fork: `pg_database` and what hangs on it (D11).
//!
//! Rows are written by SQL under the bootstrap superuser's rights, in the caller's transaction.
#![allow(unsafe_code)] // calls into dbcommands.c, pg_shdepend.c, acl.c

use crate::fork::files;
use crate::pg::md;
use crate::shmem::registry;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::ffi::CString;

const DATABASE_RELATION: u32 = 1262;

/// The database that a fork is taken from.
#[derive(Clone, Debug)]
pub struct Source {
    pub oid: u32,
    pub name: String,
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
    let name = CString::new(name).ok()?;
    // SAFETY: a C string.
    let oid = unsafe { pg_sys::get_database_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then(|| oid.to_u32())
}

/// Runs `what` with nothing but PostgreSQL's own names in sight: an operator of the caller's must
/// not be run with rights that are not his. An error undoes the setting (guc.c, `AtEOXact_GUC`).
fn with_safe_path<R>(what: impl FnOnce() -> R) -> R {
    // SAFETY: the documented way to set a variable for a while (guc.c).
    let level = unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            c"pg_catalog, pg_temp".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        level
    };
    let result = what();
    // SAFETY: the level made above.
    unsafe { pg_sys::AtEOXact_GUC(true, level) };
    result
}

/// Runs `what` with the bootstrap superuser's rights. An error ends the transaction, which
/// restores them too (xact.c, `AbortTransaction`).
fn as_superuser<R>(what: impl FnOnce() -> R) -> R {
    with_safe_path(|| switched(what))
}

fn switched<R>(what: impl FnOnce() -> R) -> R {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: plain state of this process.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let restricted = context
            | (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION) as i32;
        pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(10), restricted);
    }
    let result = what();
    // SAFETY: as above.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    result
}

/// Runs a statement; returns how many rows it changed.
fn run(sql: &str, args: &[DatumWithOid]) -> usize {
    match Spi::connect_mut(|client| client.update(sql, None, args).map(|rows| rows.len())) {
        Ok(rows) => rows,
        Err(error) => {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("could not change the catalog: {error}")
            );
        }
    }
}

/// A statement that must change the one row of a database. Under REPEATABLE READ a row that is newer
/// than the transaction's snapshot is not seen.
fn run_on_row(sql: &str, args: &[DatumWithOid]) {
    if run(sql, args) != 1 {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            "the database is newer than this transaction's snapshot"
        );
    }
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
    let oid = loop {
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
        if database_oid(name) == Some(oid) {
            break oid;
        }
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
    // SAFETY: plain look-ups.
    let (may_connect, is_owner) = unsafe {
        let user = pg_sys::GetUserId();
        let connect = pg_sys::pg_database_aclcheck(oid.into(), user, pg_sys::ACL_CONNECT as _);
        (
            connect == pg_sys::AclResult::ACLCHECK_OK,
            pg_sys::pg_database_ownercheck(oid.into(), user),
        )
    };
    let look = || {
        Spi::connect(|client| {
            let sql =
                "SELECT dattablespace, datallowconn FROM pg_catalog.pg_database WHERE oid = $1";
            let row = client
                .select(sql, Some(1), &[pg_sys::Oid::from(oid).into()])?
                .first();
            Ok::<_, pgrx::spi::SpiError>((row.get::<pg_sys::Oid>(1)?, row.get::<bool>(2)?))
        })
    };
    let row = with_safe_path(look);
    let Ok((Some(tablespace), Some(allows))) = row else {
        unknown()
    };
    if !may_connect || (!allows && !is_owner) {
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
        tablespace: tablespace.to_u32(),
    }
}

/// Keeps the source's `datfrozenxid` where it is until the transaction's end (D11). It must not
/// advance past what the fork's row says before others can see that row.
pub fn hold_frozen_ids(source: u32) {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: source,
        locktag_field2: 0,
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_DATABASE_FROZEN_IDS as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: a whole tag. Share: forks go together, vac_update_datfrozenxid (vacuum.c) waits.
    unsafe { pg_sys::LockAcquire(&tag, pg_sys::ShareLock as i32, false, false) };
}

/// A number for a database that neither a row nor a file has.
pub fn new_oid() -> u32 {
    loop {
        // SAFETY: pg_database and its index on oid (2672), column 1.
        let oid = unsafe {
            let relation =
                pg_sys::table_open(DATABASE_RELATION.into(), pg_sys::AccessShareLock as i32);
            let oid = pg_sys::GetNewOidWithIndex(relation, pg_sys::Oid::from(2672), 1).to_u32();
            pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
            oid
        };
        let taken = |spc: u32| files::db_dir(oid, spc).symlink_metadata().is_ok();
        if !files::tablespaces().into_iter().any(taken)
            && registry::slot(oid).is_none()
        {
            return oid;
        }
    }
}

/// Inserts the fork's row and what hangs on it. Raises 42P04 if the name is taken.
pub fn insert_row(source: &Source, oid: u32, name: &str) {
    if database_oid(name).is_some() {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_DUPLICATE_DATABASE,
            format!("database \"{name}\" already exists")
        );
    }
    // SAFETY: a plain read.
    let owner = unsafe { pg_sys::GetUserId() };
    let (new, old) = (pg_sys::Oid::from(oid), pg_sys::Oid::from(source.oid));
    as_superuser(|| {
        run_on_row(
            "INSERT INTO pg_catalog.pg_database
             SELECT $1, $2::name, $3, encoding, datlocprovider, false, true, -1, datfrozenxid, datminmxid,
                    dattablespace, datcollate, datctype, daticulocale, datcollversion, datacl
             FROM pg_catalog.pg_database WHERE oid = $4",
            &[new.into(), name.into(), owner.into(), old.into()],
        );
        run(
            "INSERT INTO pg_catalog.pg_db_role_setting
             SELECT $1, setrole, setconfig FROM pg_catalog.pg_db_role_setting WHERE setdatabase = $2",
            &[new.into(), old.into()],
        );
        // The roles that the access list names (deptype 'a').
        run(
            "INSERT INTO pg_catalog.pg_shdepend
             SELECT dbid, classid, $1, objsubid, refclassid, refobjid, deptype
             FROM pg_catalog.pg_shdepend
             WHERE dbid = 0 AND classid = 1262 AND objid = $2 AND deptype = 'a' AND refobjid <> $3",
            &[new.into(), old.into(), owner.into()],
        );
        // SAFETY: numbers of rows that exist.
        unsafe {
            pg_sys::recordDependencyOnOwner(DATABASE_RELATION.into(), new, owner);
            pg_sys::copyTemplateDependencies(old, new);
        }
    });
    // SAFETY: makes the rows seen by the rest of this transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// Removes the row and what hangs on it. The caller holds the database's AccessExclusiveLock.
pub fn remove_row(oid: u32) {
    let db = pg_sys::Oid::from(oid);
    as_superuser(|| {
        run_on_row(
            "DELETE FROM pg_catalog.pg_database WHERE oid = $1",
            &[db.into()],
        );
        run(
            "DELETE FROM pg_catalog.pg_db_role_setting WHERE setdatabase = $1",
            &[db.into()],
        );
        run(
            "DELETE FROM pg_catalog.pg_shseclabel WHERE classoid = 1262 AND objoid = $1",
            &[db.into()],
        );
        // SAFETY: what dropdb (dbcommands.c) does for a database, but for its files and checkpoint.
        unsafe {
            pg_sys::DeleteSharedComments(db, DATABASE_RELATION.into());
            pg_sys::dropDatabaseDependencies(db);
            pg_sys::pgstat_drop_database(db);
        }
    });
    // SAFETY: as above.
    unsafe { pg_sys::CommandCounterIncrement() };
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
        (!name.is_null()).then(|| {
            std::ffi::CStr::from_ptr(name)
                .to_string_lossy()
                .into_owned()
        })
    }
}

/// Takes back the checkpointer's requests for a database's, fork's or layer's files.
pub fn forget_files(oid: u32) {
    // SAFETY: any number will do.
    unsafe { md::ForgetDatabaseSyncRequests(oid.into()) };
}

/// Raises 55000 while a standby, a base backup, a physical slot or the WAL archive could carry the
/// fork's WAL to a server that cannot replay it, unless `pg_fork.standbys_ready` is on (D13).
pub fn refuse_unready_standbys() {
    if crate::guc::STANDBYS_READY.get() {
        return;
    }
    let look = || {
        Spi::get_one::<String>(
            "SELECT CASE
                 WHEN EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical')
                     THEN 'There is a physical replication slot.'
                 WHEN EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walsender' AND datid IS NULL)
                     THEN 'A standby or a base backup is connected.'
                 WHEN pg_catalog.current_setting('archive_mode') <> 'off'
                     THEN 'WAL is being archived.'
             END",
        )
    };
    if let Ok(Some(detail)) = as_superuser(look) {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "cannot fork a database while its WAL goes to servers that may not know of forks",
            "fork_create",
        )
        .set_detail(detail)
        .set_hint("Load pg_fork on them too, then set pg_fork.standbys_ready = on.")
        .report(PgLogLevel::ERROR);
    }
}
