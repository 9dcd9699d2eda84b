//! The page-map cache: a fixed region of shared memory, set-associative, read without locks.
//!
//! An entry is 40 bytes: 16 of key and 24 of payload, which is either the header
//! of one relation fork's map or 192 of its bits. Eight entries make a set; a
//! key's hash names its set. The last words of their keys stand together at the set's
//! beginning, so that who looks one up touches no other. A lookup reads the set under a sequence counter and
//! tries again when a writer was at work. Writers are serialised by the caller,
//! who holds the lock of the set's partition; that same lock also orders them
//! with the map file, so an entry is never older than the file (D9).
//!
//! The cache may forget any entry at any time: the files hold all of it.

use crate::summary::{Bits, Summary, GROUP_BLOCKS, GROUP_WORDS};
use crate::types::{Block, RelFork, Space};
use std::sync::atomic::{fence, AtomicU32, Ordering};

/// Locks that the sets are divided among.
pub const PARTITIONS: usize = 128;
/// Words of payload in an entry.
pub const PAYLOAD_WORDS: usize = 6;
/// Bits of payload in an entry: the blocks of one chunk.
pub const CHUNK_BLOCKS: u32 = PAYLOAD_WORDS as u32 * 32;

const WAYS: usize = 8;
/// The rest of the key, and the payload.
const ENTRY_WORDS: usize = KEY_WORDS + PAYLOAD_WORDS;
const KEY_WORDS: usize = 3;
/// A sequence counter, a clock hand, the tags, and the entries.
const SET_WORDS: usize = TAGS + WAYS * (1 + ENTRY_WORDS);
const TAGS: usize = 2;
const HEADER_CHUNK: u32 = (1 << 26) - 1;
/// What tells a summary's key from a map's: no relation fork has this bit.
const SUMMARY: u8 = 8;
const USED: u32 = 1;
const RECENT: u32 = 2;

const _: () = assert!((1 + ENTRY_WORDS) * 4 == 40);
const _: () = assert!(u32::MAX / GROUP_BLOCKS < HEADER_CHUNK);
// A group lies within one chunk.
const _: () = assert!(PAYLOAD_WORDS.is_multiple_of(GROUP_WORDS));

/// What an entry holds.
pub type Payload = [u32; PAYLOAD_WORDS];

/// An entry's key: the header or one chunk of a relation fork's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    space: u32,
    spc: u32,
    rel: u32,
    /// chunk << 6 | fork << 2 | RECENT | USED, with the two lowest bits clear here
    tag: u32,
}

impl Key {
    /// The key of the map's header.
    pub fn header(space: Space, rel: RelFork) -> Self {
        Self::new(space, rel, HEADER_CHUNK)
    }

    /// The key of the chunk that holds the bit of `block`.
    pub fn chunk_of(space: Space, rel: RelFork, block: Block) -> Self {
        Self::new(space, rel, block / CHUNK_BLOCKS)
    }

    /// The key of the summary of the block's group, for the cut whose layer has this space.
    pub fn summary_of(space: Space, rel: RelFork, block: Block) -> Self {
        let rel = RelFork {
            fork: rel.fork | SUMMARY,
            ..rel
        };
        Self::new(space, rel, block / GROUP_BLOCKS)
    }

    fn new(space: Space, rel: RelFork, chunk: u32) -> Self {
        Key {
            space,
            spc: rel.spc,
            rel: rel.rel,
            tag: chunk << 6 | u32::from(rel.fork) << 2,
        }
    }

    /// All but the tag.
    fn words(&self) -> [u32; KEY_WORDS] {
        [self.space, self.spc, self.rel]
    }

    fn hash(&self) -> u64 {
        let a = u64::from(self.space) << 32 | u64::from(self.rel);
        let b = u64::from(self.spc) << 32 | u64::from(self.tag);
        let x = a.wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ b.wrapping_mul(0xC2B2_AE3D_27D4_EB4F).rotate_left(31);
        let x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        x ^ (x >> 32)
    }
}

/// The cache over a region of words, all zero when the server starts.
pub struct PageMapCache<'a> {
    words: &'a [AtomicU32],
    sets: usize,
}

impl<'a> PageMapCache<'a> {
    /// A cache over `words`; what does not fill a set is left over. At least one set must fit.
    pub fn new(words: &'a [AtomicU32]) -> Self {
        let sets = words.len() / SET_WORDS;
        assert!(sets > 0, "the page-map cache needs room for one set");
        PageMapCache { words, sets }
    }

    /// The fewest words that make a cache.
    pub const fn min_words() -> usize {
        SET_WORDS * PARTITIONS
    }

    /// Bytes of cache that one changed block costs when its neighbours are unchanged.
    pub const fn bytes_per_entry() -> usize {
        SET_WORDS * 4 / WAYS
    }

