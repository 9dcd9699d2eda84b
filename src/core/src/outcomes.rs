//! How transactions have ended, as one process after the other has learned it: a table in shared memory that
//! is read and written without locks.
//!
//! The commit log knows all of it, but behind a lock that those who commit want, too. Each word is of sixteen
//! transactions whose numbers follow each other: what tells them from the others that share the
//! word's place, and two bits for each. A word may be lost to others at any time, by who puts theirs.

use std::sync::atomic::{AtomicU64, Ordering};

/// Transactions of one word.
const GROUP: u64 = 16;
const COMMITTED: u64 = 1;
const ABORTED: u64 = 2;

/// The table over a region of words, all zero when the server starts.
#[derive(Clone, Copy)]
pub struct OutcomeTable<'a>(&'a [AtomicU64]);

impl<'a> OutcomeTable<'a> {
    pub fn new(words: &'a [AtomicU64]) -> Self {
        OutcomeTable(words)
    }

    /// The group's tag, its word, and the place of the transaction's bits. The tag comes again after
    /// sixteen rounds of all numbers.
    fn place(&self, xid: u64) -> (u64, &'a AtomicU64, u64) {
        let group = xid / GROUP;
        let tag = group << 32;
        let word = &self.0[group as usize % self.0.len()];
        (tag, word, xid % GROUP * 2)
    }

    /// Whether the transaction (a `FullTransactionId`) has committed; `None`: not known here.
    pub fn get(&self, xid: u64) -> Option<bool> {
        let (tag, word, at) = self.place(xid);
        let found = word.load(Ordering::Relaxed);
        match found >> at & 3 {
            COMMITTED if found >> 32 << 32 == tag => Some(true),
            ABORTED if found >> 32 << 32 == tag => Some(false),
            _ => None,
        }
    }

    /// Notes it; for good, so only what can not change any more.
    pub fn put(&self, xid: u64, committed: bool) {
        let (tag, word, at) = self.place(xid);
        let bits = if committed { COMMITTED } else { ABORTED } << at;
        let found = word.load(Ordering::Relaxed);
        let new = match found >> 32 << 32 == tag {
            true => found | bits,
            false => tag | bits,
        };
        // Who comes between has something to say as well; this is asked for again then.
        let _ = word.compare_exchange(found, new, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The full number of a transaction that the commit log reaches to; `None`: it is older than `oldest`, or not
/// before `next`. There are at most half of all numbers between those two.
pub fn full(xid: u32, oldest: u32, next: u64) -> Option<u64> {
    let before = (next as u32).wrapping_sub(xid);
    let reach = (next as u32).wrapping_sub(oldest);
    (1..=reach)
        .contains(&before)
        .then(|| next.saturating_sub(before.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_number_is_of_the_round_in_which_the_next_one_leaves_it() {
        // In the first round, across the end of one, and far from it.
        let round = 1_u64 << 32;
        for (oldest, next) in [
            (3, 1000),
            (u32::MAX - 10, 3 * round + 20),
            (5, round * 7 + 90),
        ] {
            let first = next - u64::from((next as u32).wrapping_sub(oldest));
            for number in first..next {
                assert_eq!(full(number as u32, oldest, next), Some(number));
            }
            for out in [first.wrapping_sub(1), next, next + 1, next + round / 2] {
                assert_eq!(full(out as u32, oldest, next), None, "{out}");
            }
        }
        assert_eq!(full(7, 7, round + 7), None);
    }

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn an_empty_table_knows_nothing() {
        let words = words(4);
        let table = OutcomeTable::new(&words);
        for xid in [0, 1, 15, 16, 63, 64, u64::from(u32::MAX), 1 << 32, 1 << 35] {
            assert_eq!(table.get(xid), None, "{xid}");
        }
    }

    #[test]
    fn neighbours_share_a_word_and_others_take_it() {
        let words = words(4);
        let table = OutcomeTable::new(&words);
        for xid in 32..48 {
            table.put(xid, xid % 3 == 0);
        }
        for xid in 32..48 {
            assert_eq!(table.get(xid), Some(xid % 3 == 0));
        }
        // The same place, and the same number one round later.
        for other in [32 + 64, 32 + (1 << 32)] {
            assert_eq!(table.get(other), None);
            table.put(other, true);
            assert_eq!(table.get(other), Some(true));
            assert_eq!(table.get(32), None);
            assert_eq!(table.get(other + 1), None);
        }
    }

    #[test]
    fn it_may_forget_but_never_errs() {
        let words = words(32);
        let table = OutcomeTable::new(&words);
        let mut told = HashMap::new();
        let mut random = 5_u64;
        let mut known = 0;
        for step in 0..100_000_u64 {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            // Each number is met often before its word goes to another.
            let xid = (random >> 40 & 15) + (random >> 44 & 63 == 0) as u64 * (random >> 50 & 1023);
            let round = step / 10_000;
            let xid = round << 32 | xid;
            match table.get(xid) {
                Some(outcome) => {
                    known += 1;
                    assert_eq!(told.get(&xid), Some(&outcome));
                }
                None => {
                    let outcome = *told.entry(xid).or_insert(random >> 40 & 1 == 1);
                    table.put(xid, outcome);
                }
            }
        }
        assert!(known > 10_000, "{known}");
    }

    #[test]
    fn processes_at_work_at_the_same_time_do_not_mix_groups_up() {
        let words = words(2);
        std::thread::scope(|scope| {
            for thread in 0..3_u64 {
                let table = OutcomeTable::new(&words);
                scope.spawn(move || {
                    for n in 0..200_000 {
                        let xid = (n * 7 + thread) % 256;
                        // By its number, so that who mixes them up is found out.
                        let outcome = (xid / GROUP).is_multiple_of(2);
                        table.put(xid, outcome);
                        assert!(table.get(xid).is_none_or(|found| found == outcome));
                    }
                });
            }
        });
    }
}
