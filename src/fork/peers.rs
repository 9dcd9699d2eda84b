//! Who of a source's processes may be changing a page while it is being cut.
//!
//! A cut looks twice: once when it begins to look at pages, and once when it is done. In between nobody may have
//! come, changed a page and gone again, nor may someone have moved who does not wait for the cut's lock.

use crate::pg::process::{self, Peer};
use crate::shmem;
use pgrx::pg_sys;
use std::sync::atomic::Ordering;

/// What the first look found: everyone is stopped, but those that cannot move.
pub(super) struct AllStopped {
    /// How many processes had come to the database until then.
    arrivals: u64,
    /// Those that sleep where a signal has arrived: each for so long only.
    halted: Vec<Peer>,
    /// Not stopped, because each is blocked where it can neither answer nor change a page.
    excused: Vec<Peer>,
}

/// It has committed, and waits for a standby: interrupts are held off.
fn is_harmless(peer: &Peer) -> bool {
    peer.wait_event == pg_sys::WaitEventIPC::WAIT_EVENT_SYNC_REP
}

/// It is blocked in a send to its client, and will not answer.
pub(super) fn is_sending(peer: &Peer) -> bool {
    peer.wait_event == pg_sys::WaitEventClient::WAIT_EVENT_CLIENT_WRITE
}

/// It waits for the cut's lock.
fn waits(peer: &Peer) -> bool {
    shmem::stopped_flag(peer.number).is_some_and(|flag| flag.load(Ordering::SeqCst))
}

/// It sleeps in the signal's handler, for this cut.
fn is_halted(peer: &Peer, halting: u32) -> bool {
    let for_cut = shmem::halted_flag(peer.number).map(|flag| flag.load(Ordering::SeqCst));
    halting != 0 && for_cut == Some(halting)
}

fn arrivals(db: u32) -> u64 {
    shmem::shared().map_or(0, |shared| shared.arrivals(db).load(Ordering::SeqCst))
}

/// Whether everyone is stopped; those that are not, if not. `halting`: the number of the cut that asks for it.
pub(super) fn look(db: u32, halting: u32) -> Result<AllStopped, Vec<Peer>> {
    // First the count: who comes later either is seen below, or changes it.
    let mut now = AllStopped {
        arrivals: arrivals(db),
        halted: Vec::new(),
        excused: Vec::new(),
    };
    let mut moving = Vec::new();
    for peer in process::peers_in(db) {
        // First whether it is halted: one that is, and waits for the lock besides, may wake up.
        if is_halted(&peer, halting) {
            now.halted.push(peer);
        } else if waits(&peer) {
        } else if is_harmless(&peer) {
            now.excused.push(peer);
        } else {
            moving.push(peer);
        }
    }
    match moving.is_empty() {
        true => Ok(now),
        false => Err(moving),
    }
}

/// Why a cut does not count.
pub(super) enum Moved {
    /// These are not stopped.
    Peers(Vec<Peer>),
    /// Someone has come, or gone, or woken up.
    Unseen,
}

impl AllStopped {
    /// The second look.
    pub(super) fn still(&self, db: u32, halting: u32) -> Result<(), Moved> {
        let now = look(db, halting).map_err(Moved::Peers)?;
        // Who was halted must be so still: it never is twice for one cut. Who was excused has moved if it is gone.
        let halted = self.halted.iter().all(|peer| is_halted(peer, halting));
        let there = |one: &Peer| now.excused.iter().any(|peer| peer.pid == one.pid);
        let excused = self.excused.iter().all(|one| there(one) || waits(one));
        // The count after the look, because who came and went between the looks has changed it before it went.
        if halted && excused && arrivals(db) == self.arrivals {
            return Ok(());
        }
        Err(Moved::Unseen)
    }
}
