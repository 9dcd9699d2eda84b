//! A fork's base: the database as it was at the fork's cut, to read beside the fork as it is now.
//!
//! A sibling of the fork at the same cut, made when it is first asked for and gone with the fork. It has
//! no row in pg_database and no `meta` file: the next start removes it, and its number is a new one then.

use crate::fork::{catalog, files};
use crate::shmem::registry::{self, ForkState, Slot, Use};
use pgrx::prelude::*;
use std::fs;
use std::io;

/// The base's number, if there is one.
pub fn of(fork: u32) -> Option<u32> {
    let fork = registry::fork(fork)?;
    (fork.twin != 0).then_some(fork.twin)
}

/// The base's number; makes it if there is none. The caller's lock keeps the fork from being dropped.
///
/// Raises 53400 (no room in the registry), 55000 (the fork is invalid) or 58030 (its files could not be made).
pub fn ensure(fork: &Slot) -> u32 {
    if let Some(base) = of(fork.oid) {
        return base;
    }
    let oid = catalog::new_oid();
    if let Err(error) = make_files(fork, oid) {
        files::remove(oid, true);
        catalog::io_error("could not create the files of the fork's base", &error);
    }
    let mut base = Slot::empty();
    (base.used, base.state) = (Use::Base, ForkState::Ready);
    (base.oid, base.twin, base.source, base.layer) = (oid, fork.oid, fork.source, fork.layer);
    (base.tablespace, base.space) = (fork.tablespace, registry::new_empty_space());
    (base.seq, base.cut_lsn, base.cut_time) = (fork.seq, fork.cut_lsn, fork.cut_time);
    let placed = registry::change(|table| {
        let now = table.view().get(fork.oid).copied();
        match now.map(|slot| slot.twin) {
            // It lets go of its layer.
            Some(0) if now.is_some_and(|slot| slot.state == ForkState::Invalid) => None,
            Some(0) if table.insert(base) => {
                table.update(fork.oid, |slot| slot.twin = oid);
                table.update(fork.layer, |layer| layer.forks += 1);
                Some(oid)
            }
            // Someone else was faster, or there is no room.
            twin => twin.filter(|twin| *twin != 0),
        }
    });
    if placed != Some(oid) {
        files::remove(oid, true);
    }
    let invalid = || of_invalid(fork.oid);
    placed
        .or_else(invalid)
        .unwrap_or_else(|| catalog::too_many())
}

/// Raises 55000 if the fork became invalid meanwhile.
fn of_invalid(fork: u32) -> Option<u32> {
    let slot = registry::fork(fork).filter(|slot| slot.state == ForkState::Invalid)?;
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the fork became invalid",
        slot.reason()
    );
}

/// What a session needs to work in it. Nothing of it has to outlive the server.
fn make_files(fork: &Slot, oid: u32) -> io::Result<()> {
    let spc = fork.tablespace;
    files::ensure_dir(oid, files::DEFAULT_TABLESPACE)?;
    files::ensure_dir(oid, spc)?;
    files::ensure_version_file(spc)?;
    files::link_version(oid, spc)?;
    let from = files::real_dir(fork.layer, files::DEFAULT_TABLESPACE);
    let map = fs::read(from.join("pg_filenode.map"))?;
    files::write_private(&files::real_dir(oid, spc).join("pg_filenode.map"), &map)
}
