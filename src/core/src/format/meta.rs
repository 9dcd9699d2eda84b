//! The `meta` file in the directory of each fork and layer.
//!
//! ```text
//!  0  magic "PGFKMETA"
//!  8  version  u16
//! 10  kind     u8     1 fork, 2 layer
//! 11  state    u8     1 live, 2 invalid, 3 dropped
//! 12  oid, source, layer, tablespace, next xid, oldest multixact   u32 each
//! 36  seq, cut LSN, cut time (µs since 2000-01-01)                 u64 each
//! 60  bytes of reason, number of xids, pages captured              u32 each
//! 72  reason (UTF-8), then the xids in flight at the cut (u32 each), then CRC-32C of all before
//! ```
//!
//! Version 1 has no number of captured pages, and the reason at 68: such layers have none.

use super::FormatError;

const MAGIC: &[u8; 8] = b"PGFKMETA";
const VERSION: u16 = 2;
const FIXED: usize = 72;
const FIXED_1: usize = 68;

/// What a directory belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Fork,
    Layer,
}

/// How it stands with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Live,
    Invalid,
    /// Being removed: recovery must not replay into what is left (D12).
    Dropped,
}

/// A fork or a layer, as its directory tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub kind: Kind,
    pub state: State,
    pub oid: u32,
    pub source: u32,
    /// A fork's cut: the layer's number.
    pub layer: u32,
    /// A fork's default tablespace.
    pub tablespace: u32,
    pub next_xid: u32,
    pub oldest_multi: u32,
    pub seq: u64,
    pub cut_lsn: u64,
    pub cut_time: i64,
    pub reason: String,
    pub in_flight: Vec<u32>,
    /// A layer: how many pages were captured at the cut.
    pub captured: u32,
}

impl Meta {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(FIXED + self.reason.len() + 4 * self.in_flight.len() + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(match self.kind {
            Kind::Fork => 1,
            Kind::Layer => 2,
        });
        bytes.push(match self.state {
            State::Live => 1,
            State::Invalid => 2,
            State::Dropped => 3,
        });
        for word in [
            self.oid,
            self.source,
            self.layer,
            self.tablespace,
            self.next_xid,
            self.oldest_multi,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.seq, self.cut_lsn, self.cut_time as u64] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.reason.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.in_flight.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.captured.to_le_bytes());
        bytes.extend_from_slice(self.reason.as_bytes());
        for xid in &self.in_flight {
            bytes.extend_from_slice(&xid.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Meta, FormatError> {
        let short = |need| FormatError::TooShort {
            need,
            have: bytes.len(),
        };
        if bytes.len() < FIXED_1 + 4 {
            return Err(short(FIXED_1 + 4));
        }
        if &bytes[..8] != MAGIC {
            return Err(FormatError::Magic);
        }
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        if crc32c::crc32c(body).to_le_bytes() != crc {
            return Err(FormatError::Checksum);
        }
        let version = u16::from_le_bytes([body[8], body[9]]);
        let fixed = match version {
            1 => FIXED_1,
            VERSION if body.len() >= FIXED => FIXED,
            VERSION => return Err(short(FIXED + 4)),
            _ => return Err(FormatError::Version(version)),
        };
        let word =
            |at: usize| u32::from_le_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let (reason_len, xids) = (word(60) as usize, word(64) as usize);
        // Lengths are checked before anything is allocated for them.
        let need = (xids as u64 * 4) + reason_len as u64 + fixed as u64;
        if need != body.len() as u64 {
            return Err(FormatError::Field("length"));
        }
        let (reason, in_flight) = body[fixed..].split_at(reason_len);
        Ok(Meta {
            kind: match body[10] {
                1 => Kind::Fork,
                2 => Kind::Layer,
                _ => return Err(FormatError::Field("kind")),
            },
            state: match body[11] {
                1 => State::Live,
                2 => State::Invalid,
                3 => State::Dropped,
                _ => return Err(FormatError::Field("state")),
            },
            oid: word(12),
            source: word(16),
            layer: word(20),
            tablespace: word(24),
            next_xid: word(28),
            oldest_multi: word(32),
            seq: long(36),
            cut_lsn: long(44),
            cut_time: long(52) as i64,
            reason: String::from_utf8(reason.to_vec()).map_err(|_| FormatError::Field("reason"))?,
            in_flight: in_flight
                .chunks_exact(4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            captured: if fixed == FIXED { word(68) } else { 0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Meta {
        Meta {
            kind: Kind::Layer,
            oid: 0x1122_3344,
            source: 5,
            seq: 9,
            cut_time: -1,
            reason: "wörk".into(),
            in_flight: vec![700, 701],
            captured: 3,
            ..Meta::default()
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = sample().encode();
        assert_eq!(&bytes[..16], b"PGFKMETA\x02\0\x02\x01\x44\x33\x22\x11");
        assert_eq!(bytes.len(), FIXED + 5 + 8 + 4);
    }

    #[test]
    fn the_version_before_is_read() {
        let mut bytes = sample().encode();
        bytes.truncate(bytes.len() - 4);
        bytes[8] = 1;
        bytes.drain(FIXED_1..FIXED);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let before = Meta {
            captured: 0,
            ..sample()
        };
        assert_eq!(Meta::decode(&bytes), Ok(before));
    }

    #[test]
    fn round_trips_and_every_flipped_bit_is_an_error() {
        for meta in [sample(), Meta::default()] {
            let bytes = meta.encode();
            assert_eq!(Meta::decode(&bytes), Ok(meta));
            for bit in 0..bytes.len() * 8 {
                let mut hurt = bytes.clone();
                hurt[bit / 8] ^= 1 << (bit % 8);
                assert!(Meta::decode(&hurt).is_err(), "bit {bit}");
            }
            assert!((0..bytes.len()).all(|len| Meta::decode(&bytes[..len]).is_err()));
        }
    }
}
