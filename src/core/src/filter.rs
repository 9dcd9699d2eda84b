//! Which folders surely have no page map of a relation, so that nobody looks for its file.
//!
//! A new fork or layer has no map at all, and most never get one of most relations: a session that comes to
//! a new fork would look for two files that are not there for each catalog that it opens, and in a fork with
//! many later cuts for one in each layer. The filter is a Bloom filter for each space (with one
//! hash), in a table that is found by the space's number alone: of two spaces with the same place
//! the newer has it, and of the other nothing is known. Without locks. Bits are only ever set.

use crate::types::{RelFork, Space};
use std::sync::atomic::{AtomicU32, Ordering};

/// Words of bits for one space.
const BIT_WORDS: usize = 8;
/// The space, and its bits.
const ENTRY: usize = 1 + BIT_WORDS;

/// The table over a region of words, all zero when the server starts.
#[derive(Clone, Copy)]
pub struct MapFilter<'a>(&'a [AtomicU32]);

impl<'a> MapFilter<'a> {
    pub fn new(words: &'a [AtomicU32]) -> Self {
        MapFilter(words)
    }

    /// Words for so many spaces.
    pub const fn words(spaces: usize) -> usize {
        spaces * ENTRY
    }

    fn entry(&self, space: Space) -> &'a [AtomicU32] {
        let at = space as usize % (self.0.len() / ENTRY) * ENTRY;
        &self.0[at..at + ENTRY]
    }

    /// A space that has no map yet. Before anyone knows of it; not twice.
    pub fn begin(&self, space: Space) {
        let entry = self.entry(space);
        // Who reads the old one's bits finds afterwards that they were not its own.
        entry[0].store(0, Ordering::SeqCst);
        for word in &entry[1..] {
            word.store(0, Ordering::SeqCst);
        }
        entry[0].store(space, Ordering::SeqCst);
    }

    /// There is a map of the relation, or soon will be. Before anyone can find it.
    pub fn note(&self, space: Space, rel: RelFork) {
        let entry = self.entry(space);
        let (word, bit) = place(rel);
        if entry[0].load(Ordering::SeqCst) == space && entry[word].load(Ordering::SeqCst) & bit == 0
        {
            // In another's bits, if it has the place by now, one more does no harm.
            entry[word].fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Whether there is surely none.
    #[inline]
    pub fn has_none(&self, space: Space, rel: RelFork) -> bool {
        let entry = self.entry(space);
        let (word, bit) = place(rel);
        entry[0].load(Ordering::SeqCst) == space
            && entry[word].load(Ordering::SeqCst) & bit == 0
            && entry[0].load(Ordering::SeqCst) == space
    }
}

/// The word and the bit of a relation fork.
#[inline]
fn place(rel: RelFork) -> (usize, u32) {
    let key = u64::from(rel.spc) << 32 | u64::from(rel.rel);
    let hash = (key ^ u64::from(rel.fork) << 24).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
    (1 + (hash / 32) as usize, 1 << (hash % 32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn region(spaces: usize) -> Vec<AtomicU32> {
        (0..MapFilter::words(spaces))
            .map(|_| AtomicU32::new(0))
            .collect()
    }

    fn rel(n: u32) -> RelFork {
        RelFork {
            spc: 1663 + n % 2,
            rel: 1000 + n / 8,
            fork: (n % 8) as u8,
        }
    }

    #[test]
    fn what_was_never_begun_is_not_known() {
        let words = region(4);
        let filter = MapFilter::new(&words);
        assert!(!filter.has_none(1, rel(1)));
        filter.note(1, rel(1));
        assert!(words.iter().all(|word| word.load(Ordering::SeqCst) == 0));
    }

    #[test]
    fn it_may_not_know_but_never_denies_what_is_there() {
        let words = region(16);
        let filter = MapFilter::new(&words);
        let mut there = HashSet::new();
        let mut random = 17_u64;
        let mut none = 0;
        for step in 0..100_000 {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let number = (random >> 40) as u32;
            let newest = step / 100;
            let space = newest + 1 - (number % 40).min(newest);
            if step % 100 == 0 {
                filter.begin(newest + 1);
            }
            let rel = rel(number / 64 % 500);
            if number.is_multiple_of(9) {
                filter.note(space, rel);
                there.insert((space, rel));
            } else if filter.has_none(space, rel) {
                assert!(!there.contains(&(space, rel)));
                none += 1;
            }
        }
        assert!(none > 20_000, "{none}");
    }

    #[test]
    fn relations_are_spread() {
        let places: HashSet<_> = (0..2000).map(|n| place(rel(n))).collect();
        assert!(places.len() > 250, "{}", places.len());
        let catalogs = (0..100).map(|n| RelFork {
            spc: 1663,
            rel: 1247 + n,
            fork: 0,
        });
        let places: HashSet<_> = catalogs.map(place).collect();
        assert!(places.len() > 70, "{}", places.len());
    }

    #[test]
    fn a_place_that_changes_hands_denies_nothing() {
        let words = region(1);
        let filter = MapFilter::new(&words);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                // Each even relation is noted before its space's number is told.
                let mut looks = 0;
                for space in (1..=50_000).cycle().take(300_000) {
                    looks += u32::from(filter.has_none(space, rel(3)));
                    assert!(!filter.has_none(space, rel(2)) || space % 2 == 1);
                }
                looks
            });
            for space in 1..=50_000 {
                if space % 2 == 0 {
                    // What no one may be told of: between begin and note nobody knows of the space.
                    words[0].store(0, Ordering::SeqCst);
                    let (word, bit) = place(rel(2));
                    for (n, bits) in words.iter().enumerate().skip(1) {
                        bits.store(if n == word { bit } else { 0 }, Ordering::SeqCst);
                    }
                    words[0].store(space, Ordering::SeqCst);
                } else {
                    filter.begin(space);
                }
            }
            reader.join().unwrap();
        });
    }
}
