//! Who of a source's processes may be changing a page while it is being cut.
//!
//! A cut looks twice: once when it begins to look at pages, and once when it is done. In between nobody may have
//! come, changed a page and gone again, nor may someone who was not stopped have moved.

use crate::pg::process::{self, Peer};
use crate::shmem;
use pgrx::pg_sys;
use std::sync::atomic::Ordering;

/// What the first look found: everyone is stopped, but those that cannot move.
pub(super) struct AllStopped {
    /// How many processes had come to the database until then.
    arrivals: u64,
    /// Not stopped, because each is blocked where it can neither answer nor change a page.
    excused: Vec<Peer>,
}

/// Someone blocked in a send to its client, or waiting for a standby.
fn is_harmless(peer: &Peer) -> bool {
    peer.wait_event == pg_sys::WaitEventClient::WAIT_EVENT_CLIENT_WRITE
        || peer.wait_event == pg_sys::WaitEventIPC::WAIT_EVENT_SYNC_REP
}

fn is_stopped(peer: &Peer) -> bool {
    shmem::stopped_flag(peer.number).is_some_and(|flag| flag.load(Ordering::SeqCst))
}

fn arrivals(db: u32) -> u64 {
    shmem::shared().map_or(0, |shared| shared.arrivals(db).load(Ordering::SeqCst))
}

/// Whether everyone is stopped; those that are not, if not.
pub(super) fn look(db: u32) -> Result<AllStopped, Vec<Peer>> {
    // First the count: who comes later either is seen below, or changes it.
    let arrivals = arrivals(db);
    let mut excused = process::peers_in(db);
    excused.retain(|peer| !is_stopped(peer));
    match excused.iter().all(is_harmless) {
        true => Ok(AllStopped { arrivals, excused }),
        false => {
            excused.retain(|peer| !is_harmless(peer));
            Err(excused)
        }
    }
}

/// Why a cut does not count.
pub(super) enum Moved {
    /// These are not stopped.
    Peers(Vec<Peer>),
    /// Someone has come, or gone.
    Unseen,
}

impl AllStopped {
    /// The second look.
    pub(super) fn still(&self, db: u32) -> Result<(), Moved> {
        let now = look(db).map_err(Moved::Peers)?;
        // Who was there at the first look and is gone has moved.
        let same = |one: &Peer| now.excused.iter().any(|peer| peer.pid == one.pid);
        let stays = |one: &Peer| same(one) || is_stopped(one);
        // The count after the look, because who came and went between the looks has changed it before it went.
        if arrivals(db) == self.arrivals && self.excused.iter().all(stays) {
            return Ok(());
        }
        Err(Moved::Unseen)
    }
}
