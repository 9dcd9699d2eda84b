//! The cut (D4): stops the source's backends for about a millisecond where none of them is in the
//! middle of changing a page, and notes what the database is at that instant.
#![allow(unsafe_code)] // calls into procarray.c, procsignal.c, lock.c

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
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a fork needs to know of its cut.
pub struct Taken {
    pub layer: Slot,
}

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

/// Serialises cuts. A heavyweight lock, because who waits for an LWLock absorbs no barrier.
struct Serial(pg_sys::LOCKTAG);

impl Serial {
    const ALONE: i32 = pg_sys::ExclusiveLock as i32;
    /// Waits for who is alone, and not for others that wait.
    const WAITING: i32 = pg_sys::ShareLock as i32;

    fn lock(mode: i32, only_if_free: bool) -> Option<Self> {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: 0,
            locktag_field2: 0x7067_666B,
            locktag_field3: 0,
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_USERLOCK as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        // SAFETY: a whole tag; released by us, or by the transaction's end.
        let result = unsafe { pg_sys::LockAcquire(&tag, mode, false, only_if_free) };
        (result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL).then_some(Serial(tag))
    }

    fn release(self, mode: i32) {
        // SAFETY: taken in `lock`.
        unsafe { pg_sys::LockRelease(&self.0, mode, false) };
    }
}

fn newest() -> u64 {
    shmem::shared().map_or(0, |shared| shared.next_seq.load(Ordering::SeqCst))
}

/// Cuts the source for the fork, or shares a cut that began after this call did.
///
/// Raises 55P03 (`lock_not_available`) when the source's backends did not stop in time.
pub fn take_or_share(source: &catalog::Source, fork: u32) -> Taken {
    // Not before the caller held the source's frozen ids: it may share no cut that is older than that.
    let asked = newest();
    let serial = match Serial::lock(Serial::ALONE, true) {
        Some(serial) => serial,
        None => {
            // All who wait for one cut go on at once, not each after the one before.
            if let Some(waited) = Serial::lock(Serial::WAITING, false) {
                waited.release(Serial::WAITING);
            }
            if let Some(layer) = share(source, fork, asked) {
                return Taken { layer };
            }
            let Some(serial) = Serial::lock(Serial::ALONE, false) else {
                unreachable!("waited for")
            };
            serial
        }
    };
    let layer = match share(source, fork, asked) {
        Some(layer) => layer,
        None => {
            stop_point::at("cut-alone");
            cut(source, fork)
        }
    };
    serial.release(Serial::ALONE);
    Taken { layer }
}

/// Joins the newest cut of the source if it is one after `asked`.
fn share(source: &catalog::Source, fork: u32, asked: u64) -> Option<Slot> {
    if newest() <= asked {
        return None;
    }
    let joined = registry::touch(|table| {
        let view = table.view();
        let layers = view.group(source.oid).filter(|slot| slot.is_layer());
        let newest = *layers.max_by_key(|slot| slot.seq)?;
        // One that failed is no cut.
        let layer = (newest.seq > asked && newest.state == ForkState::Ready).then_some(newest)?;
        table.update(layer.oid, |layer| layer.forks += 1);
        join(table, fork, &layer);
        Some(layer)
    });
    if joined.is_some() {
        stats::count(|stats| &stats.cuts_shared);
    }
    joined
}

