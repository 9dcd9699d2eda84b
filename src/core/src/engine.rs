//! How a block is resolved, and what a write has to do first (D7, D8).
//!
//! The engine is told of the world by a [`Host`]: the storage manager's seam in
//! the server, and a plain model in the tests.

use crate::summary::{self, Bits, Summary};
use crate::topology::{Layer, Node};
use crate::types::{Block, DbOid, MapState, Page, RelFork, Space, PAGE_SIZE};
use std::rc::Rc;

/// Whose file a block lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOf {
    /// The database or layer.
    pub oid: DbOid,
    /// With [`crate::types::HANDED`] set: the file that was handed over to that layer.
    pub rel: RelFork,
}

/// What a raw read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Page,
    /// No such file, or it ends before the block.
    Nothing,
}

/// Why a block could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineError<E> {
    /// The host failed.
    Host(E),
    /// The cut that a fork rests on is not known.
    NoCut { parent: DbOid, seq: u64 },
    /// A block that must be somewhere is nowhere.
    NotFound { file: FileOf, block: Block },
    /// An inherited page is newer than the cut (I3).
    Newer {
        file: FileOf,
        block: Block,
        lsn: u64,
        cut_lsn: u64,
    },
}

impl<E> From<E> for EngineError<E> {
    fn from(error: E) -> Self {
        EngineError::Host(error)
    }
}

type Res<T, H> = Result<T, EngineError<<H as Host>::Error>>;

/// What the engine needs from the world.
pub trait Host {
    type Error;
    /// What [`Host::hold`] holds, until it is dropped.
    type Held;

    /// Changes whenever a fork or a layer comes or goes.
    fn generation(&self) -> u64;
    /// The database's place in the topology; `None` for one that is neither fork nor source.
    fn node(&self, oid: DbOid) -> Option<Rc<Node>>;

    /// The map's state if it is known without asking the engine: from the cache or the map file.
    /// `None`: the map says nothing, so the relation is untouched.
    fn map_state(
        &self,
        oid: DbOid,
        space: Space,
        rel: RelFork,
    ) -> Result<Option<MapState>, Self::Error>;
    /// Remembers that a map says nothing. May be forgotten at any time.
    fn remember_untouched(
        &self,
        oid: DbOid,
        space: Space,
        rel: RelFork,
        state: MapState,
    ) -> Result<(), Self::Error>;
    /// Makes `state` the map's durable state, if it still says nothing or if `replace`.
    /// Returns the state that holds then.
    fn set_state(
        &self,
        oid: DbOid,
        space: Space,
        rel: RelFork,
        state: MapState,
        replace: bool,
    ) -> Result<MapState, Self::Error>;
    fn bit(
        &self,
        oid: DbOid,
        space: Space,
        rel: RelFork,
        block: Block,
    ) -> Result<bool, Self::Error>;
    fn set_bit(
        &self,
        oid: DbOid,
        space: Space,
        rel: RelFork,
        block: Block,
    ) -> Result<(), Self::Error>;

    fn read_file(&self, file: FileOf, block: Block, page: &mut Page) -> Result<Found, Self::Error>;
    fn write_file(&self, file: FileOf, block: Block, page: &Page) -> Result<(), Self::Error>;
    /// The file's length in blocks; `None` if there is no file.
    fn file_len(&self, file: FileOf) -> Result<Option<Block>, Self::Error>;
    /// Renames `db`'s files of `rel`, and its map if `with_map`, to be the layer's handed-over ones.
    /// Done already, wholly or in part: does the rest.
    fn hand_over(
        &self,
        db: DbOid,
        layer: &Layer,
        rel: RelFork,
        with_map: bool,
    ) -> Result<(), Self::Error>;

    /// The first block from `block` on, and below `end`, whose bit is set.
    fn next_bit(
        &self,
        oid: DbOid,
        space: Space,
        rel: RelFork,
        block: Block,
        end: Block,
    ) -> Result<Option<Block>, Self::Error>;
    /// Makes all that `from` has of `rel` be `into`'s too, which says nothing of it; with
    /// `only_handed`, the handed-over files alone.
    fn share(
        &self,
        from: &Layer,
        into: &Layer,
        rel: RelFork,
        only_handed: bool,
    ) -> Result<(), Self::Error>;

