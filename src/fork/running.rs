//! The transactions in flight at a cut (D6).
//!
//! The server lists them, but of a transaction with more than 64 subtransactions it does not list those
//! (procarray.c, `GetRunningTransactionData`): then the commit log is asked for each number from the oldest
//! running one on, which may be many millions. That is done before anyone is stopped. A subtransaction commits
//! if and when the transaction does that it is part of, so in the pause only those are looked at again, and
//! the numbers that came since.
#![allow(unsafe_code)] // calls into procarray.c, transam.c, subtrans.c

use crate::pg::lwlock;
use pgrx::pg_sys;
use std::collections::HashMap;
use std::time::Instant;

/// Numbers between two looks at the clock, or for interrupts.
const STRIDE: usize = 1024;

/// Numbers go round (transam.h): how far `xid` is from `begin`.
fn distance(begin: u32, xid: u32) -> u32 {
    xid.wrapping_sub(begin)
}

fn is_at_or_after(xid: u32, other: u32) -> bool {
    distance(other, xid) <= i32::MAX as u32
}

/// The numbers from one to before another.
fn numbers(begin: u32, end: u32) -> impl Iterator<Item = u32> {
    let first = pg_sys::FirstNormalTransactionId.into_inner();
    (0..distance(begin, end))
        .map(move |n| begin.wrapping_add(n))
        .filter(move |xid| *xid >= first)
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Committed,
    Aborted,
    /// Not known yet; a subtransaction may be on its way.
    Open,
}

fn outcome(xid: u32) -> Outcome {
    let mut lsn = 0;
    // SAFETY: reads the commit log; nothing from the oldest running xid on is truncated.
    let status = unsafe { pg_sys::TransactionIdGetStatus(xid.into(), &mut lsn) } as u32;
    match status {
        pg_sys::TRANSACTION_STATUS_COMMITTED => Outcome::Committed,
        pg_sys::TRANSACTION_STATUS_ABORTED => Outcome::Aborted,
        _ => Outcome::Open,
    }
}

/// What the server says is running, prepared transactions included.
struct Listed {
    xids: Vec<u32>,
    oldest: u32,
    next: u32,
    /// Some subtransactions are not listed.
    overflowed: bool,
}

fn listed() -> Listed {
    // SAFETY: the function returns with both locks held, for the caller to release; its result is a static that
    // only this process writes.
    unsafe {
        let running = &*pg_sys::GetRunningTransactionData();
        let count = (running.xcnt + running.subxcnt) as usize;
        let xids = (0..count).map(|n| (*running.xids.add(n)).into_inner());
        let listed = Listed {
            xids: xids.collect(),
            oldest: running.oldestRunningXid.into_inner(),
            next: running.nextXid.into_inner(),
            overflowed: running.subxid_status != pg_sys::subxids_array_status::SUBXIDS_IN_ARRAY,
        };
        lwlock::release_running_transactions();
        listed
    }
}

/// What is known before the stop: of each number from `begin` to before `end` that was open then, the
/// transaction that it is part of.
#[derive(Default)]
pub(super) struct Known {
    begin: u32,
    end: u32,
    /// By transaction, itself among them.
    open: HashMap<u32, Vec<u32>>,
}

impl Known {
    /// Looks through the numbers that were not looked at yet, if there is need for it. Nobody is stopped. In a
    /// transaction with a snapshot, which keeps pg_subtrans.
    pub(super) fn look(&mut self) {
        let listed = listed();
        if !listed.overflowed {
            *self = Known {
                begin: listed.next,
                end: listed.next,
                ..Known::default()
            };
            // So that the same look in the pause finds the commit log's pages in memory.
            for xid in listed.xids {
                let _ = outcome(xid);
            }
            return;
        }
        if !self.reaches_back_to(listed.oldest) {
            *self = Known {
                begin: listed.oldest,
                end: listed.oldest,
                ..Known::default()
            };
        }
        let mut parts: HashMap<u32, u32> = HashMap::new();
        for (top, xids) in &self.open {
            parts.extend(xids.iter().map(|xid| (*xid, *top)));
        }
        for (n, xid) in numbers(self.end, listed.next).enumerate() {
            if n % STRIDE == 0 {
                pgrx::check_for_interrupts!();
            }
            if outcome(xid) != Outcome::Open {
                continue;
            }
            // SAFETY: not older than the snapshot's.
            let parent = unsafe { pg_sys::SubTransGetParent(xid.into()) }.into_inner();
            // Parents have lower numbers. One that is not open any more, or not known to be one yet: then the
            // number's own outcome will tell.
            let top = parts.get(&parent).copied().unwrap_or(xid);
            parts.insert(xid, top);
            self.open.entry(top).or_default().push(xid);
        }
        self.end = listed.next;
    }

    fn reaches_back_to(&self, oldest: u32) -> bool {
        self.begin != self.end
            && is_at_or_after(oldest, self.begin)
            && is_at_or_after(self.end, oldest)
    }

    /// What is in flight now that everyone is stopped; `None`: not all looked at by the deadline.
    ///
    /// One that has committed, and waits for a standby before it says so, is not in flight.
    pub(super) fn at_cut(&self, deadline: Instant) -> Option<Running> {
        let mut listed = listed();
        listed.xids.retain(|xid| outcome(*xid) == Outcome::Open);
        let mut running = Running {
            next_xid: listed.next,
            xids: listed.xids,
            tops: Vec::new(),
        };
        if !listed.overflowed {
            return Some(running);
        }
        let mut begin = listed.oldest;
        let in_time = |n: usize| !n.is_multiple_of(STRIDE) || Instant::now() <= deadline;
        if self.reaches_back_to(listed.oldest) {
            begin = self.end;
            for (n, top) in self.open.keys().enumerate() {
                if !in_time(n) {
                    return None;
                }
                if outcome(*top) == Outcome::Open {
                    running.tops.push(*top);
                }
            }
        }
        for (n, xid) in numbers(begin, listed.next).enumerate() {
            if !in_time(n) {
                return None;
            }
            if outcome(xid) == Outcome::Open {
                running.xids.push(xid);
            }
        }
        Some(running)
    }
}

/// The transactions in flight at a cut, subtransactions and prepared ones included.
pub(super) struct Running {
    pub(super) next_xid: u32,
    xids: Vec<u32>,
    /// Those whose parts were known before.
    tops: Vec<u32>,
}

impl Running {
    pub(super) fn is_empty(&self) -> bool {
        self.xids.is_empty() && self.tops.is_empty()
    }

    /// All of them, in the order of their numbers. Nobody need be stopped any more.
    pub(super) fn all(mut self, known: &Known) -> Vec<u32> {
        let parts = self.tops.iter().filter_map(|top| known.open.get(top));
        self.xids.extend(parts.flatten());
        self.xids.sort_unstable();
        self.xids.dedup();
        self.xids
    }
}
