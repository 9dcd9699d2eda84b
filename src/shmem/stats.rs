//! Counters for the whole server, since its start.

use crate::pg::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the pause histogram, in microseconds; the last bucket has none.
pub const PAUSE_BOUNDS: [u64; 7] = [250, 500, 1_000, 2_000, 5_000, 10_000, 50_000];

/// What is counted for each block that is read or written.
#[derive(Clone, Copy)]
pub enum Often {
    ReadInherited,
    ReadPrivate,
    ReadLayer,
    Preimages,
    MapHits,
    MapMisses,
}

/// Processes that count at the same time must not wait for each other's cache line: each counts in one
/// of so many places.
const PLACES: usize = 64;

#[repr(C, align(64))]
pub struct Place([AtomicU64; 6]);

/// The counters, all zero at the start.
#[repr(C)]
pub struct Counters {
    often: [Place; PLACES],
    pub cuts: AtomicU64,
    pub cuts_shared: AtomicU64,
    pub cut_retries: AtomicU64,
    pub cut_timeouts: AtomicU64,
    pub captured: AtomicU64,
    pub pause_last: AtomicU64,
    pub pause_total: AtomicU64,
    pub pause_max: AtomicU64,
    pub pauses: [AtomicU64; PAUSE_BOUNDS.len() + 1],
}

/// Counts one more block, where there is shared memory to count in.
#[inline]
pub fn count_often(which: Often) {
    if let Some(shared) = super::shared() {
        let place = process::my_number().unwrap_or(0) % PLACES;
        shared.stats.often[place].0[which as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts one more, where there is shared memory to count in.
pub fn count(which: impl Fn(&Counters) -> &AtomicU64) {
    if let Some(shared) = super::shared() {
        which(&shared.stats).fetch_add(1, Ordering::Relaxed);
    }
}

/// Notes how long a cut held the source's backends, in microseconds, and how many pages it captured.
pub fn pause(micros: u64, captured: usize) {
    let Some(shared) = super::shared() else {
        return;
    };
    let stats = &shared.stats;
    stats.pause_last.store(micros, Ordering::Relaxed);
    stats.captured.fetch_add(captured as u64, Ordering::Relaxed);
    stats.pause_total.fetch_add(micros, Ordering::Relaxed);
    stats.pause_max.fetch_max(micros, Ordering::Relaxed);
    let bucket = PAUSE_BOUNDS
        .iter()
        .position(|bound| micros <= *bound)
        .unwrap_or(PAUSE_BOUNDS.len());
    stats.pauses[bucket].fetch_add(1, Ordering::Relaxed);
}

/// Name, value, unit, description of each counter.
pub fn snapshot() -> Vec<(String, f64, &'static str, &'static str)> {
    let Some(shared) = super::shared() else {
        return Vec::new();
    };
    let stats = &shared.stats;
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let often = |which: Often| -> f64 {
        let places = stats.often.iter();
        places.map(|place| get(&place.0[which as usize])).sum()
    };
    let cuts = get(&stats.cuts);
    let mean = if cuts > 0.0 {
        get(&stats.pause_total) / cuts / 1000.0
    } else {
        0.0
    };
    let mut rows = vec![
        (
            "blocks_read_inherited".into(),
            often(Often::ReadInherited),
            "blocks",
            "read from a source's own files",
        ),
        (
            "blocks_read_private".into(),
            often(Often::ReadPrivate),
            "blocks",
            "read from a fork's own files",
        ),
        (
            "blocks_read_layer".into(),
            often(Often::ReadLayer),
            "blocks",
            "read from a layer's pre-images",
        ),
        (
            "preimages_written".into(),
            often(Often::Preimages),
            "blocks",
            "saved before a source overwrote them",
        ),
        ("cuts".into(), cuts, "cuts", "cuts taken"),
        (
            "cuts_shared".into(),
            get(&stats.cuts_shared),
            "forks",
            "forks that shared another's cut",
        ),
        (
            "cut_retries".into(),
            get(&stats.cut_retries),
            "cuts",
            "cuts tried again",
        ),
        (
            "cut_timeouts".into(),
            get(&stats.cut_timeouts),
            "cuts",
            "cuts given up",
        ),
        (
            "pages_captured".into(),
            get(&stats.captured),
            "pages",
            "copied from memory while a source was stopped",
        ),
        (
            "pause_last".into(),
            get(&stats.pause_last) / 1000.0,
            "ms",
            "the last cut's pause",
        ),
        ("pause_mean".into(), mean, "ms", "mean of all pauses"),
        (
            "pause_max".into(),
            get(&stats.pause_max) / 1000.0,
            "ms",
            "the longest pause",
        ),
        (
            "page_map_hits".into(),
            often(Often::MapHits),
            "lookups",
            "answered by the page-map cache",
        ),
        (
            "page_map_misses".into(),
            often(Often::MapMisses),
            "lookups",
            "answered by a page map file",
        ),
    ];
    let bounds = PAUSE_BOUNDS
        .iter()
        .map(|bound| format!("pause_le_{bound}_us"));
    for (name, counter) in bounds
        .chain(["pause_longer".to_string()])
        .zip(&stats.pauses)
    {
        rows.push((name, get(counter), "cuts", "pauses in this range"));
    }
    rows
}
