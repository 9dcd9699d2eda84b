//! The page map file of one relation fork: a header of 64 bytes, then one bit a block.
//!
//! ```text
//!  0  magic "PGFKMAP\0"
//!  8  version  u16
//! 10  state    u8     1 own, 2 gone, 3 noted, 4 absent, 5 handed over
//! 11  zero     u8
//! 12  length   u32    the inherited length, or the length at the cut
//! 16  zero     44 bytes
//! 60  CRC-32C  u32    of the 60 bytes before
//! 64  bits            block b is bit b % 8 of byte 64 + b / 8
//! ```

use super::FormatError;
use crate::types::{Block, MapState};

/// Bytes of the header.
pub const HEADER_SIZE: usize = 64;
const MAGIC: &[u8; 8] = b"PGFKMAP\0";
const VERSION: u16 = 1;

/// The byte of the file that holds the block's bit.
pub const fn bit_offset(block: Block) -> u64 {
    HEADER_SIZE as u64 + block as u64 / 8
}

/// The header for a state; `None` for the states that are not kept on disk.
pub fn encode(state: MapState) -> Option<[u8; HEADER_SIZE]> {
    let (kind, len) = match state {
        MapState::Untouched { .. } | MapState::Private => return None,
        MapState::Own { inherited_len } => (1, inherited_len),
        MapState::Gone => (2, 0),
        MapState::Noted { len } => (3, len),
        MapState::Absent => (4, 0),
        MapState::HandedOver { len } => (5, len),
    };
    let mut bytes = [0; HEADER_SIZE];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[10] = kind;
    bytes[12..16].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    Some(bytes)
}

/// The state that a header tells.
pub fn decode(bytes: &[u8]) -> Result<MapState, FormatError> {
    let Some(bytes) = bytes.get(..HEADER_SIZE) else {
        return Err(FormatError::TooShort {
            need: HEADER_SIZE,
            have: bytes.len(),
        });
    };
    if &bytes[..8] != MAGIC {
        return Err(FormatError::Magic);
    }
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if crc32c::crc32c(&bytes[..60]) != word(60) {
        return Err(FormatError::Checksum);
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    if version != VERSION {
        return Err(FormatError::Version(version));
    }
    let len = word(12);
    Ok(match bytes[10] {
        1 => MapState::Own { inherited_len: len },
        2 => MapState::Gone,
        3 => MapState::Noted { len },
        4 => MapState::Absent,
        5 => MapState::HandedOver { len },
        _ => return Err(FormatError::Field("state")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let bytes = encode(MapState::Noted { len: 0x0102_0304 }).unwrap();
        assert_eq!(&bytes[..16], b"PGFKMAP\0\x01\0\x03\0\x04\x03\x02\x01");
        assert!(bytes[16..60].iter().all(|b| *b == 0));
        assert_eq!(bit_offset(17), 66);
    }

    #[test]
    fn round_trips_and_every_flipped_bit_is_an_error() {
        let states = [
            MapState::Own { inherited_len: 7 },
            MapState::Gone,
            MapState::Noted { len: u32::MAX },
            MapState::Absent,
            MapState::HandedOver { len: 1 },
        ];
        for state in states {
            let bytes = encode(state).unwrap();
            assert_eq!(decode(&bytes), Ok(state));
            for bit in 0..HEADER_SIZE * 8 {
                let mut hurt = bytes;
                hurt[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&hurt).is_err(), "bit {bit}");
            }
            assert!((0..HEADER_SIZE).all(|len| decode(&bytes[..len]).is_err()));
        }
        assert_eq!(encode(MapState::Private), None);
    }
}