    /// The partition whose lock a writer of `key` must hold exclusively.
    pub fn partition(&self, key: &Key) -> usize {
        self.set_of(key) % PARTITIONS
    }

    /// The entry's payload, if it is cached. Takes no lock.
    pub fn lookup(&self, key: &Key) -> Option<Payload> {
        let set = self.set(self.set_of(key));
        loop {
            let before = set[0].load(Ordering::Acquire);
            if before & 1 == 1 {
                std::hint::spin_loop();
                continue;
            }
            let found = find(set, key).map(|way| {
                let mut payload = [0; PAYLOAD_WORDS];
                for (word, from) in payload.iter_mut().zip(&entry(set, way)[KEY_WORDS..]) {
                    *word = from.load(Ordering::Relaxed);
                }
                (payload, &set[TAGS + way])
            });
            fence(Ordering::Acquire);
            if set[0].load(Ordering::Relaxed) != before {
                continue;
            }
            let (payload, tag) = found?;
            // Only a hint for the clock. Should a writer have replaced the entry since, the
            // exchange fails.
            let seen = key.tag | USED;
            if tag.load(Ordering::Relaxed) == seen {
                let _ =
                    tag.compare_exchange(seen, seen | RECENT, Ordering::Relaxed, Ordering::Relaxed);
            }
            return Some(payload);
        }
    }

    /// Puts an entry in, or changes it, evicting another if the set is full.
    ///
    /// The caller holds the partition's lock exclusively.
    pub fn put(&self, key: &Key, payload: &Payload) {
        let set = self.set(self.set_of(key));
        let way = find(set, key).unwrap_or_else(|| victim(set));
        write(set, || {
            let words = key.words().into_iter().chain(*payload);
            for (word, value) in entry(set, way).iter().zip(words) {
                word.store(value, Ordering::Relaxed);
            }
            set[TAGS + way].store(key.tag | USED, Ordering::Relaxed);
        });
    }

    /// Takes an entry out, if it is there. The caller holds the partition's lock exclusively.
    pub fn remove(&self, key: &Key) {
        let set = self.set(self.set_of(key));
        if let Some(way) = find(set, key) {
            write(set, || set[TAGS + way].store(0, Ordering::Relaxed));
        }
    }

    fn set_of(&self, key: &Key) -> usize {
        // The hash as a part of all, without a division.
        ((u128::from(key.hash()) * self.sets as u128) >> 64) as usize
    }

    fn set(&self, n: usize) -> &'a [AtomicU32] {
        &self.words[n * SET_WORDS..(n + 1) * SET_WORDS]
    }
}

/// The bits of the block's group in `payload`, a chunk.
pub fn chunk_group(payload: &Payload, block: Block) -> Bits {
    let first = (block % CHUNK_BLOCKS / GROUP_BLOCKS) as usize * GROUP_WORDS;
    std::array::from_fn(|n| payload[first + n])
}

/// A summary as it is kept.
pub fn pack_summary(summary: &Summary) -> Payload {
    let [a, b, c] = summary.bits;
    let upto = summary.upto;
    [(upto >> 32) as u32, upto as u32, summary.merges, a, b, c]
}

/// The summary that was kept.
pub fn unpack_summary(payload: &Payload) -> Summary {
    let [high, low, merges, a, b, c] = *payload;
    Summary {
        upto: u64::from(high) << 32 | u64::from(low),
        merges,
        bits: [a, b, c],
    }
}

/// Whether `payload`, a chunk, has the bit of `block`.
pub fn chunk_bit(payload: &Payload, block: Block) -> bool {
    let bit = block % CHUNK_BLOCKS;
    payload[(bit / 32) as usize] >> (bit % 32) & 1 == 1
}

/// Sets the bit of `block` in `payload`, a chunk.
pub fn set_chunk_bit(payload: &mut Payload, block: Block) {
    let bit = block % CHUNK_BLOCKS;
    payload[(bit / 32) as usize] |= 1 << (bit % 32);
}

fn entry(set: &[AtomicU32], way: usize) -> &[AtomicU32] {
    let at = TAGS + WAYS + way * ENTRY_WORDS;
    &set[at..at + ENTRY_WORDS]
}

/// The way that has the key.
#[inline]
fn find(set: &[AtomicU32], key: &Key) -> Option<usize> {
    let tags = &set[TAGS..TAGS + WAYS];
    let used = key.tag | USED;
    (0..WAYS).find(|&way| {
        tags[way].load(Ordering::Relaxed) & !RECENT == used && {
            let entry = entry(set, way).iter();
            let mut words = entry.zip(key.words());
            words.all(|(word, value)| word.load(Ordering::Relaxed) == value)
        }
    })
}

