//! One try of a cut: everyone stopped, the dirty pages copied, the new layer made known, everyone let go.
#![allow(unsafe_code)] // reads the server's state

use crate::fork::peers::Moved;
use crate::fork::running::Known;
use crate::fork::stopping::Published;
use crate::fork::{capture, catalog, files, marks, pool};
use crate::guc;
use crate::pg::arena::Arena;
use crate::pg::process::Peer;
use crate::shmem::load::meta_of;
use crate::shmem::registry::{self, ForkState, Slot, Use};
use crate::shmem::{self, stats};
use crate::smgr::handles;
use crate::stop_point;
use pg_fork_core::table::TableMut;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The new layer's folder. Removed if the layer never gets into the registry, by an error too; from
/// then on the source may write to it what older forks need, so it stays, whatever becomes of the cut.
pub(super) struct LayerDir {
    oid: u32,
    /// Something may be in it.
    pub(super) used: bool,
    stays: bool,
}

impl LayerDir {
    pub(super) fn new(source: &catalog::Source) -> Self {
        let oid = catalog::new_oid();
        let dir = LayerDir {
            oid,
            used: false,
            stays: false,
        };
        let made = files::ensure_dir(oid, files::DEFAULT_TABLESPACE).and_then(|()| marks::put(oid));
        // Before others know of the layer, because what the source writes to it must survive a crash: older
        // forks read it too, and need no more of it than this. The rest is for forks of this cut.
        let made = made.and_then(|()| {
            let mut layer = new_layer(oid, source);
            layer.seq = next_seq();
            files::write_meta(&meta_of(&layer), false)
        });
        if let Err(error) = made {
            catalog::io_error("could not create a directory for the cut", &error);
        }
        stop_point::at("cut-meta");
        dir
    }
}

fn new_layer(oid: u32, source: &catalog::Source) -> Slot {
    let mut layer = Slot::empty();
    layer.used = Use::Layer;
    (layer.forks, layer.marked) = (1, 1);
    (layer.oid, layer.source, layer.tablespace) = (oid, source.oid, source.tablespace);
    layer
}

fn next_seq() -> u64 {
    shmem::shared().map_or(0, |shared| {
        shared.next_seq.fetch_add(1, Ordering::SeqCst) + 1
    })
}

impl Drop for LayerDir {
    fn drop(&mut self) {
        if !self.stays {
            catalog::forget_files(self.oid);
            handles::forget_all();
            files::remove(self.oid, true);
        }
    }
}

pub(super) enum Failed {
    NotStopped(Vec<Peer>),
    /// Someone has come to the source, or left it, who was not stopped.
    Unseen,
    /// There was no time to look through the buffer pool, or for a write that was under way.
    Pool,
    /// There was no time to ask how many subtransactions have ended.
    Subtransactions,
    TooLong {
        pages: usize,
    },
    Io(io::Error),
}

impl Failed {
    pub(super) fn describe(&self) -> String {
        match self {
            Failed::NotStopped(peers) => {
                let waits: Vec<_> = peers
                    .iter()
                    .map(|peer| format!("{} in {:08X}", peer.pid, peer.wait_event))
                    .collect();
                format!("not stopped: {}", waits.join(", "))
            }
            Failed::Unseen => "someone came or left".into(),
            Failed::Pool => "no time for the buffer pool".into(),
            Failed::Subtransactions => "no time for the commit log".into(),
            Failed::TooLong { pages } => format!("{pages} dirty pages are too many for one pause"),
            Failed::Io(error) => error.to_string(),
        }
    }
}

impl From<Moved> for Failed {
    fn from(moved: Moved) -> Self {
        match moved {
            Moved::Peers(peers) => Failed::NotStopped(peers),
            Moved::Unseen => Failed::Unseen,
        }
    }
}

pub(super) fn join(table: &mut TableMut<Slot>, fork: u32, layer: &Slot) {
    table.update(fork, |slot| {
        slot.layer = layer.oid;
        slot.seq = layer.seq;
        slot.cut_lsn = layer.cut_lsn;
        slot.cut_time = layer.cut_time;
    });
}

/// A layer that others know of, but whose captured pages are not on file. If it comes to that, it becomes
/// one of a cut that failed: one like any other that no fork was cut at.
struct Unfinished {
    layer: u32,
    fork: u32,
}

impl Unfinished {
    fn finish(self, write_out: bool) {
        registry::touch(|table| {
            table.update(self.layer, |slot| {
                slot.state = ForkState::Ready;
                slot.write_out = write_out.into();
            })
        });
        std::mem::forget(self);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        registry::change(|table| {
            table.update(self.layer, |slot| {
                slot.state = ForkState::Invalid;
                slot.forks = 0;
            });
            join(table, self.fork, &Slot::empty());
        });
    }
}

/// The files of the source that a cut copies or links.
struct SmallFiles {
    from: PathBuf,
    keep: PathBuf,
    /// The file that was linked, by its number: no other has that while there is the link.
    linked: Option<u64>,
}

const MAP: &str = "pg_filenode.map";
const INIT: &str = "pg_internal.init";

impl SmallFiles {
    /// Does before the stop what may wait for a disk.
    fn prepare(source: &catalog::Source, layer: u32) -> Self {
        let from = files::db_dir(source.oid, source.tablespace);
        let keep = files::real_dir(layer, files::DEFAULT_TABLESPACE);
        // So that the pause finds it in memory.
        let _ = fs::read(from.join(MAP));
        let to = keep.join(INIT);
        let _ = fs::remove_file(&to);
        // It is replaced by rename, never changed in place (relcache.c, write_relcache_init_file). On another
        // filesystem, or when there is none, the fork's first session makes its own.
        let linked = fs::hard_link(from.join(INIT), &to).and_then(|()| to.metadata());
        let linked = linked.ok().map(|found| found.ino());
        SmallFiles { from, keep, linked }
    }

