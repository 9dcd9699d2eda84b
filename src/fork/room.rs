//! The disk floor (D14): no new forks below it, and forks end before the source runs out of space.

use crate::fork::{cost, files, merge};
use crate::guc;
use crate::pg::disk;
use crate::shmem::load::invalidate;
use crate::shmem::registry::{self, ForkState, Slot, Use};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const GIGABYTE: u64 = 1 << 30;

/// The folders on whose filesystems forks of a tablespace, and what they are forked from, lie.
fn places(spc: u32) -> [PathBuf; 2] {
    [files::tablespace_dir(spc), files::root_dir(spc)]
}

/// The bytes missing to the floor on the filesystem of a folder; `None`: there is room.
fn missing(dir: &Path) -> io::Result<Option<u64>> {
    let (free, all) = disk::room(dir)?;
    let floor = floor(all);
    Ok((free < floor).then(|| floor - free))
}

/// The floor of a filesystem of this size.
fn floor(all: u64) -> u64 {
    match guc::MIN_FREE_DISK.get() {
        -1 => (all / 20).min(GIGABYTE),
        megabytes => megabytes as u64 * 1024 * 1024,
    }
}

/// The filesystems that are below the floor, each with the bytes that are missing.
fn low() -> BTreeMap<u64, u64> {
    let dirs = files::tablespaces().into_iter().flat_map(places);
    let low = dirs.filter_map(|dir| {
        let device = fs::metadata(&dir).ok()?.dev();
        Some((device, missing(&dir).ok()??))
    });
    low.collect()
}

/// Whether there is so little room on a filesystem that this many bytes more would be below the floor.
pub fn is_low_for(dir: &Path, bytes: u64) -> bool {
    disk::room(dir).is_ok_and(|(free, all)| free < floor(all) + bytes)
}

/// Raises 53100 if there is too little room for a fork of a source in this tablespace.
pub fn refuse_when_low(spc: u32) {
    let spaces = BTreeSet::from([files::DEFAULT_TABLESPACE, spc]);
    for dir in spaces.into_iter().flat_map(places) {
        let Ok(Some(missing)) = missing(&dir) else {
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

/// The worker: where a filesystem is below the floor, forks end whose end gives room there: those with the most
/// first, of equals the newest. Others have nothing to give, and stay.
pub fn tend() {
    release_invalid();
    let mut hopeless = BTreeSet::new();
    loop {
        let low = low();
        let mut low = low
            .into_iter()
            .filter(|(device, _)| !hopeless.contains(device));
        let Some((device, missing)) = low.next() else {
            return;
        };
        let (mut freed, mut ended) = (0, 0);
        for end in cost::ends(device) {
            if freed >= missing as i64 {
                break;
            }
            // It may have ended with the one that it was forked from.
            if registry::fork(end.fork).is_some_and(|fork| fork.state == ForkState::Ready) {
                let reason = "the disk was about to be full (pg_fork.min_free_disk)";
                invalidate(end.fork, reason);
                (freed, ended) = (freed + end.freed, ended + 1);
            }
            pgrx::check_for_interrupts!();
        }
        if ended == 0 {
            hopeless.insert(device);
        }
        release_invalid();
        merge::remove_dead();
    }
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
