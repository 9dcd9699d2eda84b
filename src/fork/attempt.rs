//! One try of a cut: everyone stopped, the dirty pages copied, the new layer made known, everyone let go.
#![allow(unsafe_code)] // calls into procarray.c, procsignal.c

use crate::fork::{capture, catalog, files, marks, pool};
use crate::guc;
use crate::pg::arena::Arena;
use crate::pg::lwlock::{hold, Held, Which};
use crate::pg::process::{self, Peer};
use crate::shmem::load::meta_of;
use crate::shmem::registry::{self, ForkState, Slot, Use};
use crate::shmem::{self, stats};
use crate::smgr::handles;
use crate::stop_point;
use pg_fork_core::table::TableMut;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Makes the database whose backends stop known, and takes that back however this ends.
struct Published(#[expect(dead_code, reason = "released last")] Held);

impl Published {
    fn new(db: u32) -> Self {
        let held = hold(Which::Cut, true);
        if let Some(shared) = shmem::shared() {
            shared.cut_db.store(db, Ordering::SeqCst);
        }
        // SAFETY: signals every process; each absorbs it at its next CHECK_FOR_INTERRUPTS.
        unsafe {
            pg_sys::EmitProcSignalBarrier(
                pg_sys::ProcSignalBarrierType::PROCSIGNAL_BARRIER_SMGRRELEASE,
            )
        };
        Published(held)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if let Some(shared) = shmem::shared() {
            shared.cut_db.store(0, Ordering::SeqCst);
        }
    }
}

/// Who is not stopped and could be changing a page. Someone blocked in a send to its client, or
/// waiting for a standby, cannot.
fn moving(db: u32) -> Vec<Peer> {
    let mut peers = process::peers_in(db);
    peers.retain(|peer| {
        let stopped =
            shmem::stopped_flag(peer.number).is_some_and(|flag| flag.load(Ordering::SeqCst));
        let harmless = peer.wait_event == pg_sys::WaitEventClient::WAIT_EVENT_CLIENT_WRITE
            || peer.wait_event == pg_sys::WaitEventIPC::WAIT_EVENT_SYNC_REP;
        !stopped && !harmless
    });
    peers
}

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
    /// There was no time to look through the buffer pool, or for a write that was under way.
    Pool,
    TooLong {
        pages: usize,
    },
    Io(std::io::Error),
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
            Failed::Pool => "no time for the buffer pool".into(),
            Failed::TooLong { pages } => format!("{pages} dirty pages are too many for one pause"),
            Failed::Io(error) => error.to_string(),
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
        registry::touch(|table| {
            table.update(self.layer, |slot| {
                slot.state = ForkState::Invalid;
                slot.forks = 0;
            });
            join(table, self.fork, &Slot::empty());
        });
    }
}

/// One try: stops everyone for at most `window`, then holds them for at most `pg_fork.max_pause`.
pub(super) fn attempt(
    source: &catalog::Source,
    fork: u32,
    dir: &mut LayerDir,
    arena: &mut Arena,
    window: Duration,
) -> Result<Slot, Failed> {
    let oid = dir.oid;
    // Takes the registry's lock: not while anyone is stopped.
    let space = registry::new_empty_space();
    let published = Published::new(source.oid);
    let began = Instant::now();
    loop {
        let peers = moving(source.oid);
        if peers.is_empty() {
            break;
        }
        if began.elapsed() > window {
            return Err(Failed::NotStopped(peers));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    stop_point::at("cut-stopped");
    let stopped = Instant::now();
    let until = stopped + Duration::from_millis(guc::MAX_PAUSE.get() as u64);
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
        layer.cut_lsn = pg_sys::GetXLogInsertRecPtr();
        layer.cut_time = pg_sys::GetCurrentTimestamp();
        layer.oldest_multi = pg_sys::GetOldestMultiXactId().into_inner();
    }
    let (in_flight, next_xid) = in_flight();
    (layer.in_flight, layer.next_xid) = (in_flight.len() as u32, next_xid);
    let from = files::db_dir(source.oid, source.tablespace);
    let keep = files::real_dir(oid, files::DEFAULT_TABLESPACE);
    let map = fs::read(from.join("pg_filenode.map")).map_err(Failed::Io)?;
    dir.used = true;
    // It is replaced by rename, never changed in place (relcache.c, write_relcache_init_file). On
    // another filesystem, or when there is none, the fork's first session makes its own.
    let _ = fs::hard_link(from.join("pg_internal.init"), keep.join("pg_internal.init"));
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
    dir.stays = true;
    stop_point::at("cut-inserted");
    let unfinished = Unfinished { layer: oid, fork };
    if !pool::await_writes(&dirty, until) {
        return Err(Failed::Pool);
    }
    // Who could not answer must not have moved until now: from here on its changes come after the cut.
    let peers = moving(source.oid);
    if !peers.is_empty() {
        return Err(Failed::NotStopped(peers));
    }
    registry::touch(|table| table.update(oid, |slot| slot.sound = 1));
    let pause = stopped.elapsed();
    drop(published);
    stats::count(|stats| &stats.cuts);
    stats::pause(pause.as_micros() as u64, copied.len());
    stop_point::at("cut-released");
    // While nobody waits: what only forks of this cut need, before there is one on disk.
    files::write_private(&keep.join("pg_filenode.map"), &map).map_err(Failed::Io)?;
    capture::write(oid, &copied, arena).map_err(Failed::Io)?;
    let mut meta = meta_of(&layer);
    meta.in_flight = in_flight;
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

/// The transactions in flight in the whole server, subtransactions and prepared ones included, and
/// the next xid (procarray.c, `GetRunningTransactionData`). One that has committed, and waits for a standby
/// before it says so, is not in flight: its subtransactions may not be listed.
fn in_flight() -> (Vec<u32>, u32) {
    // SAFETY: the function returns with both locks held, for the caller to release; its result is a
    // static that only this process writes.
    let (mut xids, next, oldest, overflowed) = unsafe {
        let running = pg_sys::GetRunningTransactionData();
        let count = ((*running).xcnt + (*running).subxcnt) as usize;
        let xids: Vec<u32> = (0..count)
            .map(|n| (*(*running).xids.add(n)).into_inner())
            .collect();
        pg_sys::LWLockRelease(&raw mut (*pg_sys::MainLWLockArray.add(4)).lock); // ProcArrayLock
        pg_sys::LWLockRelease(&raw mut (*pg_sys::MainLWLockArray.add(3)).lock); // XidGenLock
        let overflowed = (*running).subxid_status != pg_sys::subxids_array_status::SUBXIDS_IN_ARRAY;
        (
            xids,
            (*running).nextXid.into_inner(),
            (*running).oldestRunningXid.into_inner(),
            overflowed,
        )
    };
    xids.retain(|xid| !is_committed(*xid));
    if overflowed {
        // D6: some subtransactions are not listed; all that is not marked committed now counts.
        let mut xid = oldest;
        while xid != next {
            if !is_committed(xid) {
                xids.push(xid);
            }
            xid = xid.wrapping_add(1).max(3);
        }
    }
    (xids, next)
}

fn is_committed(xid: u32) -> bool {
    let mut lsn = 0;
    // SAFETY: reads the commit log; nothing from the oldest running xid on is truncated.
    let status = unsafe { pg_sys::TransactionIdGetStatus(xid.into(), &mut lsn) };
    status == pg_sys::TRANSACTION_STATUS_COMMITTED as i32
}
