//! The file `kept` of a layer: which segments of the commit log and of multixacts were kept for who reads at its cut.
//!
//! ```text
//!  0  magic "PGFKKEPT"
//!  8  version  u16, zero u16
//! 12  next multixact, its first member's place, number of segments    u32 each
//! 24  of each segment: kind u32, number u32, inode u64
//!     then CRC-32C of all before
//! ```
//!
//! The server uses numbers of segments again, so a kept one's inode is a part of its name.

use super::FormatError;

const MAGIC: &[u8; 8] = b"PGFKKEPT";
const VERSION: u16 = 1;
const HEAD: usize = 24;
const EACH: usize = 16;

/// What a segment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `pg_xact`
    Outcomes,
    /// `pg_multixact/offsets`
    Offsets,
    /// `pg_multixact/members`
    Members,
}

const KINDS: [Kind; 3] = [Kind::Outcomes, Kind::Offsets, Kind::Members];

/// A kept segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    pub kind: Kind,
    pub number: u32,
    pub inode: u64,
}

impl Segment {
    /// The name that it is kept under.
    pub fn name(&self) -> String {
        format!("{:?}_{:04X}_{}", self.kind, self.number, self.inode).to_lowercase()
    }
}

/// What was kept at a cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The multixact that came next when they were kept, and where its members begin.
    pub next_multi: u32,
    pub next_member: u32,
    pub segments: Vec<Segment>,
}

impl Kept {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.segments.len() * EACH + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        for word in [
            self.next_multi,
            self.next_member,
            self.segments.len() as u32,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for segment in &self.segments {
            bytes.extend_from_slice(&(segment.kind as u32).to_le_bytes());
            bytes.extend_from_slice(&segment.number.to_le_bytes());
            bytes.extend_from_slice(&segment.inode.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Kept, FormatError> {
        if bytes.len() < HEAD + 4 {
            return Err(FormatError::TooShort {
                need: HEAD + 4,
                have: bytes.len(),
            });
        }
        if &bytes[..8] != MAGIC {
            return Err(FormatError::Magic);
        }
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        if crc32c::crc32c(body).to_le_bytes() != crc {
            return Err(FormatError::Checksum);
        }
        let version = u16::from_le_bytes([body[8], body[9]]);
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let word =
            |at: usize| u32::from_le_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        let (entries, rest) = body[HEAD..].as_chunks::<EACH>();
        if !rest.is_empty() || entries.len() as u64 != u64::from(word(20)) {
            return Err(FormatError::Field("length"));
        }
        let segment = |at: usize| {
            let inode = u64::from(word(at + 8)) | u64::from(word(at + 12)) << 32;
            let kind = KINDS.get(word(at) as usize).copied();
            Ok(Segment {
                kind: kind.ok_or(FormatError::Field("kind"))?,
                number: word(at + 4),
                inode,
            })
        };
        let segments = (0..entries.len()).map(|n| segment(HEAD + n * EACH));
        Ok(Kept {
            next_multi: word(12),
            next_member: word(16),
            segments: segments.collect::<Result<_, _>>()?,
        })
    }

    /// The segment of that number, if it was kept.
    pub fn segment(&self, kind: Kind, number: u32) -> Option<&Segment> {
        let mut all = self.segments.iter();
        all.find(|segment| segment.kind == kind && segment.number == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_no_bit_of_it_may_flip() {
        let segment = |kind, number, inode| Segment {
            kind,
            number,
            inode,
        };
        let kept = Kept {
            next_multi: 7,
            next_member: u32::MAX,
            segments: vec![
                segment(Kind::Outcomes, 0xFFF, 1 << 40 | 5),
                segment(Kind::Members, 0x1_4078, 2),
                segment(Kind::Offsets, 0, 3),
            ],
        };
        for kept in [kept, Kept::default()] {
            let bytes = kept.encode();
            assert_eq!(&bytes[..12], b"PGFKKEPT\x01\0\0\0");
            assert_eq!(bytes.len(), HEAD + EACH * kept.segments.len() + 4);
            assert_eq!(Kept::decode(&bytes), Ok(kept));
            for bit in 0..bytes.len() * 8 {
                let mut hurt = bytes.clone();
                hurt[bit / 8] ^= 1 << (bit % 8);
                assert!(Kept::decode(&hurt).is_err(), "bit {bit}");
            }
            assert!((0..bytes.len()).all(|len| Kept::decode(&bytes[..len]).is_err()));
        }
    }

    #[test]
    fn names() {
        let name = |kind| {
            let (number, inode) = (0x2A, 77);
            Segment {
                kind,
                number,
                inode,
            }
            .name()
        };
        assert_eq!(name(Kind::Outcomes), "outcomes_002a_77");
        assert_eq!(name(Kind::Members), "members_002a_77");
    }
}
