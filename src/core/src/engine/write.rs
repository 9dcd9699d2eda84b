//! What a write, a truncation and a relation's end have to do first (D8), and how layers are merged.

use super::{current_len, fork_state, read_inherited, EngineError, FileOf, Found, Host, Res};
use crate::topology::{Layer, Node};
use crate::types::{Block, DbOid, MapState, Page, RelFork, PAGE_SIZE};
use std::rc::Rc;

/// Reads the block as the database has it on disk now: the old bytes of an overwrite.
fn read_current<H: Host>(
    host: &H,
    oid: DbOid,
    node: &Node,
    rel: RelFork,
    block: Block,
    page: &mut Page,
) -> Res<(), H> {
    let file = FileOf { oid, rel };
    let own = node.origin.is_none()
        || match fork_state(host, oid, node, rel)? {
            MapState::Own { inherited_len } => {
                block >= inherited_len || host.bit(oid, node.space, rel, block)?
            }
            MapState::Untouched { .. } => false,
            _ => true,
        };
    if !own {
        return read_inherited(host, node, rel, block, page).map(|_| ());
    }
    match host.read_file(file, block, page)? {
        Found::Page => Ok(()),
        Found::Nothing => Err(EngineError::NotFound { file, block }),
    }
}

/// Notes in the newest layer how long `rel` was at the cut, before that changes.
///
/// Returns the layer and the blocks that it still may have to save: none if the
/// relation did not exist at the cut.
pub fn note<H: Host>(
    host: &H,
    oid: DbOid,
    node: &Node,
    rel: RelFork,
) -> Res<Option<(Rc<Layer>, Block)>, H> {
    let Some(layer) = node.layers.last() else {
        return Ok(None);
    };
    let state = match host.map_state(layer.oid, layer.space, rel)? {
        Some(state @ (MapState::Noted { .. } | MapState::Absent | MapState::HandedOver { .. })) => {
            state
        }
        _ => {
            let state = match current_len(host, oid, node, rel)? {
                Some(len) => MapState::Noted { len },
                None => MapState::Absent,
            };
            host.set_state(layer.oid, layer.space, rel, state, false)?
        }
    };
    let len = match state {
        MapState::Noted { len } | MapState::HandedOver { len } => len,
        _ => 0,
    };
    Ok(Some((layer.clone(), len)))
}

/// Saves the block's old bytes to the newest layer, if a live cut needs them.
///
/// To be called before the database overwrites the block on disk.
pub fn before_overwrite<H: Host>(
    host: &H,
    oid: DbOid,
    node: &Node,
    rel: RelFork,
    block: Block,
) -> Res<bool, H> {
    match note(host, oid, node, rel)? {
        Some((layer, len)) if block < len => save(host, oid, node, &layer, rel, block),
        _ => Ok(false),
    }
}

fn save<H: Host>(
    host: &H,
    oid: DbOid,
    node: &Node,
    layer: &Layer,
    rel: RelFork,
    block: Block,
) -> Res<bool, H> {
    if host.bit(layer.oid, layer.space, rel, block)? {
        return Ok(false);
    }
    if let Some(MapState::HandedOver { .. }) = host.map_state(layer.oid, layer.space, rel)? {
        // Replay after a crash: it meets the relation as it was before it was dropped. Only what
        // the crash kept from being handed over is in its way.
        let handed = FileOf {
            oid: layer.oid,
            rel: rel.handed(),
        };
        if block < host.file_len(handed)?.unwrap_or(0) {
            return Ok(false);
        }
    }
    let mut page = [0; PAGE_SIZE];
    read_current(host, oid, node, rel, block, &mut page)?;
    let _held = host.hold(layer.oid)?;
    // I4: first the bytes, because a reader that sees the bit reads them;
    host.write_file(
        FileOf {
            oid: layer.oid,
            rel,
        },
        block,
        &page,
    )?;
    host.stop_point("save-page");
    // second the bit, because a reader that does not see it must still find the old bytes in place;
    host.set_bit(layer.oid, layer.space, rel, block)?;
    host.stop_point("save-bit");
    // third, in the caller, the overwrite.
    Ok(true)
}

/// Saves what a truncation to `blocks` will cut off. To be called before it.
pub fn before_truncate<H: Host>(
    host: &H,
    oid: DbOid,
    node: &Node,
    rel: RelFork,
    blocks: Block,
) -> Res<(), H> {
    let Some((layer, len)) = note(host, oid, node, rel)? else {
        return Ok(());
    };
    let state = host.map_state(layer.oid, layer.space, rel)?;
    if node.origin.is_none() && matches!(state, Some(MapState::Noted { .. })) {
        // All of them are the database's own. It may hold up everyone who wants the relation.
        return Ok(host.save_all(oid, &layer, rel, blocks, len)?);
    }
    for block in blocks..len {
        save(host, oid, node, &layer, rel, block)?;
    }
    Ok(())
}

