//! The page maps' cache by itself: how fast it answers, how much memory it takes.

use crate::bench::{timed, Bench};
use crate::line::{Line, Outcome};
use crate::stats::Samples;
use pg_fork_core::cache::{chunk_bit, Key, PageMapCache, CHUNK_BLOCKS};
use pg_fork_core::types::RelFork;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU32;

const PAGE: usize = 8192;
const LOOKUPS: u32 = 100_000;
const REL: RelFork = RelFork {
    spc: 1663,
    rel: 16384,
    fork: 0,
};

pub fn run(bench: &Bench) -> Outcome {
    let smoke = bench.options.smoke;
    // As large as pg_fork.page_map_memory is by default, and half full of isolated blocks.
    let words = if smoke { 1 << 18 } else { 16 << 20 };
    let words: Vec<_> = (0..words).map(|_| AtomicU32::new(0)).collect();
    let cache = PageMapCache::new(&words);
    let chunks = (words.len() * 4 / PageMapCache::bytes_per_entry() / 2) as u32;
    for chunk in 0..chunks {
        cache.put(&Key::chunk_of(0, REL, chunk * CHUNK_BLOCKS), &[1; 6]);
    }
    let file = pages(if smoke { 256 } else { 32_768 });
    let (mut lookups, mut reads) = (Vec::new(), Vec::new());
    for round in 0..bench.options.samples {
        reads.push(per_read(&file, round));
        lookups.push(per_lookup(&cache, chunks, round));
    }
    let (lookups, reads) = (Samples::new(lookups), Samples::new(reads));
    let result = lookups.median() / reads.median();
    // By the layout: an entry holds one chunk's bits, whether one is set or all.
    let isolated = PageMapCache::bytes_per_entry() as f64;
    let dense = isolated / f64::from(CHUNK_BLOCKS);
    let memory =
        |what: &str, bytes: f64| Line::of(what, Samples::new(vec![bytes]), bytes, "B", "B");
    vec![
        Line::of(
            "lookup",
            lookups,
            result,
            "ns",
            "× one 8 KB read from the OS cache",
        )
        .beside(reads.median())
        .at_most(0.1),
        memory("memory of a changed block, dense", dense).at_most(0.25),
        memory("memory of a changed block, isolated", isolated).at_most(48.0),
    ]
    .into()
}

/// A file of so many pages, in the OS cache.
fn pages(count: usize) -> File {
    let path = std::env::temp_dir().join(format!("pgfork-pages-{}", std::process::id()));
    fs::write(&path, vec![1; count * PAGE]).expect("written");
    let file = File::open(&path).expect("opened");
    fs::remove_file(path).expect("removed");
    file
}

/// Nanoseconds of one lookup, of blocks in no order.
fn per_lookup(cache: &PageMapCache, chunks: u32, round: u32) -> f64 {
    let mut found = 0;
    let (ms, ()) = timed(|| {
        for i in 0..LOOKUPS {
            let chunk = (i + round).wrapping_mul(2_654_435_761) % chunks;
            let block = chunk * CHUNK_BLOCKS;
            let payload = cache.lookup(&Key::chunk_of(0, REL, black_box(block)));
            found += u32::from(payload.is_some_and(|bits| chunk_bit(&bits, block)));
        }
    });
    // Some sets are fuller than others, and have evicted.
    assert!(found > LOOKUPS / 2, "{found} of {LOOKUPS}");
    ms * 1e6 / f64::from(LOOKUPS)
}

/// Nanoseconds of one read, of pages in no order.
fn per_read(file: &File, round: u32) -> f64 {
    let pages = file.metadata().expect("its length").len() / PAGE as u64;
    let mut page = [0; PAGE];
    let count = LOOKUPS / 20;
    let (ms, ()) = timed(|| {
        for i in 0..count {
            let at = u64::from((i + round).wrapping_mul(2_654_435_761)) % pages;
            file.read_exact_at(&mut page, at * PAGE as u64)
                .expect("read");
            black_box(&page);
        }
    });
    ms * 1e6 / f64::from(count)
}
