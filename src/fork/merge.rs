//! Layers that no fork was cut at any more: removed, or merged into the one before (D12).
//!
//! Only the worker does this. A layer but the newest gets no new pre-images: whoever still writes to
//! it saw the registry before the next cut, which waited for his write (capture.rs).

use crate::fork::{catalog, files};
use crate::shmem::registry::{self, Slot};
use crate::shmem::{self, view};
use crate::smgr::host::Server;
use crate::stop_point;
use pg_fork_core::engine::{self, EngineError};
use pg_fork_core::topology::{fates, Fate, Layer, LayerLife};
use pg_fork_core::types::{RelFork, HANDED};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

thread_local! {
    /// Layers removed lately, and when.
    static REMOVED: RefCell<Vec<(u32, Instant)>> = const { RefCell::new(Vec::new()) };
    /// When [`remove_latecomers`] looked last.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}
/// Between two such looks.
const LOOK: Duration = Duration::from_secs(5);
/// Longer than any process takes between its look at the registry and its write.
const LATE: Duration = Duration::from_secs(60);

/// Does what is to be done now.
pub fn run() {
    remove_latecomers();
    let mut sources: BTreeMap<u32, Vec<Slot>> = BTreeMap::new();
    registry::read(|table| {
        for layer in table.iter().filter(|slot| slot.is_layer()) {
            sources.entry(layer.source).or_default().push(*layer);
        }
    });
    for layers in sources.values_mut() {
        layers.sort_by_key(|layer| layer.seq);
        let lives: Vec<LayerLife> = layers.iter().map(life).collect();
        for fate in fates(&lives) {
            decide(layers, fate);
            pgrx::check_for_interrupts!();
        }
    }
}

fn life(slot: &Slot) -> LayerLife {
    LayerLife {
        oid: slot.oid,
        live: slot.forks > 0,
    }
}

fn decide(layers: &[Slot], fate: Fate) {
    let slot = |oid| layers.iter().find(|layer| layer.oid == oid);
    match fate {
        Fate::Remove(oid) => remove(oid),
        Fate::Merge { from, into } => {
            let (Some(from), Some(into)) = (slot(from), slot(into)) else {
                return;
            };
            match merge(&view::layer(from), &view::layer(into)) {
                Ok(()) => {
                    // Before it is removed, because who does not find it any more must look anew where
                    // its bits are now.
                    if let Some(shared) = shmem::shared() {
                        shared.merges.fetch_add(1, Ordering::SeqCst);
                    }
                    stop_point::at("merge-done");
                    remove(from.oid);
                }
                // It stays, and so does all that it holds: nobody loses anything.
                Err(error) => pgrx::log!(
                    "pg_fork: could not merge layer {} into layer {}: {error:?}",
                    from.oid,
                    into.oid
                ),
            }
        }
    }
}

/// First out of the registry, because then nobody looks for it; second its files. A fork may be
/// sharing the newest cut at this moment, so that is looked at again under the lock.
fn remove(oid: u32) {
    let removed = registry::change(|table| {
        let dead = table.view().get(oid).is_some_and(|slot| slot.forks == 0);
        dead && table.remove(oid).is_some()
    });
    if removed {
        stop_point::at("layer-removed");
        catalog::forget_files(oid);
        files::remove(oid, true);
        REMOVED.with_borrow_mut(|removed| removed.push((oid, Instant::now())));
    }
}

/// Who found the layer in the registry just before may have written to it while its files went, or
/// made its folder anew. Looked for now and then only: there may be thousands of such layers.
fn remove_latecomers() {
    let now = Instant::now();
    if LOOKED.get().is_some_and(|last| now - last < LOOK) {
        return;
    }
    LOOKED.set(Some(now));
    let spaces = files::tablespaces();
    REMOVED.with_borrow_mut(|removed| {
        removed.retain(|(oid, since)| {
            if registry::slot(*oid).is_some() {
                return false;
            }
            let gone = !files::is_anywhere(*oid, &spaces) || files::remove(*oid, true);
            !gone || since.elapsed() < LATE
        });
    });
}

fn merge(from: &Layer, into: &Layer) -> Result<(), EngineError<io::Error>> {
    for rel in relations(from.oid)? {
        engine::merge(&Server, from, into, rel)?;
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
            let rel = entry?
                .file_name()
                .to_str()
                .and_then(|name| files::parse_map(spc, name));
            found.extend(rel.filter(|rel| rel.fork & HANDED == 0));
        }
    }
    Ok(found)
}
