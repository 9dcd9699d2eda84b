//! How a block is resolved, and what a write has to do first (D7, D8).
//!
//! The engine is told of the world by a [`Host`]: the storage manager's seam in
//! the server, and a plain model in the tests.

mod read;
mod write;

pub use read::{
    current_len, fork_state, inherited_len, locate_inherited, page_lsn, read_inherited,
};
pub use write::{before_overwrite, before_own_write, before_truncate, before_unlink, merge, note};

use crate::summary::{Bits, Summary};
use crate::topology::{Layer, Node};
use crate::types::{Block, DbOid, MapState, Page, RelFork, Space};
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
    /// Saves `db`'s own blocks from `first` on, and below `end`, to the layer, where their bits are not set: first the
    /// bytes, second the bits (I4).
    fn save_all(
        &self,
        db: DbOid,
        layer: &Layer,
        rel: RelFork,
        first: Block,
        end: Block,
    ) -> Result<(), Self::Error>;
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

    /// These blocks of a layer that is being merged are in the other one now, bits and all: first the number of
    /// merges goes up and whoever looked for them before must look again, second they may go. `false`: the merge
    /// is to stop here for now.
    fn merged(&self, from: FileOf, blocks: &[Block]) -> Result<bool, Self::Error>;

    /// Goes up whenever a map says something new: after all see it, and before the overwrite that it
    /// stands for (I4).
    fn changes(&self) -> u64;
    /// Makes the layer ready for some writes in a row. Each makes it ready by itself, too.
    fn hold(&self, layer: DbOid) -> Result<Self::Held, Self::Error>;
    /// How many hand-overs have ended; `None` while one is under way.
    fn hand_overs(&self) -> Option<u32>;
    /// Goes up between a merge's last bit and the end of the merged layer, and with [`Host::merged`].
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
