//! What a run of layers holds together, so that a read with many later cuts asks once, not each layer.
//!
//! A summary is of one cut and one group of blocks: the bits of all closed layers from the cut on,
//! or-ed. It may say yes where each layer says no (the relation was handed over, or a layer is gone
//! meanwhile), but never no where one says yes:
//!
//! - A closed layer gets no new bits ([`Layer::sound`]), but by a merge with a later one.
//! - Merges are counted: first the bits are in place, second the count goes up, third the merged layer
//!   leaves the topology. A summary counts only with the number of merges that was read before the
//!   layers were asked. So who does not see the merged layer any more sees the new count, and asks anew
//!   the layer that has its bits now. The same before pages go from a layer that is being merged.
//!
//! Summaries may be forgotten at any time: they are made again from the layers.

use crate::engine::{EngineError, Host};
use crate::topology::Layer;
use crate::types::{Block, MapState, RelFork};
use std::rc::Rc;

/// Words of bits in a summary.
pub const GROUP_WORDS: usize = 3;
/// The blocks of a summary.
pub const GROUP_BLOCKS: u32 = GROUP_WORDS as u32 * 32;
/// With fewer closed layers they are asked one by one.
const ENOUGH: usize = if cfg!(test) { 1 } else { 4 };

/// The bits of a group of blocks.
pub type Bits = [u32; GROUP_WORDS];

/// The bits of all closed layers from a cut on, and up to the layer `upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// [`Layer::seq`] of the last layer that was asked.
    pub upto: u64,
    /// [`Host::merges`] before the first was asked.
    pub merges: u32,
    pub bits: Bits,
}

/// Whether `bits`, of its group, has the bit of `block`.
fn has(bits: &Bits, block: Block) -> bool {
    let bit = block % GROUP_BLOCKS;
    bits[(bit / 32) as usize] >> (bit % 32) & 1 == 1
}

/// How many of the layers at the beginning need not be asked for the block: none of them holds it.
pub fn skip<H: Host>(
    host: &H,
    layers: &[Rc<Layer>],
    rel: RelFork,
    block: Block,
) -> Result<usize, EngineError<H::Error>> {
    // Who was not stopped at the newest cut may be writing to a layer before it yet.
    let closed = layers.iter().rposition(|layer| layer.sound).unwrap_or(0);
    if closed < ENOUGH {
        return Ok(0);
    }
    let held = has(&bits_of(host, &layers[..closed], rel, block)?, block);
    Ok(if held { 0 } else { closed })
}

fn bits_of<H: Host>(
    host: &H,
    closed: &[Rc<Layer>],
    rel: RelFork,
    block: Block,
) -> Result<Bits, EngineError<H::Error>> {
    let space = closed[0].space;
    // First the count, because what merges later must be asked anew.
    let merges = host.merges();
    let known = host.summary(space, rel, block);
    let mut summary = known
        .filter(|known| known.merges == merges)
        .unwrap_or(Summary {
            upto: 0,
            merges,
            bits: [0; GROUP_WORDS],
        });
    let asked = closed.partition_point(|layer| layer.seq <= summary.upto);
    if asked == closed.len() {
        return Ok(summary.bits);
    }
    for layer in &closed[asked..] {
        match host.map_state(layer.oid, layer.space, rel)? {
            Some(MapState::Noted { .. }) => {
                let more = host.bits(layer.oid, layer.space, rel, block)?;
                for (word, more) in summary.bits.iter_mut().zip(more) {
                    *word |= more;
                }
            }
            // All that no earlier layer holds is there.
            Some(MapState::HandedOver { .. }) => summary.bits = [u32::MAX; GROUP_WORDS],
            _ => {}
        }
        summary.upto = layer.seq;
    }
    host.put_summary(space, rel, block, &summary);
    Ok(summary.bits)
}
