//! What a truncation of a source cuts off goes to the layer in large pieces: whoever truncates is in a critical section,
//! and has the relation locked against everyone (storage.c, `RelationTruncate`).

use crate::fork::files::SEGMENT_BLOCKS;
use crate::fork::marks;
use crate::pg::disk;
use crate::shmem::pagemap;
use crate::smgr::{handles, sync};
use crate::stop_point;
use pg_fork_core::summary::GROUP_BLOCKS;
use pg_fork_core::topology::Layer;
use pg_fork_core::types::{Block, RelFork, PAGE_SIZE};
use std::io;
use std::ops::Range;

/// Saves the source's blocks from `first` on, and below `end`, that the layer does not have.
pub fn save(db: u32, layer: &Layer, rel: RelFork, first: Block, end: Block) -> io::Result<()> {
    let _marked = marks::hold_layer(layer.oid)?;
    let mut at = first;
    while at < end {
        let segment = at / SEGMENT_BLOCKS;
        let last = end.min((segment + 1).saturating_mul(SEGMENT_BLOCKS));
        let missing = missing(layer, rel, at..last)?;
        if !missing.is_empty() {
            save_in_segment(db, layer, rel, segment, &missing)?;
        }
        at = last;
    }
    Ok(())
}

fn save_in_segment(
    db: u32,
    layer: &Layer,
    rel: RelFork,
    segment: u32,
    missing: &[Range<Block>],
) -> io::Result<()> {
    stop_point::io("save-tail")?;
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let from = handles::open(db, rel, segment, false)?.ok_or_else(gone)?;
    let to = handles::open(layer.oid, rel, segment, true)?.ok_or_else(gone)?;
    // I4: first the bytes, second the bits.
    for run in missing {
        let [offset, len] = [run.start % SEGMENT_BLOCKS, run.end - run.start]
            .map(|n| u64::from(n) * PAGE_SIZE as u64);
        disk::copy(&from, &to, offset, len)?;
    }
    sync::register(layer.oid, rel, segment)?;
    stop_point::at("save-tail-pages");
    for run in missing {
        pagemap::set_bits(layer.oid, layer.space, rel, run.clone())?;
    }
    pagemap::sync_later(layer.oid, rel)
}

/// The runs of blocks that have no bit.
fn missing(layer: &Layer, rel: RelFork, blocks: Range<Block>) -> io::Result<Vec<Range<Block>>> {
    let mut runs: Vec<Range<Block>> = Vec::new();
    let mut group = 0;
    let mut bits = None;
    for block in blocks {
        let bits = match bits {
            Some(bits) if block / GROUP_BLOCKS == group => bits,
            _ => {
                group = block / GROUP_BLOCKS;
                let read = pagemap::bits(layer.oid, layer.space, rel, block)?;
                bits = Some(read);
                read
            }
        };
        let bit = block % GROUP_BLOCKS;
        if bits[(bit / 32) as usize] >> (bit % 32) & 1 == 1 {
            continue;
        }
        match runs.last_mut().filter(|run| run.end == block) {
            Some(run) => run.end = block + 1,
            None => runs.push(block..block + 1),
        }
    }
    Ok(runs)
}
