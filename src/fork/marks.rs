//! Marks: a file in the folder of each fork and layer that may not be on disk as a whole.
//!
//! Nothing that a fork needs is synced while anyone waits. After a crash of the machine a fork that
//! bears a mark, or reads from a layer that does, is invalid. A mark goes when a checkpoint that
//! began after all that it stands for has ended: that has synced the files (sync.c). It comes back,
//! and is synced itself, before the next pre-image is written.

use crate::fork::files;
use crate::fork::start::Control;
use crate::pg::lwlock::{hold, Held, Which};
use crate::pg::process;
use crate::shmem;
use crate::shmem::registry::{self, ForkState, Slot};
use crate::shmem::view;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Places for the WAL positions of the last pre-images; layers share them.
pub const PLACES: usize = 1024;

fn path(oid: u32) -> PathBuf {
    files::real_dir(oid, files::DEFAULT_TABLESPACE).join("pgsql_tmp_unsynced")
}

/// Marks a new folder. Not synced: the folder is not either.
pub fn put(oid: u32) -> io::Result<()> {
    files::link_or(&Path::new(files::ROOT).join("mark"), &path(oid), |path| {
        File::create(path).map(drop)
    })
}

/// Whether the folder bears a mark.
pub fn is_marked(oid: u32) -> bool {
    path(oid).exists()
}

/// Whether the fork, one that it was forked from, or a layer that it reads bears a mark.
pub fn any(fork: u32) -> bool {
    let mut at = Some(fork);
    while let Some(oid) = at {
        if is_marked(oid) {
            return true;
        }
        at = registry::fork(oid)
            .map(|slot| slot.source)
            .filter(|source| registry::fork(*source).is_some());
    }
    view::layers_needed(fork).into_iter().any(is_marked)
}

fn touched(oid: u32) -> Option<&'static AtomicU64> {
    Some(&shmem::shared()?.touched[oid as usize % PLACES])
}

thread_local! {
    /// The layer that this process holds.
    static HOLDS: Cell<u32> = const { Cell::new(0) };
}

/// A layer that bears a mark as long as this is held; or nothing.
pub struct HeldLayer(Option<Held>);

impl Drop for HeldLayer {
    fn drop(&mut self) {
        if self.0.is_some() {
            HOLDS.set(0);
        }
    }
}

/// To be held while a layer's file is changed: it bears a mark then. Nothing is held for what is no
/// layer in the registry, or is held already.
pub fn hold_layer(oid: u32) -> io::Result<HeldLayer> {
    if HOLDS.get() == oid || !shmem::any_live() {
        return Ok(HeldLayer(None));
    }
    loop {
        let held = hold(Which::Marks, false);
        let marked = registry::read(|table| {
            let layer = table.get(oid).filter(|slot| slot.is_layer());
            layer.map(|layer| layer.marked != 0)
        });
        match marked {
            None => return Ok(HeldLayer(None)),
            Some(true) => {
                // In recovery the worker's start counts instead.
                if let (Some(touched), false) = (touched(oid), process::in_recovery()) {
                    touched.fetch_max(process::wal_position(), Ordering::SeqCst);
                }
                HOLDS.set(oid);
                return Ok(HeldLayer(Some(held)));
            }
            Some(false) => {
                drop(held);
                mark_again(oid)?;
            }
        }
    }
}

fn mark_again(oid: u32) -> io::Result<()> {
    let _held = hold(Which::Marks, true);
    if registry::slot(oid).is_none_or(|slot| slot.marked != 0) {
        return Ok(());
    }
    File::create(path(oid))?.sync_all()?;
    files::sync_dir(&files::real_dir(oid, files::DEFAULT_TABLESPACE))?;
    crate::stop_point::at("mark-again");
    registry::touch(|table| table.update(oid, |slot| slot.marked = 1));
    Ok(())
}

/// Before a cut: the newest layer of the source bears a mark until [`after_cut`], and after that until
/// the new one is on disk. A crash of the machine may leave no trace of the new layer, but older
/// forks read it too.
pub fn before_cut(source: u32) -> io::Result<Option<u32>> {
    let newest = registry::read(|table| {
        let layers = table.group(source).filter(|slot| slot.is_layer());
        layers.max_by_key(|slot| slot.seq).copied()
    });
    let Some(newest) = newest else {
        return Ok(None);
    };
    if let Some(touched) = touched(newest.oid) {
        touched.store(u64::MAX, Ordering::SeqCst);
    }
    mark_again(newest.oid)?;
    Ok(Some(newest.oid))
}

