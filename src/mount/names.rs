//! Names for what is mounted: in this database's encoding, no longer than the server's names, each once.

use crate::pg::text;
use pgrx::pg_sys;
use std::collections::HashSet;
use std::ffi::CString;

/// Bytes of the longest name.
const MOST: usize = pg_sys::NAMEDATALEN as usize - 1;

/// The names that are taken.
#[derive(Default)]
pub struct Names(HashSet<CString>);

impl Names {
    /// The name, or the next one like it that is free; taken from now on. `None` if this database's encoding
    /// does not have all of its characters.
    pub fn take(&mut self, name: &str) -> Option<CString> {
        let bytes = in_server_encoding(name)?;
        let numbered = (1..).map(|n| format!("_{n}"));
        std::iter::once(String::new())
            .chain(numbered)
            .map(|suffix| cut(&bytes, &suffix))
            .find(|name| self.0.insert(name.clone()))
    }
}

fn in_server_encoding(name: &str) -> Option<Vec<u8>> {
    let encoding = text::server_encoding();
    let (bytes, whole) = text::to_or_mark(name, encoding);
    whole
        .then_some(bytes)
        .filter(|bytes| text::is_valid(bytes, encoding))
}

/// The name, cut off behind a whole character so that there is room for the suffix.
pub fn cut(name: &[u8], suffix: &str) -> CString {
    let mut bytes = name[..text::clip(name, MOST - suffix.len())].to_vec();
    bytes.extend(suffix.bytes());
    text::c_string(bytes)
}
