//! The file of the pages that a cut captured: those that were dirty in memory, as they were there (D5).
//!
//! ```text
//!  0  magic "PGFKCAPT"
//!  8  version  u16
//! 10  zero     u16
//! 12  count    u32
//! 16  entries  tablespace, relation, fork, block, page   u32 each; by the first four, ascending
//!     CRC-32C  u32    of all before
//!     zeros up to a whole page, then the pages: an entry's `page` counts from there
//! ```
//!
//! It is written once, by who takes the cut, and never changed. Only forks of that very cut read it.

use super::FormatError;
use crate::types::{Block, RelFork, PAGE_SIZE};

const MAGIC: &[u8; 8] = b"PGFKCAPT";
const VERSION: u16 = 1;
const HEAD: usize = 16;
const ENTRY: usize = 20;

/// Which pages there are, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Tablespace, relation, fork, block, and the page's place among the pages.
    entries: Vec<[u32; 5]>,
}

fn key(rel: RelFork, block: Block) -> [u32; 4] {
    [rel.spc, rel.rel, rel.fork.into(), block]
}

fn key_of(entry: &[u32; 5]) -> [u32; 4] {
    [entry[0], entry[1], entry[2], entry[3]]
}

/// Whole pages that an index of so many entries takes.
fn index_pages(count: usize) -> usize {
    (HEAD + count * ENTRY + 4).div_ceil(PAGE_SIZE)
}

impl Captured {
    /// Of pages that follow each other in the file; no block twice.
    pub fn new(pages: impl Iterator<Item = (RelFork, Block)>) -> Self {
        let entry = |((rel, block), page): ((RelFork, Block), u32)| {
            let [a, b, c, d] = key(rel, block);
            [a, b, c, d, page]
        };
        let mut entries: Vec<_> = pages.zip(0..).map(entry).collect();
        entries.sort_unstable();
        Captured { entries }
    }

    /// The page of the file that holds the block, if it was captured.
    pub fn find(&self, rel: RelFork, block: Block) -> Option<u32> {
        let at = self.entries.binary_search_by_key(&key(rel, block), key_of);
        let page = self.entries[at.ok()?][4];
        Some(index_pages(self.entries.len()) as u32 + page)
    }

    /// What comes before the pages, in whole pages.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.encode_index();
        bytes.resize(index_pages(self.entries.len()) * PAGE_SIZE, 0);
        bytes
    }

    /// The same up to the checksum.
    pub(super) fn encode_index(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(index_pages(self.entries.len()) * PAGE_SIZE);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for word in self.entries.iter().flatten() {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// How many bytes from the file's begin [`Captured::decode`] needs; `head` is its first page, or what
    /// there is of it.
    pub fn needs(head: &[u8]) -> Result<usize, FormatError> {
        let short = FormatError::TooShort {
            need: HEAD,
            have: head.len(),
        };
        let (head, _) = head.split_at_checked(HEAD).ok_or(short)?;
        if &head[..8] != MAGIC {
            return Err(FormatError::Magic);
        }
        let version = u16::from_le_bytes([head[8], head[9]]);
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let count = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        Ok(HEAD + count as usize * ENTRY + 4)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let need = Self::needs(bytes)?;
        let short = FormatError::TooShort {
            need,
            have: bytes.len(),
        };
        let (bytes, _) = bytes.split_at_checked(need).ok_or(short)?;
        let (body, crc) = bytes.split_at(need - 4);
        if crc32c::crc32c(body).to_le_bytes() != crc {
            return Err(FormatError::Checksum);
        }
        let words = |entry: &[u8]| -> [u32; 5] {
            std::array::from_fn(|n| {
                let at = n * 4;
                u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
            })
        };
        let entries: Vec<_> = body[HEAD..].chunks_exact(ENTRY).map(words).collect();
        if !entries.is_sorted_by(|a, b| key_of(a) < key_of(b)) {
            return Err(FormatError::Field("order"));
        }
        if entries.iter().any(|e| e[4] as usize >= entries.len()) {
            return Err(FormatError::Field("page"));
        }
        Ok(Captured { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(rel: u32, fork: u8) -> RelFork {
        RelFork {
            spc: 1663,
            rel,
            fork,
        }
    }

    fn sample() -> Captured {
        Captured::new([(rel(9, 0), 4), (rel(7, 1), 0), (rel(7, 0), 300)].into_iter())
    }

    #[test]
    fn golden_bytes() {
        let bytes = sample().encode();
        assert_eq!(&bytes[..16], b"PGFKCAPT\x01\0\0\0\x03\0\0\0");
        assert_eq!(&bytes[16..24], b"\x7f\x06\0\0\x07\0\0\0");
        assert_eq!(&bytes[28..36], b"\x2c\x01\0\0\x02\0\0\0");
        assert_eq!(bytes.len(), PAGE_SIZE);
    }

    #[test]
    fn each_page_is_found_where_it_was_put() {
        let sample = sample();
        assert_eq!(sample.find(rel(9, 0), 4), Some(1));
        assert_eq!(sample.find(rel(7, 1), 0), Some(2));
        assert_eq!(sample.find(rel(7, 0), 300), Some(3));
        assert_eq!(sample.find(rel(7, 0), 0), None);
        // The index of so many takes three pages.
        let many = Captured::new((0..1000).map(|n| (rel(1, 0), 999 - n)));
        assert_eq!(many.encode().len(), 3 * PAGE_SIZE);
        assert!((0..1000).all(|n| many.find(rel(1, 0), n) == Some(3 + 999 - n)));
    }

    #[test]
    fn round_trips_and_every_flipped_bit_is_an_error() {
        for captured in [sample(), Captured::default()] {
            let bytes = captured.encode();
            assert_eq!(Captured::decode(&bytes), Ok(captured.clone()));
            let bytes = captured.encode_index();
            assert_eq!(Captured::needs(&bytes), Ok(bytes.len()));
            for bit in 0..bytes.len() * 8 {
                let mut hurt = bytes.clone();
                hurt[bit / 8] ^= 1 << (bit % 8);
                assert!(Captured::decode(&hurt).is_err(), "bit {bit}");
            }
            assert!((0..bytes.len()).all(|len| Captured::decode(&bytes[..len]).is_err()));
        }
    }

    #[test]
    fn an_index_that_is_not_in_order_is_an_error() {
        let twice = Captured {
            entries: vec![[1, 2, 0, 4, 0], [1, 2, 0, 4, 1]],
        };
        let beyond = Captured {
            entries: vec![[1, 2, 0, 4, 1]],
        };
        for wrong in [twice, beyond] {
            assert!(matches!(
                Captured::decode(&wrong.encode()),
                Err(FormatError::Field(_))
            ));
        }
    }
}