/// The new layer is in the registry. A cut that fails never gets here: a mark too many does no harm.
pub fn after_cut(previous: Option<u32>) {
    if let Some(touched) = previous.and_then(touched) {
        touched.store(process::wal_position(), Ordering::SeqCst);
    }
}

/// Whether a later layer of the same source may leave no trace of itself.
fn followed_by_unsynced(layer: &Slot) -> bool {
    layer.is_layer()
        && registry::read(|table| {
            let mut later = table.group(layer.source).filter(|slot| slot.is_layer());
            later.any(|slot| slot.seq > layer.seq && slot.synced == 0)
        })
}

/// The worker's start: what recovery did came before this.
pub fn begin() {
    for touched in shmem::shared()
        .into_iter()
        .flat_map(|shared| &shared.touched)
    {
        touched.fetch_max(process::wal_position(), Ordering::SeqCst);
    }
}

/// Syncs the folders that are new, each with what it had in it at first. Whether that was all of them: when
/// the time is up the rest is for later.
fn sync_new(slots: &[Slot], until: Option<Instant>) -> bool {
    let new = slots.iter().filter(|slot| slot.synced == 0);
    let (mut synced, mut all) = (Vec::new(), true);
    for slot in new {
        if until.is_some_and(|until| Instant::now() > until) {
            all = false;
            break;
        }
        let done = files::sync_folder(slot.oid, slot.tablespace);
        if let Err(error) = &done {
            let oid = slot.oid;
            pgrx::log!("pg_fork: could not sync the folder of {oid}: {error}");
        } else {
            synced.push(slot);
        }
    }
    if synced.is_empty() {
        return all;
    }
    let places: BTreeSet<u32> = synced.iter().map(|slot| slot.tablespace).collect();
    if let Err(error) = files::sync_places(places) {
        pgrx::log!("pg_fork: could not sync the folders of forks' folders: {error}");
        return all;
    }
    registry::touch(|table| {
        for slot in synced {
            table.update(slot.oid, |slot| slot.synced = 1);
        }
    });
    all
}

/// The worker's end, before the last checkpoint: after it forks with marks are good too.
pub fn end() {
    let slots: Vec<Slot> = registry::read(|table| table.iter().copied().collect());
    sync_new(&slots, None);
}

/// How long the worker syncs before it pauses: each sync is in the way of somebody's commit.
const SPELL: Duration = Duration::from_millis(10);

/// The worker: syncs the folders of new forks and layers, and takes away the marks that are not
/// needed any more. Whether that was all there is to do.
pub fn tend() -> bool {
    // What is not all there yet cannot be synced. A layer whose cut failed is there.
    let marked = |slot: &&Slot| {
        let there = match slot.state {
            ForkState::Ready => true,
            ForkState::Invalid => slot.is_layer(),
            _ => false,
        };
        slot.marked != 0 && there
    };
    let mut slots: Vec<Slot> =
        registry::read(|table| table.iter().filter(marked).copied().collect());
    if slots.is_empty() {
        return true;
    }
    let Ok(Control { redo, .. }) = Control::read() else {
        return true;
    };
    // Not before a checkpoint that began after the cut has ended: until then the mark stays in any
    // case, most forks do not live that long, and each sync is in the way of somebody's commit.
    slots.retain(|slot| redo > slot.cut_lsn);
    let all = sync_new(&slots, Some(Instant::now() + SPELL));
    for slot in slots.iter().filter(|slot| slot.synced != 0) {
        let last = match touched(slot.oid) {
            Some(touched) if slot.is_layer() => touched,
            _ => &AtomicU64::new(0),
        };
        if redo <= last.load(Ordering::SeqCst) {
            continue;
        }
        let _held = hold(Which::Marks, true);
        let clean = redo > last.load(Ordering::SeqCst) && !followed_by_unsynced(slot);
        if clean && fs::remove_file(path(slot.oid)).is_ok() {
            registry::touch(|table| table.update(slot.oid, |slot| slot.marked = 0));
        }
    }
    all
}
