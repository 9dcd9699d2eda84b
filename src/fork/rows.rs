//! The catalog rows of a fork: `pg_database` and what hangs on it (D11, D12).
//!
//! What createdb and dropdb (dbcommands.c) write, in the caller's transaction.
#![allow(non_snake_case)] // C's names
#![allow(unsafe_code)] // calls into pg_shdepend.c, acl.c, comment.c

use crate::fork::catalog::{
    database_oid, Source, DATABASE_OID_INDEX, DATABASE_RELATION as DATABASES,
};
use crate::fork::heirs::{self, Note};
use crate::fork::own_settings;
use crate::fork::{catalog, dependencies};
use crate::pg::text;
use crate::pg::tuple::{Catalog, Row};
use crate::shmem::registry::Slot;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;

/// pg_db_role_setting, and its index on setdatabase and setrole.
const SETTINGS: u32 = 2964;
const SETTINGS_INDEX: u32 = 2965;
/// Its column setconfig.
const SETCONFIG: i32 = 3;
/// pg_shseclabel, and its index, which begins with objoid.
const LABELS: u32 = 3592;
const LABELS_INDEX: u32 = 3593;

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// pg_db_role_setting.c
    fn DropSetting(database: Oid, role: Oid);
}

/// Inserts the fork's row and what hangs on it. Raises 42P04 if the name is taken.
pub fn insert(source: &Source, oid: u32, name: &str, note: &Note, layer: &Slot) {
    if database_oid(name).is_some() {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_DUPLICATE_DATABASE,
            format!("database \"{name}\" already exists")
        );
    }
    let databases = Catalog::open(DATABASES);
    databases.each(DATABASE_OID_INDEX, 1, source.oid, |row| {
        insert_database(&databases, row, oid, name);
    });
    let settings = Catalog::open(SETTINGS);
    settings.each(SETTINGS_INDEX, 1, source.oid, |row| {
        // SAFETY: an array of texts; it is never null.
        let values = row
            .column(SETCONFIG)
            .and_then(|values| unsafe { own_settings::inherited(values) });
        if values.is_some() {
            let database = Some(Datum::from(Oid::from(oid)));
            settings.insert_like(row, &[(1, database), (SETCONFIG as usize, values)]);
        }
    });
    // So that a server which has the row but not the fork knows what it is ([`crate::worker`]).
    Catalog::open(LABELS).insert(&mut [
        Datum::from(Oid::from(oid)),
        Datum::from(Oid::from(DATABASES)),
        text::text_datum("pg_fork"),
        text::text_datum(&note.label()),
    ]);
    if let Err(error) = dependencies::copy(source.oid, oid, layer) {
        catalog::io_error("could not read the cut's transactions", &error);
    }
    // SAFETY: makes the rows seen by the rest of this transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// The source's row with the fork's number, name and owner, who takes the place of the source's owner
/// in the access list too (`AlterDatabaseOwner`).
fn insert_database(databases: &Catalog, row: &Row, oid: u32, name: &str) {
    let number = Oid::from(oid);
    // SAFETY: the row is pg_database's; the access list is detoasted and lives as long as the
    // transaction does.
    unsafe {
        let form = row.fixed::<pg_sys::FormData_pg_database>();
        let owner = pg_sys::GetUserId();
        let mut data = pg_sys::NameData::default();
        for (to, from) in data
            .data
            .iter_mut()
            .zip(text::to_server(name).to_bytes().iter().take(63))
        {
            *to = *from as _;
        }
        let acl = row
            .column(pg_sys::Anum_pg_database_datacl as i32)
            .map(|acl| pg_sys::pg_detoast_datum_copy(acl.cast_mut_ptr()).cast::<pg_sys::Acl>());
        let acl = inherited(acl, form.datdba, owner);
        let column = |number: u32, value: Datum| (number as usize, Some(value));
        databases.insert_like(
            row,
            &[
                column(pg_sys::Anum_pg_database_oid, Datum::from(number)),
                column(
                    pg_sys::Anum_pg_database_datname,
                    Datum::from(&raw const data),
                ),
                column(pg_sys::Anum_pg_database_datdba, Datum::from(owner)),
                column(pg_sys::Anum_pg_database_datistemplate, Datum::from(false)),
                column(pg_sys::Anum_pg_database_datallowconn, Datum::from(true)),
                column(pg_sys::Anum_pg_database_datconnlimit, Datum::from(-1i32)),
                (
                    pg_sys::Anum_pg_database_datacl as usize,
                    acl.map(Datum::from),
                ),
            ],
        );
        pg_sys::recordDependencyOnOwner(DATABASES.into(), number, owner);
        if let Some(acl) = acl {
            let mut members = std::ptr::null_mut();
            let count = pg_sys::aclmembers(acl, &mut members);
            pg_sys::updateAclDependencies(
                DATABASES.into(),
                number,
                0,
                owner,
                0,
                std::ptr::null_mut(),
                count,
                members,
            );
        }
        if (&raw const pg_sys::object_access_hook).read().is_some() {
            pg_sys::RunObjectPostCreateHook(DATABASES.into(), number, 0, false);
        }
    }
}

