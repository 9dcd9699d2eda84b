//! How long the tries of a cut may keep the source's backends waiting for one that does not answer.
//!
//! A try stops them for a small part of `pg_fork.cut_timeout` only. When it has come to nothing, those that it
//! stopped run on for as long as they stood still, before any source is stopped again, whoever asks for it.
//!
//! A superuser decides the timeout. Who else may fork can have made the one that does not answer himself, and try
//! again as soon as he has failed, in as many sessions as he has. So his tries are shorter still, and the tries of
//! all such callers rest for as long as leaves the source most of the time.
#![allow(unsafe_code)] // asks who calls

use crate::guc;
use crate::shmem;
use crate::smgr::halt::now;
use pgrx::pg_sys;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The first try. While one backend does not answer, the others wait: each window is twice the last.
const FIRST: Duration = Duration::from_millis(5);
/// The longest try is this part of the timeout: 33 ms by default.
const PARTS: u32 = 15;
/// The longest try of a caller who is no superuser.
const LONGEST_OF_OTHERS: Duration = Duration::from_millis(40);
/// Their rest after it, in times that the source stood still.
const REST_OF_OTHERS: u32 = 3;
/// A rest lasts this long at least: those that wake up have to come to a processor first.
const SHORTEST_REST: Duration = Duration::from_millis(1);
/// Between two looks for an interrupt.
const NAP: Duration = Duration::from_millis(1);

pub struct Patience {
    window: Duration,
    longest: Duration,
    timeout: Duration,
    deadline: Instant,
}

pub(super) fn is_trusted() -> bool {
    // SAFETY: a look-up.
    unsafe { pg_sys::superuser() }
}

/// Until when everyone rests, and those who are no superusers.
fn rests() -> Option<&'static [AtomicU64; 2]> {
    shmem::shared().map(|shared| &shared.rest_until)
}

/// Begins a rest: a try that came to nothing has just let everyone go who stood still for this long.
pub(super) fn rest_after(stood: Duration, trusted: bool) {
    if let Some([all, others]) = rests() {
        let stood = stood.max(SHORTEST_REST);
        let until = |times| now() + (stood * times).as_nanos() as u64;
        all.fetch_max(until(1), Ordering::Relaxed);
        if !trusted {
            others.fetch_max(until(REST_OF_OTHERS), Ordering::Relaxed);
        }
    }
}

impl Patience {
    pub fn new() -> Self {
        let timeout = guc::cut_timeout();
        let longest = timeout / PARTS;
        Patience {
            window: FIRST,
            longest: match is_trusted() {
                true => longest,
                false => longest.min(LONGEST_OF_OTHERS),
            },
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

    fn must_rest(&self, trusted: bool) -> bool {
        rests().is_some_and(|[all, others]| {
            let now = now();
            let goes_on = |until: &AtomicU64| until.load(Ordering::Relaxed) > now;
            goes_on(all) || (!trusted && goes_on(others) && !self.is_over())
        })
    }

    /// Waits until there may be a try. Returns how long it may keep the others waiting.
    pub fn next(&mut self) -> Duration {
        let trusted = is_trusted();
        pgrx::check_for_interrupts!();
        while self.must_rest(trusted) {
            std::thread::sleep(NAP);
            pgrx::check_for_interrupts!();
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        let window = self.window.min(self.longest).min(left);
        self.window *= 2;
        window
    }
}
