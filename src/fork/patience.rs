//! How long the tries of a cut may keep the source's backends waiting for one that does not answer.
//!
//! A superuser decides that by `pg_fork.cut_timeout`. Who else may fork can have made that one himself, and try
//! again as soon as he has failed, in as many sessions as he has. So his tries are short, and after each that
//! failed the tries of all such callers rest, as long as leaves the source most of the time.
#![allow(unsafe_code)] // asks who calls

use crate::guc;
use crate::shmem;
use pgrx::pg_sys;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The first try. While one backend does not answer, the others wait: each window is twice the last.
const FIRST: Duration = Duration::from_millis(5);
/// The longest try of a caller who is no superuser.
const LONGEST: Duration = Duration::from_millis(100);
/// The rest after his try, in times that it took.
const REST: u32 = 3;
/// Between two looks for an interrupt.
const NAP: Duration = Duration::from_millis(1);

pub struct Patience {
    trusted: bool,
    window: Duration,
    timeout: Duration,
    deadline: Instant,
}

fn now() -> i64 {
    // SAFETY: reads a clock; microseconds.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

impl Patience {
    pub fn new() -> Self {
        let timeout = guc::cut_timeout();
        Patience {
            // SAFETY: a look-up.
            trusted: unsafe { pg_sys::superuser() },
            window: FIRST,
            timeout,
            deadline: Instant::now() + timeout,
        }
    }

    /// The time until now did not count.
    pub fn restart(&mut self) {
        self.deadline = Instant::now() + self.timeout;
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Waits until there may be a try. Returns how long it may keep the others waiting.
    pub fn next(&mut self) -> Duration {
        if !self.trusted {
            let rests =
                || shmem::shared().is_some_and(|it| it.rest_until.load(Ordering::Relaxed) > now());
            while rests() && !self.is_over() {
                pgrx::check_for_interrupts!();
                std::thread::sleep(NAP);
            }
        }
        // What is left of the time goes to the last try.
        let left = self.deadline.saturating_duration_since(Instant::now());
        let window = match left < self.window * 3 {
            true => left,
            false => self.window,
        };
        self.window *= 2;
        match self.trusted {
            true => window,
            false => window.min(LONGEST),
        }
    }

    /// A try failed that took so long.
    pub fn failed(&self, took: Duration) {
        // First of all: a call that is canceled here would begin anew otherwise.
        if let (Some(shared), false) = (shmem::shared(), self.trusted) {
            let until = now() + (took * REST).as_micros() as i64;
            shared.rest_until.fetch_max(until, Ordering::Relaxed);
        }
        pgrx::check_for_interrupts!();
        std::thread::sleep(NAP);
    }
}
