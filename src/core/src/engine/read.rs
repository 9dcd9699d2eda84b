//! How a fork's block is resolved (D7): through the layers of its ancestors, down to the source's own file.

use super::{EngineError, FileOf, Found, Host, Res};
use crate::summary;
use crate::topology::{Layer, Node};
use crate::types::{Block, DbOid, MapState, Page, RelFork};
use std::rc::Rc;

/// Where a block was found, and the cuts to settle it for.
struct Place {
    file: FileOf,
    /// The page of the file: the block's own number, but for a captured page.
    page: Block,
    /// The file may be overwritten while we read it: look again afterwards.
    live: bool,
    /// The fork's own.
    cut: Rc<Layer>,
    /// Those of its ancestors, if it is inherited further; mostly empty, and then not allocated.
    deeper: Vec<Rc<Layer>>,
}

/// What to make of a relation that is handed over, and of files that are not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moves {
    /// They are, or soon will be, the layer's.
    Done,
    /// A crash came between, and replay began after the commit of the relation's end, so nobody went on:
    /// they lie where they lay. What lies in the layer has been looked for.
    CutShort,
}

/// How often a read is tried when the world moves under it.
const TRIES: usize = 1000;

/// The state of `rel` in the fork `oid`: never `Noted`, `Absent` or `HandedOver`.
pub fn fork_state<H: Host>(host: &H, oid: DbOid, node: &Node, rel: RelFork) -> Res<MapState, H> {
    if let Some(state) = host.map_state(oid, node.space, rel)? {
        return Ok(state);
    }
    let state = match inherited_len(host, node, rel)? {
        Some(len) => MapState::Untouched { len },
        None => MapState::Private,
    };
    host.remember_untouched(oid, node.space, rel, state)?;
    Ok(state)
}

/// The length of `rel` at the cut of the fork `node`; `None` if it did not exist.
pub fn inherited_len<H: Host>(host: &H, node: &Node, rel: RelFork) -> Res<Option<Block>, H> {
    let Some(origin) = &node.origin else {
        return Ok(None);
    };
    len_at(host, origin.parent, origin.seq, rel)
}

fn len_at<H: Host>(host: &H, parent: DbOid, seq: u64, rel: RelFork) -> Res<Option<Block>, H> {
    loop {
        let generation = host.generation();
        let node = host
            .node(parent)
            .ok_or(EngineError::NoCut { parent, seq })?;
        let layers = node
            .from_cut(seq)
            .ok_or(EngineError::NoCut { parent, seq })?;
        let mut len = noted_len(host, layers, rel)?;
        if len.is_none() {
            let current = current_len(host, parent, &node, rel)?;
            // The source notes the length before it changes it: if still nothing is noted, it held.
            len = Some(noted_len(host, layers, rel)?.unwrap_or(current));
        }
        // A layer may have been merged into another, and its map be gone when we asked for it.
        if let (Some(len), true) = (len, host.generation() == generation) {
            return Ok(len);
        }
    }
}

/// The length that the first of `layers` to note it has noted.
fn noted_len<H: Host>(
    host: &H,
    layers: &[Rc<Layer>],
    rel: RelFork,
) -> Res<Option<Option<Block>>, H> {
    for layer in layers {
        match host.map_state(layer.oid, layer.space, rel)? {
            Some(MapState::Noted { len } | MapState::HandedOver { len }) => {
                return Ok(Some(Some(len)))
            }
            Some(MapState::Absent) => return Ok(Some(None)),
            _ => {}
        }
    }
    Ok(None)
}

/// The length of `rel` in database `oid` now; `None` if it does not exist.
pub fn current_len<H: Host>(
    host: &H,
    oid: DbOid,
    node: &Node,
    rel: RelFork,
) -> Res<Option<Block>, H> {
    let file = FileOf { oid, rel };
    if node.origin.is_none() {
        return Ok(host.file_len(file)?);
    }
    Ok(match fork_state(host, oid, node, rel)? {
        MapState::Untouched { len } => Some(len),
        MapState::Own { inherited_len } => {
            Some(host.file_len(file)?.unwrap_or(0).max(inherited_len))
        }
        MapState::Gone => None,
        _ => host.file_len(file)?,
    })
}

/// Reads the block as the fork inherited it. `block` is below the inherited length.
/// Returns whether it came from a layer.
pub fn read_inherited<H: Host>(
    host: &H,
    node: &Node,
    rel: RelFork,
    block: Block,
    page: &mut Page,
) -> Res<bool, H> {
    let Some(origin) = &node.origin else {
        return Err(EngineError::NoCut { parent: 0, seq: 0 });
    };
    let mut last = None;
    let mut moves = Moves::Done;
    for _ in 0..TRIES {
        let generation = host.generation();
        let hand_overs = host.hand_overs();
        let changes = host.changes();
        if hand_overs.is_none() {
            moves = Moves::Done;
        }
        let place = locate_at(host, origin.parent, origin.seq, rel, block, moves)?;
        let found = host.read_file(place.file, place.page, page)?;
        last = Some(place.file);
        // D7: a source's own file may have been overwritten while we read it. Its writer saved the
        // old bytes first, so a second look that finds nothing new proves that ours are the old ones.
        // None is needed where no map says anything new.
        let settled = !place.live
            || host.changes() == changes
            || locate_at(host, origin.parent, origin.seq, rel, block, moves)?.file == place.file;
        // A layer may have been merged into another, and its map be gone when we asked for it.
        let settled = settled && host.generation() == generation;
        let still = hand_overs.is_some() && host.hand_overs() == hand_overs;
        let settled = settled && (moves == Moves::Done || still);
        if found == Found::Page && settled {
            // Innermost first.
            for layer in place.deeper.iter().rev().chain([&place.cut]) {
                check_lsn(layer, place.file, block, page)?;
                host.settle(layer, rel, block, page)?;
            }
            return Ok(!place.live);
        }
        moves = match moves {
            Moves::Done if still && found == Found::Nothing => Moves::CutShort,
            _ => Moves::Done,
        };
    }
    let file = last.unwrap_or(FileOf {
        oid: origin.parent,
        rel,
    });
    Err(EngineError::NotFound { file, block })
}