fn join(table: &mut TableMut<Slot>, fork: u32, layer: &Slot) {
    table.update(fork, |slot| {
        slot.layer = layer.oid;
        slot.seq = layer.seq;
        slot.cut_lsn = layer.cut_lsn;
        slot.cut_time = layer.cut_time;
    });
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
struct LayerDir {
    oid: u32,
    /// Something may be in it.
    used: bool,
    stays: bool,
}

impl LayerDir {
    fn new(source: &catalog::Source) -> Self {
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

fn cut(source: &catalog::Source, fork: u32) -> Slot {
    let max_pause = Duration::from_millis(guc::MAX_PAUSE.get() as u64);
    let previous = match marks::before_cut(source.oid) {
        Ok(previous) => previous,
        Err(error) => catalog::io_error("could not mark the cut before", &error),
    };
    // Short windows at first: while one backend does not answer, the others wait.
    let mut window = Duration::from_millis(5);
    let mut dir = LayerDir::new(source);
    let mut arena = make_room(source.oid, max_pause);
    let timeout = Duration::from_millis(guc::CUT_TIMEOUT.get() as u64);
    let mut deadline = Instant::now() + timeout;
    let mut guessed = true;
    loop {
        // What is left of the time goes to the last try.
        let left = deadline.saturating_duration_since(Instant::now());
        let this = if left < window * 3 { left } else { window };
        let too_many = match attempt(source, fork, &mut dir, &mut arena, this) {
            Ok(layer) => {
                marks::after_cut(previous);
                return layer;
            }
            Err(failure) => {
                debug1!(
                    "pg_fork: cut of database {}: {}",
                    source.oid,
                    failure.describe()
                );
                if let Failed::Io(error) = &failure {
                    catalog::io_error("could not write the cut's pages", error);
                }
                if Instant::now() >= deadline {
                    stats::count(|stats| &stats.cut_timeouts);
                    give_up(&failure);
                }
                matches!(failure, Failed::TooLong { .. })
            }
        };
        stats::count(|stats| &stats.cut_retries);
        window *= 2;
        pgrx::check_for_interrupts!();
        std::thread::sleep(Duration::from_millis(1));
        // What a failed try has put there is of no use to the next.
        if dir.used {
            dir = LayerDir::new(source);
        }
        arena = make_room(source.oid, max_pause);
        // The first time nobody may have looked how much there is to write out: that takes as long as it
        // does, and nobody is stopped meanwhile.
        if guessed && too_many {
            guessed = false;
            deadline = Instant::now() + timeout;
        }
    }
}

/// So few dirty pages are rather written out at once: captured, each of them would stay dirty, and be
/// captured by the next cut again.
const FEW: usize = 64;

/// Writes dirty pages of the source out, without stopping anyone, if they are very few, or as many as a pause
/// has no time for. Returns room for those that are left, which are captured in the pause.
///
/// Where the last cut of any source, or the last try, has found few, nobody looks before the pause; but for
/// this process's first time.
fn make_room(db: u32, max_pause: Duration) -> Arena {
    let began = Instant::now();
    let most = capture::affordable(max_pause);
    let last = shmem::shared().map_or(u32::MAX, |shared| shared.dirty.load(Ordering::Relaxed));
    let mut soon = last as usize;
    if last as usize > FEW || !pool::is_mapped() {
        let mut dirty = pool::dirty(db);
        let mut before = usize::MAX;
        // Again while that leaves fewer.
        while !dirty.is_empty()
            && (dirty.len() <= FEW || dirty.len() > most)
            && dirty.len() < before / 4 * 3
        {
            let too_many = match dirty.len() <= FEW {
                true => dirty.len(),
                // Some will come meanwhile.
                false => dirty.len() - most / 10 * 9,
            };
            capture::write_out(&dirty, too_many);
            before = dirty.len();
            dirty = pool::dirty(db);
        }
        capture::touch(&dirty);
        // Nobody is stopped: there will be some more.
        soon = dirty.len() + dirty.len() / 4;
    }
    match Arena::new(most.max(soon) + most / 4, soon) {
        Ok(arena) => {
            debug1!(
                "pg_fork: {soon} pages to come, {most} can be captured: {:?}",
                began.elapsed()
            );
            arena
        }
        Err(error) => {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
                "out of memory",
                format!("There is none to capture {most} pages in: {error}.")
            );
        }
    }
}

enum Failed {
    NotStopped(Vec<Peer>),
    /// There was no time to look through the buffer pool, or for a write that was under way.
    Pool,
    TooLong {
        pages: usize,
    },
    Io(std::io::Error),
}

impl Failed {
    fn describe(&self) -> String {
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

fn give_up(failure: &Failed) -> ! {
    let (message, detail) = match failure {
        Failed::NotStopped(peers) => {
            let pids: Vec<String> = peers.iter().map(|peer| peer.pid.to_string()).collect();
            (
                "could not stop the source's backends within pg_fork.cut_timeout",
                format!("These processes did not answer: {}.", pids.join(", ")),
            )
        }
        Failed::Pool => (
            "could not take a cut within pg_fork.cut_timeout",
            "A pause of pg_fork.max_pause has no time to look through all shared buffers, or to wait for a write of one."
                .to_string(),
        ),
        _ => (
            "could not take a cut within pg_fork.cut_timeout",
            "The source writes more pages than a pause of pg_fork.max_pause can capture."
                .to_string(),
        ),
    };
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        message,
        "fork_create",
    )
    .set_detail(detail)
    .set_hint("Try again, or set pg_fork.cut_timeout or pg_fork.max_pause higher.")
    .report(PgLogLevel::ERROR);
    unreachable!()
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
fn attempt(
    source: &catalog::Source,
    fork: u32,
    dir: &mut LayerDir,
    arena: &mut Arena,
    window: Duration,
) -> Result<Slot, Failed> {
    let oid = dir.oid;
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
    (layer.space, layer.captured) = (registry::new_empty_space(), copied.len() as u32);
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
/// the next xid (procarray.c, `GetRunningTransactionData`).
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
    if overflowed {
        // D6: some subtransactions are not listed; all that is not marked committed now counts.
        let mut xid = oldest;
        while xid != next {
            let mut lsn = 0;
            // SAFETY: reads the commit log; nothing from the oldest running xid on is truncated.
            let status = unsafe { pg_sys::TransactionIdGetStatus(xid.into(), &mut lsn) };
            if status != pg_sys::TRANSACTION_STATUS_COMMITTED as i32 {
                xids.push(xid);
            }
            xid = xid.wrapping_add(1).max(3);
        }
    }
    (xids, next)
}
