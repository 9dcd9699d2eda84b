//! What fails on a fork's behalf, and whom it hurts (D14, I7).

use crate::pg::process;
use crate::shmem::load::{invalidate, invalidate_forks_of};
use crate::shmem::registry;
use pg_fork_core::engine::EngineError;
use pg_fork_core::topology::Node;
use pgrx::prelude::*;
use std::io;

pub type Failure = EngineError<io::Error>;

pub fn describe(failure: &Failure) -> String {
    match failure {
        EngineError::Host(error) => error.to_string(),
        EngineError::NoCut { parent, seq } => {
            format!("cut {seq} of the database with OID {parent} is gone")
        }
        EngineError::NotFound { file, block } => {
            format!(
                "block {block} of relation {} is nowhere, last looked for with OID {}",
                file.rel.rel, file.oid
            )
        }
        EngineError::Newer {
            file,
            block,
            lsn,
            cut_lsn,
        } => format!(
            "block {block} of relation {} has LSN {:X}/{:X}, past the cut at {:X}/{:X}",
            file.rel.rel,
            lsn >> 32,
            lsn & 0xFFFF_FFFF,
            cut_lsn >> 32,
            cut_lsn & 0xFFFF_FFFF
        ),
    }
}

/// A source's operation goes on, whatever became of its forks (I7).
///
/// What fails because the layer was removed since we looked for it hurts nobody: no fork needed it, and
/// a cut taken meanwhile has its own layer, and has waited for this write or saved the block itself.
pub(super) fn for_forks<T>(db: u32, node: &Node, result: Result<T, Failure>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(failure) => {
            let newest = node.layers.last().map(|layer| layer.oid);
            if newest.is_none_or(|oid| registry::slot(oid).is_some_and(|slot| slot.is_layer())) {
                invalidate_forks_of(db, &describe(&failure));
            }
            None
        }
    }
}

/// A fork's own operation failed. In its own session: an error. Elsewhere, or where an error would
/// take the server down: the fork is invalid, and life goes on.
pub(super) fn fork_failed(db: u32, what: &str, failure: &Failure) {
    if process::my_database() == db && !process::in_critical_section() {
        raise(db, what, failure);
    }
    invalidate(db, &describe(failure));
}

/// The same where nothing is changed: who looks from another database is told too, and does the fork no
/// harm. Replay goes on.
pub(super) fn look_failed(db: u32, what: &str, failure: &Failure) {
    if !process::in_recovery() && !process::in_critical_section() {
        raise(db, what, failure);
    }
    fork_failed(db, what, failure);
}

/// Raises 53100, 58030 or XX001; where the fork's data cannot be right any more it is invalid, too.
fn raise(db: u32, what: &str, failure: &Failure) -> ! {
    let reason = describe(failure);
    if matches!(
        failure,
        EngineError::Newer { .. } | EngineError::NoCut { .. }
    ) {
        invalidate(db, &reason);
    }
    let code = match failure {
        EngineError::Host(error) if error.kind() == io::ErrorKind::StorageFull => {
            PgSqlErrorCode::ERRCODE_DISK_FULL
        }
        EngineError::Host(_) => PgSqlErrorCode::ERRCODE_IO_ERROR,
        _ => PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
    };
    ereport!(ERROR, code, format!("could not {what} in a fork"), reason);
}

pub(super) fn invalid(db: u32, reason: &str) -> ! {
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the fork with database OID {db} is invalid"),
        format!("{reason}; drop it with fork_drop")
    );
}
