//! The cut (D4): stops the source's backends for about a millisecond where none of them is in the
//! middle of changing a page, and notes what the database is at that instant.
#![allow(unsafe_code)] // calls into lock.c

use crate::fork::attempt::{attempt, join, Failed, LayerDir};
use crate::fork::patience::Patience;
use crate::fork::running::Known;
use crate::fork::{capture, catalog, marks, pool};
use crate::guc;
use crate::pg::arena::Arena;
use crate::pg::process::Peer;
use crate::shmem::registry::{self, ForkState, Slot};
use crate::shmem::{self, stats};
use crate::stop_point;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a fork needs to know of its cut.
pub struct Taken {
    pub layer: Slot,
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
    // All are told: who has looked at the fork before knows it without a cut ([`crate::shmem::view`]).
    let joined = registry::change(|table| {
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

fn cut(source: &catalog::Source, fork: u32) -> Slot {
    let max_pause = Duration::from_millis(guc::MAX_PAUSE.get() as u64);
    let previous = match marks::before_cut(source.oid) {
        Ok(previous) => previous,
        Err(error) => catalog::io_error("could not mark the cut before", &error),
    };
    let mut dir = LayerDir::new(source);
    let mut arena = make_room(source.oid, max_pause);
    let mut known = Known::default();
    let mut patience = Patience::new();
    let mut guessed = true;
    loop {
        let window = patience.next();
        let too_many = match attempt(source, fork, &mut dir, &mut arena, &mut known, window) {
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
                if patience.is_over() {
                    stats::count(|stats| &stats.cut_timeouts);
                    give_up(&failure);
                }
                matches!(failure, Failed::TooLong { .. })
            }
        };
        stats::count(|stats| &stats.cut_retries);
        // What a failed try has put there is of no use to the next.
        if dir.used {
            dir = LayerDir::new(source);
        }
        arena = make_room(source.oid, max_pause);
        // The first time nobody may have looked how much there is to write out: that takes as long as it
        // does, and nobody is stopped meanwhile.
        if guessed && too_many {
            guessed = false;
            patience.restart();
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

fn give_up(failure: &Failed) -> ! {
    let (message, detail) = match failure {
        Failed::NotStopped(peers) => {
            let said: Vec<String> = peers.iter().map(Peer::describe).collect();
            (
                "could not stop the source's backends within pg_fork.cut_timeout",
                format!("These processes did not answer: {}.", said.join(", ")),
            )
        }
        Failed::Unseen => (
            "could not take a cut within pg_fork.cut_timeout",
            "Each time someone came to the source or left it meanwhile.".to_string(),
        ),
        Failed::Subtransactions => (
            "could not take a cut within pg_fork.cut_timeout",
            "A pause of pg_fork.max_pause has no time to look which subtransactions have ended."
                .to_string(),
        ),
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