    /// Goes up whenever a map says something new: after all see it, and before the overwrite that it
    /// stands for (I4).
    fn changes(&self) -> u64;
    /// Makes the layer ready for some writes in a row. Each makes it ready by itself, too.
    fn hold(&self, layer: DbOid) -> Result<Self::Held, Self::Error>;
    /// How many hand-overs have ended; `None` while one is under way.
    fn hand_overs(&self) -> Option<u32>;
    /// Goes up between a merge's last bit and the end of the merged layer.
    fn merges(&self) -> u32;
    /// The bits of the block's group ([`summary::GROUP_BLOCKS`]) of a map that says something.
    fn bits(
        &self,
        oid: DbOid,
        space: Space,
        rel: RelFork,
        block: Block,
    ) -> Result<Bits, Self::Error>;
    /// What was put for the block's group last, if it is not forgotten.
    fn summary(&self, space: Space, rel: RelFork, block: Block) -> Option<Summary>;
    fn put_summary(&self, space: Space, rel: RelFork, block: Block, summary: &Summary);

    /// Where the block is among the pages that were captured at the layer's cut: the page of the file
    /// that goes by [`RelFork::CAPTURED`].
    fn captured(
        &self,
        layer: &Layer,
        rel: RelFork,
        block: Block,
    ) -> Result<Option<Block>, Self::Error>;

    /// A place between two steps whose order matters: tests crash here.
    fn stop_point(&self, _name: &'static str) {}

    /// Makes the page what crash recovery at the cut would have made of it (D6).
    fn settle(
        &self,
        layer: &Layer,
        rel: RelFork,
        block: Block,
        page: &mut Page,
    ) -> Result<(), Self::Error>;
}

/// Where a block was found, and the cuts to settle it for, innermost first.
struct Place {
    file: FileOf,
    /// The page of the file: the block's own number, but for a captured page.
    page: Block,
    /// The file may be overwritten while we read it: look again afterwards.
    live: bool,
    cuts: Vec<Rc<Layer>>,
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
            for layer in &place.cuts {
                check_lsn(layer, place.file, block, page)?;
                if layer.in_flight {
                    host.settle(layer, rel, block, page)?;
                }
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
    let mut cuts = Vec::with_capacity(2);
    let (mut db, mut seq) = (db, seq);
    loop {
        let node = host
            .node(db)
            .ok_or(EngineError::NoCut { parent: db, seq })?;
        let layers = node
            .from_cut(seq)
            .ok_or(EngineError::NoCut { parent: db, seq })?;
        let cut = &layers[0];
        cuts.insert(0, cut.clone());
        if cut.captured {
            if let Some(page) = host.captured(cut, rel, block)? {
                let (oid, rel) = (cut.oid, RelFork::CAPTURED);
                return Ok(Place {
                    live: false,
                    file: FileOf { oid, rel },
                    page,
                    cuts,
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
                continue;
            }
        };
        return Ok(Place {
            live: file.oid == db,
            file,
            page: block,
            cuts,
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
) -> Res<u64, H> {
    let mut saved = 0;
    if let Some((layer, len)) = note(host, oid, node, rel)? {
        for block in blocks..len {
            saved += u64::from(save(host, oid, node, &layer, rel, block)?);
        }
    }
    Ok(saved)
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

/// Makes the layer `into` hold what `from`, the next one, holds of `rel`, as far as a reader that
/// begins at `into` needs it. No new pre-images go to either any more.
///
/// Readers find each block in one or the other all the while; done again, it does the rest.
pub fn merge<H: Host>(host: &H, from: &Layer, into: &Layer, rel: RelFork) -> Res<(), H> {
    let said = host.map_state(from.oid, from.space, rel)?;
    let len = match host.map_state(into.oid, into.space, rel)? {
        // The readers of `into` never get past it.
        Some(MapState::Absent | MapState::HandedOver { .. }) => return Ok(()),
        Some(MapState::Noted { len }) => len,
        _ => return Ok(host.share(from, into, rel, false)?),
    };
    let mut next = 0;
    let mut page = [0; PAGE_SIZE];
    while let Some(block) = host.next_bit(from.oid, from.space, rel, next, len)? {
        if !host.bit(into.oid, into.space, rel, block)? {
            let [file, to] = [from, into].map(|layer| FileOf {
                oid: layer.oid,
                rel,
            });
            if host.read_file(file, block, &mut page)? == Found::Nothing {
                return Err(EngineError::NotFound { file, block });
            }
            // I4: first the bytes, second the bit.
            host.write_file(to, block, &page)?;
            host.stop_point("merge-page");
            host.set_bit(into.oid, into.space, rel, block)?;
        }
        next = block + 1;
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
    Ok(())
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
