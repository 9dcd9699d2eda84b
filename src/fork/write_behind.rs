//! The worker writes out what a cut has captured, once the fork is made: those pages are dirty still, and the
//! next cut would capture them again. For a while it goes on with what gets dirty since: who makes one fork
//! soon makes another, and the fewer dirty pages a cut finds, the shorter is its pause.

use crate::fork::{capture, pool};
use crate::shmem;
use crate::shmem::registry;
use pgrx::bgworkers::BackgroundWorker;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long after a cut.
const WHILE: Duration = Duration::from_secs(2);
/// Between two looks at a source.
const PAUSE: Duration = Duration::from_millis(50);
/// The part of the worker's time that looks may take in a large pool.
const PART: u32 = 20;
/// So few dirty pages are left alone: some are written to all the time.
const FEW: usize = 64;

thread_local! {
    /// The sources of cuts lately: until when to look, and when to look next.
    static SOURCES: RefCell<BTreeMap<u32, (Instant, Instant)>> = const { RefCell::new(BTreeMap::new()) };
}

/// Writes out the dirty pages of sources that were cut lately, when it is time for it.
pub fn run() {
    note_cuts();
    let now = Instant::now();
    let due = SOURCES.with_borrow_mut(|sources| {
        sources.retain(|_, (until, _)| *until > now);
        let due = sources.iter().filter(|(_, (_, next))| *next <= now);
        due.map(|(source, _)| *source).collect::<Vec<_>>()
    });
    for source in due {
        let began = Instant::now();
        let dirty = pool::dirty(source);
        let looked = began.elapsed();
        if dirty.len() > FEW {
            // In a transaction, because its resource owner has the pins.
            BackgroundWorker::transaction(|| capture::write_out(&dirty, usize::MAX));
        }
        let wrote = began.elapsed() - looked;
        SOURCES.with_borrow_mut(|sources| {
            if let Some((_, next)) = sources.get_mut(&source) {
                // Where many pages are written to again and again, writing takes half the time.
                *next = Instant::now() + PAUSE.max(looked * PART).max(wrote);
            }
        });
    }
}

/// How long until there may be something to do; `None`: not before it is asked for.
pub fn next() -> Option<Duration> {
    SOURCES.with_borrow(|sources| {
        let next = sources.values().map(|(_, next)| *next).min()?;
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
            sources.insert(source, (now + WHILE, now));
        }
    });
}