/// A free way, or the first that the clock finds not used since it came by.
fn victim(set: &[AtomicU32]) -> usize {
    let tag = |way: usize| &set[TAGS + way];
    if let Some(way) = (0..WAYS).find(|&way| tag(way).load(Ordering::Relaxed) == 0) {
        return way;
    }
    for _ in 0..2 * WAYS {
        let way = set[1].load(Ordering::Relaxed) as usize % WAYS;
        set[1].store((way as u32 + 1) % WAYS as u32, Ordering::Relaxed);
        if tag(way).fetch_and(!RECENT, Ordering::Relaxed) & RECENT == 0 {
            return way;
        }
    }
    0
}

fn write(set: &[AtomicU32], change: impl FnOnce()) {
    let seq = set[0].load(Ordering::Relaxed);
    set[0].store(seq.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::Release);
    change();
    set[0].store(seq.wrapping_add(2), Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn region(sets: usize) -> Vec<AtomicU32> {
        (0..sets * SET_WORDS).map(|_| AtomicU32::new(0)).collect()
    }

    fn rel(n: u32) -> RelFork {
        RelFork {
            spc: 1663,
            rel: n,
            fork: (n % 8) as u8,
        }
    }

    #[test]
    fn an_entry_costs_what_the_design_allows() {
        assert!(PageMapCache::bytes_per_entry() <= 48);
        let dense = PageMapCache::bytes_per_entry() as f64 / f64::from(CHUNK_BLOCKS);
        assert!(dense <= 0.25, "{dense} bytes for each block");
    }

    #[test]
    fn it_forgets_but_never_lies() {
        let words = region(4);
        let cache = PageMapCache::new(&words);
        let mut model: HashMap<u32, Payload> = HashMap::new();
        let mut random = 12345u64;
        let mut hits = 0;
        for step in 0..100_000u32 {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let n = (random >> 33) as u32 % 60;
            let key = Key::chunk_of(7, rel(n), n * 1000);
            match step % 3 {
                0 => {
                    let payload = [step; PAYLOAD_WORDS];
                    cache.put(&key, &payload);
                    model.insert(n, payload);
                }
                1 if n.is_multiple_of(5) => {
                    cache.remove(&key);
                    model.remove(&n);
                    assert_eq!(cache.lookup(&key), None);
                }
                _ => {
                    if let Some(found) = cache.lookup(&key) {
                        hits += 1;
                        assert_eq!(Some(&found), model.get(&n));
                    }
                }
            }
        }
        assert!(hits > 10_000);
    }

    #[test]
    fn what_was_put_last_is_there() {
        let words = region(1);
        let cache = PageMapCache::new(&words);
        for n in 0..1000 {
            let key = Key::header(1, rel(n));
            cache.put(&key, &[n; PAYLOAD_WORDS]);
            assert_eq!(cache.lookup(&key), Some([n; PAYLOAD_WORDS]));
        }
    }

    #[test]
    fn header_and_chunks_are_kept_apart() {
        let words = region(8);
        let cache = PageMapCache::new(&words);
        let last = Key::chunk_of(1, rel(9), u32::MAX - 1);
        cache.put(&last, &[1; PAYLOAD_WORDS]);
        cache.put(&Key::header(1, rel(9)), &[2; PAYLOAD_WORDS]);
        assert_eq!(cache.lookup(&last), Some([1; PAYLOAD_WORDS]));
        assert_eq!(cache.lookup(&Key::header(2, rel(9))), None);
        assert_eq!(cache.lookup(&Key::header(1, rel(8).handed())), None);
        assert_eq!(
            cache.lookup(&Key::summary_of(1, rel(9), u32::MAX - 1)),
            None
        );
    }

    #[test]
    fn summaries_keep_what_was_put() {
        let summary = Summary {
            upto: 0x0123_4567_89AB_CDEF,
            merges: 77,
            bits: [1, 2, 3],
        };
        assert_eq!(unpack_summary(&pack_summary(&summary)), summary);
        let mut chunk = [0; PAYLOAD_WORDS];
        set_chunk_bit(&mut chunk, 500 * CHUNK_BLOCKS + 97);
        assert_eq!(chunk_group(&chunk, 500 * CHUNK_BLOCKS + 95), [0; 3]);
        assert_eq!(chunk_group(&chunk, 500 * CHUNK_BLOCKS + 191), [2, 0, 0]);
    }

    #[test]
    fn readers_never_see_half_a_write() {
        let words = region(1);
        let cache = PageMapCache::new(&words);
        let keys: Vec<_> = (0..12).map(|n| Key::header(3, rel(n))).collect();
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for round in 0..200_000 {
                            let n = round % keys.len();
                            if let Some(payload) = cache.lookup(&keys[n]) {
                                assert!(payload.iter().all(|w| *w == payload[0]));
                                assert_eq!(payload[0] as usize % keys.len(), n);
                            }
                        }
                    })
                })
                .collect();
            for round in 0..200_000u32 {
                let n = round as usize % keys.len();
                cache.put(&keys[n], &[round; PAYLOAD_WORDS]);
            }
            for reader in readers {
                reader.join().unwrap();
            }
        });
    }
}
