//! Reads another database's relations from this session: a fork's, its base's, its source's (D17).
//!
//! Pages come through the shared buffers, so unflushed changes are seen, and are pinned or copied: this
//! process changes nothing on them, no hint bit either. It is no process of the other database, and a cut of
//! that would not wait for it.

pub mod database;
pub mod encoding;
pub mod horizon;
pub mod kinds;
pub mod page;
pub mod relation;
pub mod rights;
pub mod toast;
pub mod visible;

use crate::fork::{base, catalog, readers};
use crate::shmem::registry::{self, ForkState};
use pg_fork_core::pages::Damaged;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::cell::Cell;

/// Which state of a fork is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Now,
    Cut,
}

/// A page that cannot be what it should be. Raises XX001, as any read of a damaged page.
pub fn damaged(db: u32, relation: u32, error: Damaged) -> ! {
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        format!("invalid page in relation {relation} of the database with OID {db}"),
        error.to_string()
    );
}

/// Raises `code` with a hint.
pub fn refuse(code: PgSqlErrorCode, message: impl Into<String>, hint: &str) -> ! {
    ErrorReport::new(code, message.into(), "pg_fork")
        .set_hint(hint.to_string())
        .report(PgLogLevel::ERROR);
    unreachable!()
}

thread_local! {
    static HOLDS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this transaction keeps a database from being dropped.
pub fn holds() -> bool {
    HOLDS.get()
}

/// At the transaction's end.
pub fn let_go() {
    HOLDS.set(false);
}

/// The number under which the storage manager knows what is to be read; kept from being dropped until
/// the transaction's end.
///
/// `db` is a fork, or (with [`At::Now`]) a database that has forks. Raises 3D000 if it is gone, 55000 if
/// it is an invalid fork, 42809 if it is neither.
pub fn hold(db: u32, at: At) -> u32 {
    let gone = || -> ! {
        refuse(
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            format!("the fork with OID {db} does not exist any more"),
            "Remove what was mounted from it with fork_unmount.",
        )
    };
    HOLDS.set(true);
    let Some(fork) = readers::hold(db) else {
        if at == At::Now && !registry::forks_of(db).is_empty() {
            // A source cannot be dropped while it has forks; who drops it waits for this lock.
            catalog::lock_shared(db);
            if catalog::database_name(db).is_some() {
                return db;
            }
        }
        gone()
    };
    if fork.state == ForkState::Invalid {
        refuse(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the fork with OID {db} is invalid: {}", fork.reason()),
            "Drop it with fork_drop.",
        );
    }
    match at {
        At::Now => db,
        At::Cut => base::ensure(&fork),
    }
}

/// The tablespace that the database's own relations lie in.
pub fn default_tablespace(db: u32) -> u32 {
    match registry::slot(db) {
        Some(slot) if !slot.is_layer() => slot.tablespace,
        _ => catalog::tablespace_of(db),
    }
}
