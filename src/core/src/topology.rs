//! Which database was forked from which, and the cuts between them.

use crate::types::{DbOid, Space};
use std::rc::Rc;

/// One cut of a source and the layer that keeps what the source overwrote since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The layer's own number: a place for its files.
    pub oid: DbOid,
    pub space: Space,
    /// Orders the cuts of one source; never reused.
    pub seq: u64,
    /// The insert position of the WAL at the cut.
    pub cut_lsn: u64,
    /// Whether transactions were in flight at the cut, so that pages need settling (D6).
    pub in_flight: bool,
}

/// Where a fork was cut from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub parent: DbOid,
    /// The cut's [`Layer::seq`] in the parent.
    pub seq: u64,
}

/// A database that pg_fork knows: a fork, a source, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The fork's own name in the page-map cache; unused for a plain source.
    pub space: Space,
    /// Set if the database is a fork.
    pub origin: Option<Origin>,
    /// The cuts taken from this database, oldest first.
    pub layers: Vec<Rc<Layer>>,
}

impl Node {
    /// The layers from the cut `seq` on, oldest first; `None` if that cut is not there.
    pub fn from_cut(&self, seq: u64) -> Option<&[Rc<Layer>]> {
        let at = self
            .layers
            .binary_search_by_key(&seq, |layer| layer.seq)
            .ok()?;
        Some(&self.layers[at..])
    }
}
