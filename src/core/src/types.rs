//! The words of the core: which relation fork, which database, which file.

/// Bytes of a page. PostgreSQL's default `BLCKSZ`; a server built otherwise is refused at start.
pub const PAGE_SIZE: usize = 8192;

/// A page's bytes.
pub type Page = [u8; PAGE_SIZE];

/// A block's number in its relation fork (`BlockNumber`).
pub type Block = u32;

/// The number of a database, or of a layer posing as one (D1).
pub type DbOid = u32;

/// Names one incarnation of a fork or layer in the page-map cache.
///
/// Never reused while the server runs, so entries of a dropped fork need no
/// hunting down: nobody asks for them again and they are evicted.
pub type Space = u32;

/// The bit of [`RelFork::fork`] that names a relation as it was handed over to a layer.
pub const HANDED: u8 = 4;

/// One relation fork: tablespace, file number, `ForkNumber` (0 main, 1 fsm, 2 vm, 3 init).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelFork {
    pub spc: u32,
    pub rel: u32,
    pub fork: u8,
}

impl RelFork {
    /// What the file of a layer's captured pages goes by ([`crate::format::captured`]): no relation has
    /// these numbers.
    pub const CAPTURED: RelFork = RelFork {
        spc: 0,
        rel: 0,
        fork: 0,
    };

    /// The same relation fork as the layer's handed-over copy of it.
    pub fn handed(self) -> Self {
        RelFork {
            fork: self.fork | HANDED,
            ..self
        }
    }
}

/// What a fork's or a layer's page map says of one relation fork.
///
/// The first four are a fork's, the last three a layer's; `Untouched` is both's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapState {
    /// A layer: nothing noted yet. A fork: inherited as a whole, `len` blocks.
    Untouched { len: Block },
    /// A fork: nothing is inherited; the files are what the storage manager says they are.
    Private,
    /// A fork: blocks below `inherited_len` whose bit is not set are inherited.
    Own { inherited_len: Block },
    /// A fork: dropped in the fork.
    Gone,
    /// A layer: existed at the cut with `len` blocks.
    Noted { len: Block },
    /// A layer: did not exist at the cut.
    Absent,
    /// A layer: existed at the cut with `len` blocks, and the source's file is now the layer's.
    HandedOver { len: Block },
}