/// The fork's access list: the source's, with the new owner in the old one's place, who keeps what he could do
/// there: not what takes an owner, and nothing that he could pass on.
///
/// # Safety
/// `acl` is detoasted.
unsafe fn inherited(acl: Option<*mut pg_sys::Acl>, from: Oid, to: Oid) -> Option<*mut pg_sys::Acl> {
    let rights = pg_sys::ACL_CREATE | pg_sys::ACL_CREATE_TEMP | pg_sys::ACL_CONNECT;
    let (rights, all) = (
        pg_sys::AclMode::from(rights),
        pg_sys::AclMaskHow::ACLMASK_ALL,
    );
    // SAFETY: by the caller's promise; look-ups.
    unsafe {
        let usual = || pg_sys::acldefault(pg_sys::ObjectType::OBJECT_DATABASE, from);
        // A superuser's rights are in no list.
        if from == to || pg_sys::superuser_arg(from) {
            return acl.map(|acl| pg_sys::aclnewowner(acl, from, to).cast());
        }
        let acl = acl.unwrap_or_else(usual);
        let had = pg_sys::aclmask(acl, from, from, rights, all);
        let acl = pg_sys::aclnewowner(acl, from, to);
        Some(heirs::granted(acl, to, from.to_u32(), had))
    }
}

/// Calls `what` with the rows of pg_shseclabel that are ours, of the database.
fn labels_of(oid: u32, mut what: impl FnMut(&Catalog, &Row)) {
    let labels = Catalog::open(LABELS);
    labels.each(LABELS_INDEX, 1, oid, |row| {
        let class = row.column(2).map_or(0, |class| class.value());
        if class == DATABASES as usize && string(row, 3).as_deref() == Some("pg_fork") {
            what(&labels, row);
        }
    });
}

fn string(row: &Row, column: i32) -> Option<String> {
    // SAFETY: a text column, of ASCII where the row is ours.
    row.column(column)
        .and_then(|datum| unsafe { <String as pgrx::FromDatum>::from_datum(datum, false) })
}

/// What the fork's label says of its heirs.
pub fn note(fork: u32) -> Note {
    let mut note = Note::Nothing;
    labels_of(fork, |_, row| {
        note = Note::parse(&string(row, 4).unwrap_or_default());
    });
    note
}

/// Changes what the fork's label says.
pub fn set_note(fork: u32, note: &Note) {
    labels_of(fork, |labels, row| {
        labels.update_like(row, &[(4, Some(text::text_datum(&note.label())))]);
    });
}

/// Removes the row and what hangs on it. The caller holds the database's AccessExclusiveLock.
pub fn remove(oid: u32) {
    let number = Oid::from(oid);
    // SAFETY: what dropdb does for a database, but for its files and the checkpoint.
    unsafe {
        pg_sys::DeleteSharedComments(number, DATABASES.into());
        pg_sys::DeleteSharedSecurityLabel(number, DATABASES.into());
        DropSetting(number, pg_sys::InvalidOid);
        pg_sys::dropDatabaseDependencies(number);
        pg_sys::pgstat_drop_database(number);
    }
    let databases = Catalog::open(DATABASES);
    let mut removed = 0;
    databases.each(DATABASE_OID_INDEX, 1, oid, |row| {
        databases.remove(row);
        removed += 1;
    });
    if removed != 1 {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            format!("database with OID {oid} does not exist")
        );
    }
    // SAFETY: makes it seen by the rest of this transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// A database that can be connected to and is no fork, not a template if there is another.
pub fn database_to_work_in() -> Option<u32> {
    let forks = labelled();
    let mut found = None;
    Catalog::open(DATABASES).all(DATABASE_OID_INDEX, |row| {
        // SAFETY: pg_database.
        let form = unsafe { row.fixed::<pg_sys::FormData_pg_database>() };
        let oid = form.oid.to_u32();
        let usable = form.datallowconn
            && form.datconnlimit != pg_sys::DATCONNLIMIT_INVALID_DB
            && !forks.contains(&oid);
        if usable && (found.is_none() || !form.datistemplate) {
            found = Some(oid);
        }
    });
    found
}

/// The databases that are labelled as forks, of this server or of the one whose copy it is.
pub fn labelled() -> Vec<u32> {
    let mut found = Vec::new();
    let labels = Catalog::open(LABELS);
    labels.all(LABELS_INDEX, |row| {
        let [object, class] = [1, 2].map(|column| row.column(column).map_or(0, |oid| oid.value()));
        let provider = string(row, 3);
        if class == DATABASES as usize && provider.as_deref() == Some("pg_fork") {
            found.push(object as u32);
        }
    });
    found
}