/// Where the block as inherited lies now, for read-ahead: a file, and the page of it. It may have moved
/// by the time it is read.
pub fn locate_inherited<H: Host>(
    host: &H,
    node: &Node,
    rel: RelFork,
    block: Block,
) -> Res<Option<(FileOf, Block)>, H> {
    let Some(origin) = &node.origin else {
        return Ok(None);
    };
    let place = locate_at(host, origin.parent, origin.seq, rel, block, Moves::Done)?;
    Ok(Some((place.file, place.page)))
}

fn check_lsn<E>(
    layer: &Layer,
    file: FileOf,
    block: Block,
    page: &Page,
) -> Result<(), EngineError<E>> {
    let lsn = page_lsn(page);
    if lsn > layer.cut_lsn {
        return Err(EngineError::Newer {
            file,
            block,
            lsn,
            cut_lsn: layer.cut_lsn,
        });
    }
    Ok(())
}

/// The page's LSN (`PageXLogRecPtr`: two 32-bit halves, high one first).
pub fn page_lsn(page: &Page) -> u64 {
    let half = |at: usize| {
        u64::from(u32::from_le_bytes([
            page[at],
            page[at + 1],
            page[at + 2],
            page[at + 3],
        ]))
    };
    half(0) << 32 | half(4)
}

/// Finds `block` of `rel` as it was in `db` at the cut `seq`, down through the ancestors.
fn locate_at<H: Host>(
    host: &H,
    db: DbOid,
    seq: u64,
    rel: RelFork,
    block: Block,
    moves: Moves,
) -> Res<Place, H> {
    let mut nearest: Option<Rc<Layer>> = None;
    let mut deeper = Vec::new();
    let (mut db, mut seq) = (db, seq);
    loop {
        let node = host
            .node(db)
            .ok_or(EngineError::NoCut { parent: db, seq })?;
        let layers = node
            .from_cut(seq)
            .ok_or(EngineError::NoCut { parent: db, seq })?;
        let here = &layers[0];
        let cut = match nearest {
            None => here.clone(),
            Some(cut) => {
                deeper.push(here.clone());
                cut
            }
        };
        if here.captured {
            if let Some(page) = host.captured(here, rel, block)? {
                let (oid, rel) = (here.oid, RelFork::CAPTURED);
                return Ok(Place {
                    live: false,
                    file: FileOf { oid, rel },
                    page,
                    cut,
                    deeper,
                });
            }
        }
        let file = match locate_in(host, db, &node, layers, rel, block, moves)? {
            Some(file) => file,
            None => {
                let origin = node
                    .origin
                    .as_ref()
                    .ok_or(EngineError::NoCut { parent: db, seq })?;
                (db, seq) = (origin.parent, origin.seq);
                nearest = Some(cut);
                continue;
            }
        };
        return Ok(Place {
            live: file.oid == db,
            file,
            page: block,
            cut,
            deeper,
        });
    }
}

/// The file that holds the block on this level; `None`: the level inherits it itself.
fn locate_in<H: Host>(
    host: &H,
    db: DbOid,
    node: &Node,
    layers: &[Rc<Layer>],
    rel: RelFork,
    block: Block,
    moves: Moves,
) -> Res<Option<FileOf>, H> {
    let skip = summary::skip(host, layers, rel, block)?;
    for layer in &layers[skip..] {
        let (oid, space) = (layer.oid, layer.space);
        let state = host.map_state(oid, space, rel)?;
        if !matches!(
            state,
            Some(MapState::Noted { .. } | MapState::HandedOver { .. })
        ) {
            continue;
        }
        if host.bit(oid, space, rel, block)? {
            return Ok(Some(FileOf { oid, rel }));
        }
        if let Some(MapState::HandedOver { .. }) = state {
            let handed = rel.handed();
            let map = host.map_state(oid, space, handed)?;
            let own = match map {
                Some(MapState::Own { inherited_len }) if block < inherited_len => {
                    host.bit(oid, space, handed, block)?
                }
                _ => true,
            };
            let file = match (moves, map) {
                (Moves::Done, _) => FileOf { oid, rel: handed },
                // The map was moved, which is done first.
                (Moves::CutShort, Some(_)) => FileOf { oid: db, rel },
                (Moves::CutShort, None) => continue,
            };
            return Ok(own.then_some(file));
        }
    }
    let file = FileOf { oid: db, rel };
    if node.origin.is_none() {
        return Ok(Some(file));
    }
    let own = match fork_state(host, db, node, rel)? {
        MapState::Own { inherited_len } => {
            block >= inherited_len || host.bit(db, node.space, rel, block)?
        }
        MapState::Untouched { .. } | MapState::Gone => false,
        _ => true,
    };
    Ok(own.then_some(file))
}