    /// The map as it is now. Changed in place, by who is not stopped (relmapper.c, `write_relmap_file`).
    fn map(&self) -> io::Result<Vec<u8>> {
        fs::read(self.from.join(MAP))
    }

    /// Whether the link is of the file that is there now.
    fn is_current(&self) -> bool {
        let now = fs::metadata(self.from.join(INIT)).ok();
        now.map(|found| found.ino()) == self.linked
    }

    /// Once everyone goes on.
    fn finish(&self, map: &[u8], current: bool) -> io::Result<()> {
        if !current && self.linked.is_some() {
            fs::remove_file(self.keep.join(INIT))?;
        }
        files::write_private(&self.keep.join(MAP), map)
    }
}

/// One try: stops everyone for about `window` at most, then holds them for at most `pg_fork.max_pause`.
pub(super) fn attempt(
    source: &catalog::Source,
    fork: u32,
    dir: &mut LayerDir,
    arena: &mut Arena,
    known: &mut Known,
    window: Duration,
) -> Result<Slot, Failed> {
    let oid = dir.oid;
    // Takes the registry's lock: not while anyone is stopped.
    let space = registry::new_empty_space();
    known.look();
    let small = SmallFiles::prepare(source, oid);
    let mut published = Published::new(source.oid);
    let pause = Duration::from_millis(guc::MAX_PAUSE.get() as u64);
    let began = Instant::now();
    let everyone = published.stop_all(source.oid, window, pause)?;
    stop_point::at("cut-stopped");
    let stopped = Instant::now();
    let until = stopped + pause;
    // First what may wait for a spinlock that someone holds who sleeps.
    // SAFETY: a plain read of the server's state; nobody writes a page of the source from here on.
    let cut_lsn = unsafe { pg_sys::GetXLogInsertRecPtr() };
    if Instant::now() > until {
        return Err(Failed::Pool);
    }
    let running = known.at_cut(until).ok_or(Failed::Subtransactions)?;
    let dirty = pool::dirty_for_ever(source.oid, until);
    let dirty = dirty.ok_or(Failed::Pool)?;
    if let Some(shared) = shmem::shared() {
        shared.dirty.store(dirty.len() as u32, Ordering::Relaxed);
    }
    if dirty.len() > arena.room() {
        return Err(Failed::TooLong { pages: dirty.len() });
    }
    // What is left then takes less than to stop everyone once more: no look at the time from here on.
    let copied = capture::copy(&dirty, arena, until);
    let copied = copied.ok_or(Failed::TooLong { pages: dirty.len() })?;
    stop_point::at("cut-captured");
    let mut layer = new_layer(oid, source);
    (layer.space, layer.captured) = (space, copied.len() as u32);
    // SAFETY: plain reads of the server's state.
    unsafe {
        layer.cut_lsn = cut_lsn;
        layer.cut_time = pg_sys::GetCurrentTimestamp();
        layer.oldest_multi = pg_sys::GetOldestMultiXactId().into_inner();
    }
    layer.in_flight = u32::from(!running.is_empty());
    layer.next_xid = running.next_xid;
    let map = small.map().map_err(Failed::Io)?;
    let current = small.is_current();
    layer.seq = next_seq();
    let inserted = registry::change(|table| {
        let inserted = table.insert(layer);
        if inserted {
            join(table, fork, &layer);
        }
        inserted
    });
    if !inserted {
        drop(published);
        catalog::too_many();
    }
    (dir.used, dir.stays) = (true, true);
    stop_point::at("cut-inserted");
    let unfinished = Unfinished { layer: oid, fork };
    if !pool::await_writes(&dirty, until) {
        return Err(Failed::Pool);
    }
    let changed =
        match stop_point::is_set("cut-twice", "look") || stop_point::is_set("cut-twice", "halt") {
            true => capture::changed_since(source.oid, &dirty, &copied, arena),
            false => None,
        };
    // Who could not answer must not have moved until now: from here on its changes come after the cut.
    everyone.still(source.oid, published.number())?;
    if let Some(changed) = changed {
        panic!("a page moved although everyone was stopped: {changed}");
    }
    registry::touch(|table| table.update(oid, |slot| slot.sound = 1));
    let pause = stopped.elapsed();
    published.counts = true;
    drop(published);
    stats::count(|stats| &stats.cuts);
    stats::pause(pause.as_micros() as u64, copied.len());
    stop_point::at("cut-released");
    // While nobody waits: what only forks of this cut need, before there is one on disk.
    small.finish(&map, current).map_err(Failed::Io)?;
    capture::write(oid, &copied, arena).map_err(Failed::Io)?;
    let mut meta = meta_of(&layer);
    meta.in_flight = running.all(known);
    files::write_meta(&meta, false).map_err(Failed::Io)?;
    stop_point::at("cut-written");
    debug1!(
        "pg_fork: cut of database {}: all stopped after {:?}, {} pages, held {pause:?}, on file after {:?}",
        source.oid,
        stopped - began,
        copied.len(),
        began.elapsed()
    );
    // They are dirty still: not for the next cut, if that takes its time.
    let any = !copied.is_empty();
    unfinished.finish(any);
    if let (Some(shared), true) = (shmem::shared(), any) {
        crate::worker::wake(shared);
    }
    Ok(layer)
}
