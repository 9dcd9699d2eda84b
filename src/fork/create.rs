//! `fork_create`: everything in the caller's transaction, nothing that grows with the database (D11).
#![allow(unsafe_code)] // calls into xact.c and utility.c

use crate::fork::heirs::{self, Note};
use crate::fork::{catalog, cut, files, frozen_ids, marks, pending, room, rows, standbys};
use crate::guc;
use crate::shmem::load::meta_of;
use crate::shmem::registry::{self, ForkState, Slot, Use};
use crate::stop_point;
use pg_fork_core::names;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::fs;
use std::io;

/// Forks the database. Returns the fork's name.
pub fn create(source: &str, fork: Option<&str>) -> String {
    // SAFETY: raise an error in a read-only transaction, in recovery, in a parallel worker.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(c"fork_create()".as_ptr());
        pg_sys::PreventCommandIfParallelMode(c"fork_create()".as_ptr());
        pg_sys::PreventCommandDuringRecovery(c"fork_create()".as_ptr());
    }
    standbys::refuse_unready();
    let source = catalog::find_source(source);
    stop_point::at("create-locked");
    refuse_invalid_source(&source);
    room::refuse_when_low(source.tablespace);
    let oid = catalog::new_oid();
    let heirs = heirs::of_new(&source);
    let name = reserve(&source, oid, fork, heirs.is_empty());
    // From here on the transaction's end takes care of the fork, however it ends.
    pending::on_commit_create(oid);
    stop_point::at("create-reserved");
    frozen_ids::hold(source.oid);
    let taken = cut::take_or_share(&source, oid);
    stop_point::at("create-cut");
    if let Err(error) = make_files(&source, oid, &taken.layer) {
        catalog::io_error("could not create the fork's files", &error);
    }
    stop_point::at("create-files");
    rows::insert(&source, oid, &name, &Note::new(heirs), &taken.layer);
    frozen_ids::release(source.oid);
    refuse_invalid(oid);
    stop_point::at("create-row");
    // SAFETY: sets a flag of this transaction: a fork that was reported is on disk (as createdb).
    unsafe { pg_sys::ForceSyncCommit() };
    name
}

/// Raises 55000 if the source is a fork that is invalid: a fork of it would be, too.
fn refuse_invalid_source(source: &catalog::Source) {
    let invalid = |slot: &Slot| slot.state == ForkState::Invalid;
    if let Some(slot) = registry::fork(source.oid).filter(invalid) {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("cannot fork \"{}\": it is an invalid fork", source.name),
            "fork_create",
        )
        .set_detail(slot.reason())
        .set_hint("Drop it with fork_drop, and fork what it was forked from.")
        .report(PgLogLevel::ERROR);
    }
}

/// What went wrong for the fork in other processes since its cut: raises 53100 or 58030.
fn refuse_invalid(oid: u32) {
    let Some(slot) = registry::fork(oid).filter(|slot| slot.state == ForkState::Invalid) else {
        return;
    };
    let reason = slot.reason();
    let code = if reason.contains("No space left") {
        PgSqlErrorCode::ERRCODE_DISK_FULL
    } else {
        PgSqlErrorCode::ERRCODE_IO_ERROR
    };
    ereport!(ERROR, code, "could not create the fork", reason);
}

/// Takes a slot and a name. Raises 53400 if there are too many forks, 42P04 if the name is taken.
fn reserve(source: &catalog::Source, oid: u32, wanted: Option<&str>, settled: bool) -> String {
    let mut slot = Slot::empty();
    slot.used = Use::Fork;
    slot.state = ForkState::Creating;
    slot.marked = 1;
    slot.heirs = if settled { heirs::SETTLED } else { 0 };
    slot.space = registry::new_empty_space();
    (slot.oid, slot.source, slot.tablespace) = (oid, source.oid, source.tablespace);
    // Names that are taken cost a look each: begin where they are likely to end.
    let mut number = registry::count_forks_of(source.oid) as u64 + 1;
    loop {
        let name = match wanted {
            Some(name) => name.to_string(),
            None => names::default_name(&source.name, number),
        };
        if catalog::database_oid(&name).is_some() {
            if wanted.is_some() {
                taken(&name);
            }
            number += 1;
            continue;
        }
        slot.set_name(&name);
        let placed = registry::touch(|table| {
            // A row that commits at this moment may not be seen yet, but its slot is. For a name of our
            // own choice a fork that was renamed since only costs a number.
            let in_the_way = |slot: &Slot| match slot.state {
                ForkState::Creating => true,
                ForkState::Dropping => false,
                _ => wanted.is_none(),
            };
            let mut live = 0;
            for slot in table.view().iter().filter(|slot| slot.is_fork()) {
                if in_the_way(slot) && slot.is_named(&name) {
                    return None;
                }
                live += usize::from(slot.state != ForkState::Dropping);
            }
            if live >= guc::MAX_FORKS.get() as usize {
                return Some(false);
            }
            Some(table.insert(slot))
        });
        match placed {
            Some(true) => return name,
            Some(false) => catalog::too_many(),
            // Another transaction is about to commit a fork of that name.
            None if wanted.is_some() => taken(&name),
            None => number += 1,
        }
    }
}

fn taken(name: &str) -> ! {
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_DUPLICATE_DATABASE,
        format!("database \"{name}\" already exists")
    );
}

/// The fork's folder, and the few files that a database needs before its first relation. Nothing is
/// synced: the mark tells that.
fn make_files(source: &catalog::Source, oid: u32, layer: &Slot) -> io::Result<()> {
    let spc = source.tablespace;
    files::ensure_dir(oid, files::DEFAULT_TABLESPACE)?;
    marks::put(oid)?;
    if spc != files::DEFAULT_TABLESPACE {
        files::ensure_dir(oid, spc)?;
    }
    files::ensure_version_file(files::DEFAULT_TABLESPACE)?;
    files::ensure_version_file(spc)?;
    files::link_version(oid, spc)?;
    let from = files::real_dir(layer.oid, files::DEFAULT_TABLESPACE);
    let to = files::real_dir(oid, spc);
    files::write_private(
        &to.join("pg_filenode.map"),
        &fs::read(from.join("pg_filenode.map"))?,
    )?;
    let _ = fs::hard_link(from.join("pg_internal.init"), to.join("pg_internal.init"));
    let slot = registry::fork(oid);
    stop_point::at("create-half");
    // Last: a folder without this file is a creation cut short.
    files::write_meta(&meta_of(&slot.ok_or(io::ErrorKind::NotFound)?), false)
}
