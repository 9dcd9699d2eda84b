//! Layers that no fork was cut at any more: removed, or merged into the one before (D12).
//!
//! Only the worker does this. A layer but the newest gets no new pre-images: whoever still writes to
//! it saw the registry before the next cut, which waited for his write (capture.rs).

use crate::fork::files::SEGMENT_BLOCKS;
use crate::fork::{catalog, files, room};
use crate::pg::disk;
use crate::shmem::registry::{self, Slot};
use crate::shmem::{self, view};
use crate::smgr::handles;
use crate::smgr::host::Server;
use crate::stop_point;
use pg_fork_core::engine::{self, EngineError, FileOf};
use pg_fork_core::topology::{fates, Fate, Layer, LayerLife};
use pg_fork_core::types::{Block, RelFork, HANDED, PAGE_SIZE};
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
    /// When this spell of merging ends.
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
    /// The merge that was begun last, if it is not done.
    static PROGRESS: Cell<Option<Progress>> = const { Cell::new(None) };
}

/// A merge that is under way: its relations are done from the last to the first.
struct Progress {
    from: u32,
    into: u32,
    left: Vec<RelFork>,
    next: Block,
}

/// How long the worker merges before it looks what else there is to do.
const SPELL: Duration = Duration::from_millis(50);
/// What is to be free above the disk floor.
const RESERVE: u64 = 32 << 20;
/// Between two such looks.
const LOOK: Duration = Duration::from_secs(5);
/// Longer than any process takes between its look at the registry and its write.
const LATE: Duration = Duration::from_secs(60);

/// Does what is to be done now, for a while. Whether that was all.
pub fn run() -> bool {
    remove_latecomers();
    UNTIL.set(Some(Instant::now() + SPELL));
    let mut done = true;
    for_each_fate(|layers, fate| match fate {
        Fate::Remove(oid) => {
            remove(oid);
            true
        }
        Fate::Merge { from, into } => {
            let merged = merge(layers, from, into);
            done &= merged != Merged::Begun;
            // Else a later layer's pages would be taken for those of this one.
            merged == Merged::All
        }
    });
    done
}

/// Removes what nobody reads. Merges take room, for a while.
pub fn remove_dead() {
    for_each_fate(|_, fate| {
        if let Fate::Remove(oid) = fate {
            remove(oid);
        }
        true
    });
}

/// What is to become of the dead layers of each source, in order, as long as `decide` says to go on with that
/// source.
fn for_each_fate(mut decide: impl FnMut(&[Slot], Fate) -> bool) {
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
            pgrx::check_for_interrupts!();
            if !decide(layers, fate) {
                break;
            }
        }
    }
}

fn life(slot: &Slot) -> LayerLife {
    LayerLife {
        oid: slot.oid,
        live: slot.forks > 0,
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

/// How far a merge has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Merged {
    All,
    /// There is more to do.
    Begun,
    /// It has to wait.
    Stuck,
}

/// Merges a layer into the one before, for a while.
fn merge(layers: &[Slot], from: u32, into: u32) -> Merged {
    let slot = |oid| layers.iter().find(|layer| layer.oid == oid);
    let (Some(from), Some(into)) = (slot(from), slot(into)) else {
        return Merged::Stuck;
    };
    if is_over() {
        return Merged::Begun;
    }
    if !has_room(from.oid) {
        return Merged::Stuck;
    }
    match merge_some(&view::layer(from), &view::layer(into)) {
        Ok(false) => Merged::Begun,
        Ok(true) => {
            // Before it is removed, because who does not find it any more must look anew where its bits
            // are now.
            count_merge();
            stop_point::at("merge-done");
            remove(from.oid);
            Merged::All
        }
        // It stays, and so does all that it holds: nobody loses anything.
        Err(error) => {
            pgrx::log!(
                "pg_fork: could not merge layer {} into layer {}: {error:?}",
                from.oid,
                into.oid
            );
            Merged::Stuck
        }
    }
}

/// Goes on with the merge where it stopped. Whether it is done.
fn merge_some(from: &Layer, into: &Layer) -> Result<bool, EngineError<io::Error>> {
    let same = |at: &Progress| at.from == from.oid && at.into == into.oid;
    let mut at = match PROGRESS.take().filter(same) {
        Some(at) => at,
        None => Progress {
            from: from.oid,
            into: into.oid,
            left: relations(from.oid)?.into_iter().collect(),
            next: 0,
        },
    };
    while let Some(rel) = at.left.last() {
        match engine::merge(&Server, from, into, *rel, at.next)? {
            Some(next) => at.next = next,
            None => {
                at.left.pop();
                at.next = 0;
            }
        }
        pgrx::check_for_interrupts!();
        if is_over() && !at.left.is_empty() {
            PROGRESS.set(Some(at));
            return Ok(false);
        }
    }
    Ok(true)
}

/// Pages of a layer that is being merged are in the other one. Whether to go on.
///
/// First the number of merges, because summaries are made anew then; second the generation, because who looked for a
/// page before looks again then (engine, `read_inherited`); third the pages go, so that a merge never takes the
/// room twice.
pub fn tell_merged(from: FileOf, blocks: &[Block]) -> io::Result<bool> {
    count_merge();
    registry::change(|_| ());
    stop_point::at("merge-told");
    for run in blocks.chunk_by(|a, b| a + 1 == *b && b % SEGMENT_BLOCKS != 0) {
        let segment = run[0] / SEGMENT_BLOCKS;
        let [offset, len] =
            [run[0] % SEGMENT_BLOCKS, run.len() as u32].map(|n| u64::from(n) * PAGE_SIZE as u64);
        if let Some(file) = handles::open(from.oid, from.rel, segment, false)? {
            disk::give_back(&file, offset, len)?;
        }
    }
    pgrx::check_for_interrupts!();
    Ok(!is_over() && has_room(from.oid))
}

fn count_merge() {
    if let Some(shared) = shmem::shared() {
        shared.merges.fetch_add(1, Ordering::SeqCst);
    }
}

fn is_over() -> bool {
    UNTIL.get().is_none_or(|until| Instant::now() > until)
}

/// Whether there is room for what a merge takes before it gives that back.
fn has_room(layer: u32) -> bool {
    files::tablespaces().into_iter().all(|spc| {
        let dir = files::real_dir(layer, spc);
        !dir.exists() || !room::is_low_for(&dir, RESERVE)
    })
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
