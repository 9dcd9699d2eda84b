//! What pg_fork writes to disk: fixed widths, little-endian, magic, version, CRC-32C.
//!
//! Each decoder answers any bytes whatever with a value or an error.

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
