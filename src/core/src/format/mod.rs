//! What pg_fork writes to disk: fixed widths, little-endian, magic, version, CRC-32C.
//!
//! Each decoder answers any bytes whatever with a value or an error.

pub mod captured;
pub mod kept;
pub mod map;
pub mod meta;
pub mod server;

use std::fmt;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    TooShort { need: usize, have: usize },
    Magic,
    Version(u16),
    Checksum,
    Field(&'static str),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { need, have } => write!(f, "{have} bytes where {need} are needed"),
            Self::Magic => write!(f, "not a file of pg_fork"),
            Self::Version(version) => write!(f, "format version {version} is not known"),
            Self::Checksum => write!(f, "checksum does not match"),
            Self::Field(name) => write!(f, "field \"{name}\" is out of range"),
        }
    }
}

impl std::error::Error for FormatError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{MapState, RelFork};

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 33
        }
    }

    fn decode_all(bytes: &[u8]) {
        let _ = captured::Captured::decode(bytes);
        let _ = map::decode(bytes);
        let _ = meta::Meta::decode(bytes);
        let _ = server::Server::decode(bytes);
    }

    /// Random bytes; then whole ones hurt at random, with a checksum that is right all the same, so that
    /// what comes after it is reached.
    #[test]
    fn hostile_bytes_are_an_error_or_a_value() {
        let mut random = Random(7);
        for _ in 0..100_000 {
            let len = random.next() as usize % 200;
            decode_all(&(0..len).map(|_| random.next() as u8).collect::<Vec<_>>());
        }
        let meta = meta::Meta {
            reason: "why".into(),
            in_flight: vec![5, 6, 7],
            ..meta::Meta::default()
        };
        let map = map::encode(MapState::Noted { len: 9 }).unwrap();
        let rel = |rel| RelFork {
            spc: 1663,
            rel,
            fork: 0,
        };
        let captured = captured::Captured::new([(rel(7), 3), (rel(5), 9)].into_iter());
        let samples = [
            captured.encode_index(),
            meta.encode(),
            map.to_vec(),
            server::Server::default().encode().to_vec(),
        ];
        for _ in 0..100_000 {
            let mut bytes = samples[random.next() as usize % 4].clone();
            for _ in 0..1 + random.next() % 4 {
                let at = random.next() as usize % bytes.len();
                bytes[at] = random.next() as u8;
            }
            bytes.truncate(bytes.len() - (random.next() as usize % 8).saturating_sub(6));
            let end = bytes.len() - 4;
            let crc = crc32c::crc32c(&bytes[..end]);
            bytes[end..].copy_from_slice(&crc.to_le_bytes());
            decode_all(&bytes);
        }
    }
}
