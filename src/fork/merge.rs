//! Layers that no fork was cut at any more: removed, or merged into the one before (D12).
//!
//! Only the worker does this. A layer but the newest gets no new pre-images: whoever still writes to
//! it saw the registry before the next cut, which waited for his write or saved the block itself
//! (capture.rs), so he writes what is there already.

use crate::fork::{catalog, files};
use crate::shmem::registry::{self, ForkState, Slot};
use crate::smgr::host::Server;
use pg_fork_core::engine::{self, EngineError};
use pg_fork_core::topology::Layer;
use pg_fork_core::types::{RelFork, HANDED};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

/// What is to become of a dead layer.
enum Fate {
    Remove(Slot),
    Merge { from: Slot, into: Slot },
}

/// Does what is to be done now.
pub fn run() {
    for fate in fates() {
        match fate {
            Fate::Remove(layer) => remove(layer.oid),
            Fate::Merge { from, into } => match merge(&from, &into) {
                Ok(()) => remove(from.oid),
                // It stays, and so does all that it holds: nobody loses anything.
                Err(error) => pgrx::log!(
                    "pg_fork: could not merge layer {} into layer {}: {error:?}",
                    from.oid,
                    into.oid
                ),
            },
        }
        pgrx::check_for_interrupts!();
    }
}

fn fates() -> Vec<Fate> {
    let mut sources: BTreeMap<u32, Vec<Slot>> = BTreeMap::new();
    registry::read(|table| {
        for layer in table.iter().filter(|slot| slot.is_layer()) {
            sources.entry(layer.source).or_default().push(*layer);
        }
    });
    let mut fates = Vec::new();
    for layers in sources.values_mut() {
        layers.sort_by_key(|layer| layer.seq);
        // A cut that may yet be taken back does not count: the one before would be the newest again.
        let sealed = layers.iter().rposition(|layer| layer.state == ForkState::Ready);
        let live = layers.iter().position(|layer| layer.forks > 0);
        let mut into = None;
        for (at, layer) in layers.iter().enumerate() {
            let dead = layer.forks == 0 && layer.state == ForkState::Ready;
            if dead && live.is_none_or(|live| at < live) {
                fates.push(Fate::Remove(*layer));
            } else if dead && sealed.is_some_and(|sealed| at < sealed) {
                // In order: a run of dead layers all go into the live one before them.
                fates.extend(into.map(|into| Fate::Merge {
                    from: *layer,
                    into,
                }));
            } else {
                into = Some(*layer);
            }
        }
    }
    fates
}

/// First out of the registry, because then nobody looks for it; second its files. A fork may be
/// sharing the newest cut at this moment, so that is looked at again under the lock.
fn remove(oid: u32) {
    let removed = registry::change(|table| {
        let dead = table.view().get(oid).is_some_and(|slot| slot.forks == 0);
        dead && table.remove(oid).is_some()
    });
    if removed {
        catalog::forget_files(oid);
        files::remove(oid, true);
    }
}

fn merge(from: &Slot, into: &Slot) -> Result<(), EngineError<io::Error>> {
    let [from, into] = [from, into].map(|slot| Layer {
        oid: slot.oid,
        space: slot.space,
        seq: slot.seq,
        cut_lsn: slot.cut_lsn,
        in_flight: slot.in_flight > 0,
    });
    for rel in relations(from.oid)? {
        engine::merge(&Server, &from, &into, rel)?;
    }
    Ok(())
}

/// The relation forks that a layer has a map of.
fn relations(oid: u32) -> io::Result<BTreeSet<RelFork>> {
    let mut found = BTreeSet::new();
    for spc in files::tablespaces() {
        let entries = match fs::read_dir(files::real_dir(oid, spc)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let rel = entry?.file_name().to_str().and_then(|name| files::parse_map(spc, name));
            found.extend(rel.filter(|rel| rel.fork & HANDED == 0));
        }
    }
    Ok(found)
}
