//! The stop of a source's backends: those that come wait at the gate, the barrier stops those that look for
//! interrupts, the signal those that do not.
#![allow(unsafe_code)] // calls into procsignal.c

use crate::fork::attempt::Failed;
use crate::fork::gate::{self, Gate};
use crate::fork::patience;
use crate::fork::peers::{self, AllStopped};
use crate::pg::lwlock::{hold, Held, Which};
use crate::shmem;
use crate::smgr::halt::Halting;
use crate::stop_point;
use pgrx::pg_sys;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long those that are on their way into the database are waited for.
const GATE: Duration = Duration::from_millis(20);

/// How long the barrier has at least until those that have not answered are asked in another way.
const ANSWERS: Duration = Duration::from_millis(3);
/// How long those are asked, and how often.
const ASKS: Duration = Duration::from_millis(7);
const AGAIN: Duration = Duration::from_micros(200);
/// They leave by themselves so long after the end of a pause, however long one may be: what they hold unseen is
/// waited for by others.
const SPARE: Duration = Duration::from_millis(5);
const LONGEST_HALT: Duration = Duration::from_millis(500);

/// Makes the database whose backends stop known, and takes that back however this ends.
pub(super) struct Published {
    began: Instant,
    /// Who cuts is a superuser.
    trusted: bool,
    /// The cut is done.
    pub(super) counts: bool,
    /// Those that do not answer are asked to stop where the signal arrives. Let go of first.
    halting: Option<Halting>,
    #[expect(dead_code, reason = "released next")]
    held: Held,
    #[expect(dead_code, reason = "opened last")]
    gate: Option<Gate>,
}

impl Published {
    pub(super) fn new(db: u32) -> Self {
        let trusted = patience::is_trusted();
        let began = Instant::now();
        let gate = gate::shut(db, GATE);
        stop_point::at("cut-gate");
        let held = hold(Which::Cut, true);
        if let Some(shared) = shmem::shared() {
            shared.cut_db.store(db, Ordering::SeqCst);
        }
        // For tests of the signal alone there is no barrier.
        if !stop_point::is_set("cut-twice", "halt") {
            // SAFETY: signals every process; each absorbs it at its next CHECK_FOR_INTERRUPTS.
            unsafe {
                pg_sys::EmitProcSignalBarrier(
                    pg_sys::ProcSignalBarrierType::PROCSIGNAL_BARRIER_SMGRRELEASE,
                )
            };
        }
        Published {
            began,
            trusted,
            counts: false,
            halting: None,
            held,
            gate,
        }
    }
}

impl Published {
    /// The number of this try for those that stop where the signal arrives; 0: none does.
    pub(super) fn number(&self) -> u32 {
        self.halting.as_ref().map_or(0, Halting::number)
    }

    /// Waits until everyone is stopped: by the barrier at first, which reaches all but who runs code that looks for
    /// no interrupt; then by the signal itself, as a process that holds a lock for a moment is asked in vain.
    pub(super) fn stop_all(
        &mut self,
        db: u32,
        window: Duration,
        pause: Duration,
    ) -> Result<AllStopped, Failed> {
        let began = Instant::now();
        let answers = ANSWERS.max(window.saturating_sub(ASKS));
        let window = window.max(answers + ASKS);
        loop {
            let peers = match peers::look(db, self.number()) {
                Ok(everyone) => return Ok(everyone),
                Err(peers) => peers,
            };
            let waited = began.elapsed();
            if waited > window {
                return Err(Failed::NotStopped(peers));
            }
            // Who is blocked in a send will not answer, however long it is waited for.
            let in_vain = waited > answers || peers.iter().all(peers::is_sending);
            if self.halting.is_none() && (in_vain || stop_point::is_set("cut-twice", "halt")) {
                let longest = pause.min(LONGEST_HALT) + ASKS + SPARE;
                self.halting = Halting::begin(longest);
            }
            if let Some(halting) = &self.halting {
                peers.iter().for_each(|peer| halting.ask(peer.pid));
                std::thread::sleep(AGAIN);
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if let Some(shared) = shmem::shared() {
            shared.cut_db.store(0, Ordering::SeqCst);
        }
        if !self.counts {
            patience::rest_after(self.began.elapsed(), self.trusted);
        }
    }
}
