//! The worker writes out what a cut has captured, once the fork is made: those pages are dirty still, and the
//! next cut would capture them again.

use crate::fork::{capture, pool};
use crate::shmem::registry;
use pgrx::bgworkers::BackgroundWorker;

/// Writes out the dirty pages of the sources that cuts asked it for.
pub fn run() {
    let asked: Vec<(u32, u32)> = registry::read(|table| {
        let asked = table.iter().filter(|slot| slot.write_out != 0);
        asked.map(|slot| (slot.oid, slot.source)).collect()
    });
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
    let mut sources: Vec<u32> = asked.into_iter().map(|(_, source)| source).collect();
    sources.sort_unstable();
    sources.dedup();
    for source in sources {
        // In a transaction, because its resource owner has the pins.
        BackgroundWorker::transaction(|| capture::write_out(&pool::dirty(source), usize::MAX));
    }
}
