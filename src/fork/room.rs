//! The disk floor (D14): no new forks below it, and forks end before the source runs out of space.

use crate::fork::files;
use crate::guc;
use crate::pg::disk;
use crate::shmem::load::invalidate;
use crate::shmem::registry::{self, ForkState, Slot, Use};
use crate::shmem::view;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

const GIGABYTE: u64 = 1 << 30;

/// The bytes missing to the floor on the filesystem of a tablespace; `None`: there is room.
fn missing(spc: u32) -> io::Result<Option<u64>> {
    let dir: PathBuf = files::tablespace_dir(spc);
    let (free, all) = disk::room(&dir)?;
    let floor = match guc::MIN_FREE_DISK.get() {
        -1 => (all / 20).min(GIGABYTE),
        megabytes => megabytes as u64 * 1024 * 1024,
    };
    Ok((free < floor).then(|| floor - free))
}

/// Raises 53100 if there is too little room for a fork of a source in this tablespace.
pub fn refuse_when_low(spc: u32) {
    for spc in BTreeSet::from([files::DEFAULT_TABLESPACE, spc]) {
        let Ok(Some(missing)) = missing(spc) else {
            continue;
        };
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_DISK_FULL,
            "not enough free disk space for a fork",
            "fork_create",
        )
        .set_detail(format!(
            "{missing} bytes more must be free before pg_fork.min_free_disk is reached."
        ))
        .set_hint("Drop forks with fork_drop, free space, or set pg_fork.min_free_disk lower.")
        .report(PgLogLevel::ERROR);
    }
}

/// The worker: below the floor the forks with the largest storage end, of equals the newest first.
pub fn tend() {
    release_invalid();
    loop {
        let low = files::tablespaces()
            .into_iter()
            .any(|spc| matches!(missing(spc), Ok(Some(_))));
        if !low {
            return;
        }
        let live = registry::all_forks().into_iter().map(|(fork, _)| fork);
        let live = live.filter(|fork| fork.state == ForkState::Ready);
        let Some(largest) = live.max_by_key(|fork| (storage(fork), fork.seq)) else {
            return;
        };
        invalidate(
            largest.oid,
            "the disk was about to be full (pg_fork.min_free_disk)",
        );
        release_invalid();
        crate::fork::merge::run();
        pgrx::check_for_interrupts!();
    }
}

fn storage(fork: &Slot) -> i64 {
    let layers = view::layers_needed(fork.oid).into_iter();
    files::storage(fork.oid) + layers.map(files::storage).sum::<i64>()
}

/// What an invalid fork has is of no use to anyone, nor its base: first it lets go of its layer, second its
/// files go.
fn release_invalid() {
    let invalid = |slot: &&Slot| {
        let reads = slot.is_fork() || slot.used == Use::Base;
        reads && slot.state == ForkState::Invalid && slot.layer != 0
    };
    let invalid: Vec<Slot> =
        registry::read(|table| table.iter().filter(invalid).copied().collect());
    for fork in invalid {
        registry::change(|table| {
            table.update(fork.oid, |slot| slot.layer = 0);
            table.update(fork.layer, |layer| {
                layer.forks = layer.forks.saturating_sub(1);
            });
        });
        files::remove_relations(fork.oid);
    }
}