/// Hands the relation's files over to the newest layer, if a live cut needs them.
///
/// To be called before the database unlinks them. After it there may be no file left to unlink.
pub fn before_unlink<H: Host>(host: &H, oid: DbOid, node: &Node, rel: RelFork) -> Res<(), H> {
    let Some((layer, _)) = note(host, oid, node, rel)? else {
        return Ok(());
    };
    let space = layer.space;
    let len = match host.map_state(layer.oid, space, rel)? {
        Some(MapState::Noted { len } | MapState::HandedOver { len }) => len,
        _ => return Ok(()),
    };
    let with_map = match node
        .origin
        .is_some()
        .then(|| fork_state(host, oid, node, rel))
        .transpose()?
    {
        // The fork never wrote to it: who needs it finds it where the fork found it.
        Some(MapState::Untouched { .. } | MapState::Gone) => return Ok(()),
        Some(MapState::Own { .. }) => true,
        _ => false,
    };
    // First the state, because readers then look in both places; second the renames.
    host.set_state(layer.oid, space, rel, MapState::HandedOver { len }, true)?;
    host.stop_point("unlink-state");
    host.hand_over(oid, &layer, rel, with_map)?;
    host.stop_point("unlink-moved");
    Ok(())
}

/// Blocks that are copied before [`Host::merged`] is told.
const MERGE_BATCH: usize = if cfg!(test) { 2 } else { 1024 };

/// Makes the layer `into` hold what `from`, the next one, holds of `rel`, as far as a reader that
/// begins at `into` needs it. No new pre-images go to either any more.
///
/// Begins at the block `first`, and stops where the host wants a break ([`Host::merged`]): returns where to go
/// on then, and `None` if it is done. Readers find each block in one or the other all the while; done again, it
/// does the rest.
pub fn merge<H: Host>(
    host: &H,
    from: &Layer,
    into: &Layer,
    rel: RelFork,
    first: Block,
) -> Res<Option<Block>, H> {
    let file_of = |layer: &Layer| FileOf {
        oid: layer.oid,
        rel,
    };
    let said = host.map_state(from.oid, from.space, rel)?;
    let len = match host.map_state(into.oid, into.space, rel)? {
        // The readers of `into` never get past it.
        Some(MapState::Absent | MapState::HandedOver { .. }) => return Ok(None),
        Some(MapState::Noted { len }) => len,
        _ => {
            host.share(from, into, rel, false)?;
            return Ok(None);
        }
    };
    let mut next = first;
    let mut copied = Vec::new();
    let mut page = [0; PAGE_SIZE];
    while let Some(block) = host.next_bit(from.oid, from.space, rel, next, len)? {
        if !host.bit(into.oid, into.space, rel, block)? {
            let [file, to] = [from, into].map(file_of);
            if host.read_file(file, block, &mut page)? == Found::Nothing {
                return Err(EngineError::NotFound { file, block });
            }
            // I4: first the bytes, second the bit.
            host.write_file(to, block, &page)?;
            host.stop_point("merge-page");
            host.set_bit(into.oid, into.space, rel, block)?;
            copied.push(block);
        }
        next = block + 1;
        // Third, the page may go where it came from.
        if copied.len() >= MERGE_BATCH {
            if !host.merged(file_of(from), &copied)? {
                return Ok(Some(next));
            }
            copied.clear();
        }
    }
    if !copied.is_empty() {
        host.merged(file_of(from), &copied)?;
    }
    if let Some(MapState::HandedOver { .. }) = said {
        // First the files, because readers look for them once the state says so.
        host.share(from, into, rel, true)?;
        host.stop_point("merge-handed");
        host.set_state(
            into.oid,
            into.space,
            rel,
            MapState::HandedOver { len },
            true,
        )?;
    }
    Ok(None)
}

/// Makes a fork's relation ready for a write of its own; returns the inherited length.
pub fn before_own_write<H: Host>(host: &H, oid: DbOid, node: &Node, rel: RelFork) -> Res<Block, H> {
    let state = match fork_state(host, oid, node, rel)? {
        MapState::Untouched { len } => host.set_state(
            oid,
            node.space,
            rel,
            MapState::Own { inherited_len: len },
            false,
        )?,
        MapState::Gone => host.set_state(
            oid,
            node.space,
            rel,
            MapState::Own { inherited_len: 0 },
            true,
        )?,
        state => state,
    };
    Ok(if let MapState::Own { inherited_len } = state {
        inherited_len
    } else {
        0
    })
}
