//! The worker writes out what a cut has captured, once the fork is made: those pages are dirty still, and the
//! next cut would capture them again. For a while it goes on with what gets dirty since: who makes one fork
//! soon makes another, and the fewer dirty pages a cut finds, the shorter is its pause.

use crate::fork::capture;
use crate::fork::pool::{self, Dirty};
use crate::shmem;
use crate::shmem::registry;
use pg_fork_core::types::{Block, RelFork};
use pgrx::bgworkers::BackgroundWorker;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How long after a cut.
const WHILE: Duration = Duration::from_secs(2);
/// Between two looks at a source.
const PAUSE: Duration = Duration::from_millis(50);
/// The part of the worker's time that looks may take in a large pool.
const PART: u32 = 20;
/// So few dirty pages are left alone.
const FEW: usize = 64;
/// A page is written out once in so long: those that are changed all the time are few, a cut may as well
/// capture them, and who changes them would wait for each write.
const REST: Duration = Duration::from_millis(500);

/// A source of cuts lately.
struct Source {
    /// Until when to look, and when to look next.
    until: Instant,
    next: Instant,
    /// What was written out lately.
    written: HashMap<(RelFork, Block), Instant>,
}

thread_local! {
    static SOURCES: RefCell<BTreeMap<u32, Source>> = const { RefCell::new(BTreeMap::new()) };
}

/// Writes out the dirty pages of sources that were cut lately, when it is time for it.
pub fn run() {
    note_cuts();
    let now = Instant::now();
    let due = SOURCES.with_borrow_mut(|sources| {
        sources.retain(|_, source| source.until > now);
        let due = sources.iter().filter(|(_, source)| source.next <= now);
        due.map(|(oid, _)| *oid).collect::<Vec<_>>()
    });
    for source in due {
        let began = Instant::now();
        let mut dirty = pool::dirty(source);
        let looked = began.elapsed();
        SOURCES.with_borrow_mut(|sources| {
            if let Some(source) = sources.get_mut(&source) {
                source.written.retain(|_, at| at.elapsed() < REST);
                dirty.retain(|page| !source.written.contains_key(&key(page)));
            }
        });
        if dirty.len() > FEW {
            // In a transaction, because its resource owner has the pins.
            BackgroundWorker::transaction(|| capture::write_out(&dirty, usize::MAX));
        }
        let wrote = began.elapsed() - looked;
        SOURCES.with_borrow_mut(|sources| {
            if let Some(source) = sources.get_mut(&source) {
                let now = Instant::now();
                // Where there is much to write, that takes half the time.
                source.next = now + PAUSE.max(looked * PART).max(wrote);
                if dirty.len() > FEW {
                    let keys = dirty.iter().map(key);
                    source.written.extend(keys.map(|key| (key, now)));
                }
            }
        });
    }
}

fn key(page: &Dirty) -> (RelFork, Block) {
    (page.rel(), page.tag.blockNum)
}

/// How long until there may be something to do; `None`: not before it is asked for.
pub fn next() -> Option<Duration> {
    SOURCES.with_borrow(|sources| {
        let next = sources.values().map(|source| source.next).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    })
}

fn note_cuts() {
    let asked: Vec<(u32, u32)> = match shmem::any_live() {
        true => registry::read(|table| {
            let asked = table.iter().filter(|slot| slot.write_out != 0);
            asked.map(|slot| (slot.oid, slot.source)).collect()
        }),
        false => return,
    };
    if asked.is_empty() {
        return;
    }
    // First what is asked is forgotten, because a page that cannot be written is the source's trouble, and
    // is told of by the checkpointer.
    registry::touch(|table| {
        for (layer, _) in &asked {
            table.update(*layer, |slot| slot.write_out = 0);
        }
    });
    let now = Instant::now();
    SOURCES.with_borrow_mut(|sources| {
        for (_, source) in asked {
            let written = sources.remove(&source).map(|source| source.written);
            let written = written.unwrap_or_default();
            let (until, next) = (now + WHILE, now);
            sources.insert(
                source,
                Source {
                    until,
                    next,
                    written,
                },
            );
        }
    });
}
