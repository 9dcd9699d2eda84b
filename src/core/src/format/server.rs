//! The file `server`: what the last start of the server was like, to know what the next one finds.
//!
//! ```text
//!  0  magic "PGFKSERV"
//!  8  version    u16
//! 10  running    u8     0 starting, 1 up: the witness file is there
//! 11  settled    u8     1 once the rows of forks that are not here were dealt with
//! 12  zero       u32
//! 16  boot       16 bytes, the machine's boot id
//! 32  checkpoint u64    the last checkpoint's place in the WAL when the server started
//! 40  CRC-32C    u32    of all before
//! ```

use super::FormatError;

/// Bytes of the file.
pub const SIZE: usize = 44;
const MAGIC: &[u8; 8] = b"PGFKSERV";
const VERSION: u16 = 1;

/// How the server was started last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Server {
    pub running: bool,
    pub settled: bool,
    pub boot: [u8; 16],
    pub checkpoint: u64,
}

impl Server {
    pub fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = self.running.into();
        bytes[11] = self.settled.into();
        bytes[16..32].copy_from_slice(&self.boot);
        bytes[32..40].copy_from_slice(&self.checkpoint.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Server, FormatError> {
        let bytes: &[u8; SIZE] = bytes.try_into().map_err(|_| FormatError::TooShort {
            need: SIZE,
            have: bytes.len(),
        })?;
        if &bytes[..8] != MAGIC {
            return Err(FormatError::Magic);
        }
        if crc32c::crc32c(&bytes[..40]).to_le_bytes() != bytes[40..] {
            return Err(FormatError::Checksum);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let (mut boot, mut checkpoint) = ([0; 16], [0; 8]);
        boot.copy_from_slice(&bytes[16..32]);
        checkpoint.copy_from_slice(&bytes[32..40]);
        Ok(Server {
            running: bytes[10] == 1,
            settled: bytes[11] == 1,
            boot,
            checkpoint: u64::from_le_bytes(checkpoint),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_every_flipped_bit_is_an_error() {
        let server = Server {
            running: true,
            settled: true,
            boot: *b"0123456789abcdef",
            checkpoint: 0x0102_0304_0506_0708,
        };
        let bytes = server.encode();
        assert_eq!(&bytes[..12], b"PGFKSERV\x01\0\x01\x01");
        assert_eq!(Server::decode(&bytes), Ok(server));
        for bit in 0..SIZE * 8 {
            let mut hurt = bytes;
            hurt[bit / 8] ^= 1 << (bit % 8);
            assert!(Server::decode(&hurt).is_err(), "bit {bit}");
        }
        assert!((0..SIZE).all(|len| Server::decode(&bytes[..len]).is_err()));
    }
}
