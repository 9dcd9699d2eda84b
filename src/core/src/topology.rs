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
    /// Whether what readers of the cut may ask of transactions is kept, so that they do not ask the server (D18).
    pub kept: bool,
    /// Whether everyone was stopped at the cut, so that nobody writes to the layers before it any more.
    pub sound: bool,
    /// Whether pages were dirty in memory at the cut, and captured: whoever was cut here reads those
    /// first. What lies on disk of them is a matter of the layers, for the cuts before.
    pub captured: bool,
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

/// How it stands with one cut of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerLife {
    pub oid: DbOid,
    /// A live fork was cut here.
    pub live: bool,
}

/// What is to become of a layer that no live fork was cut at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody reads it.
    Remove(DbOid),
    /// Forks of older cuts read through it, and nothing is written to it any more.
    Merge { from: DbOid, into: DbOid },
}

/// What is to become of a source's layers, oldest first, in the order in which to do it.
///
/// The newest stays while anyone reads it: the source writes to it.
pub fn fates(layers: &[LayerLife]) -> Vec<Fate> {
    let live = layers.iter().position(|layer| layer.live);
    let mut fates = Vec::new();
    let mut into = None;
    for (at, layer) in layers.iter().enumerate() {
        let newest = at + 1 == layers.len();
        match into {
            _ if !layer.live && live.is_none_or(|live| at < live) => {
                fates.push(Fate::Remove(layer.oid))
            }
            // A run of dead layers goes into the live one before them, oldest first.
            Some(into) if !layer.live && !newest => {
                fates.push(Fate::Merge {
                    from: layer.oid,
                    into,
                });
            }
            _ => into = Some(layer.oid),
        }
    }
    fates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_layers_go_but_the_one_that_is_written_to() {
        let told = |text: &str| {
            let layers: Vec<LayerLife> = text
                .chars()
                .zip(1..)
                .map(|(c, oid)| LayerLife {
                    oid,
                    live: c == 'L',
                })
                .collect();
            fates(&layers)
        };
        let merge = |from, into| Fate::Merge { from, into };
        assert_eq!(told("L"), []);
        assert_eq!(told(".."), [Fate::Remove(1), Fate::Remove(2)]);
        assert_eq!(told(".L."), [Fate::Remove(1)]);
        assert_eq!(told("L..L.."), [merge(2, 1), merge(3, 1), merge(5, 4)]);
        assert_eq!(told("..L."), [Fate::Remove(1), Fate::Remove(2)]);
    }
}
