//! In which form values are compared, and what stands for it.
#![allow(unsafe_code)] // calls into jsonb.c

use super::columns::Compare;
use crate::pg::text;
use pg_fork_core::json::{fits_jsonb, quote};
use pgrx::pg_sys;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes 128 bits that stand for what is compared; nobody can choose rows for which they are the same.
#[derive(Clone)]
pub struct Digests([RandomState; 2]);

impl Digests {
    pub fn new() -> Self {
        Digests([RandomState::new(), RandomState::new()])
    }

    pub fn begin(&self) -> Digest {
        Digest(self.0.each_ref().map(|state| state.build_hasher()))
    }
}

/// Digests in the making.
#[derive(Clone)]
pub struct Digest([std::hash::DefaultHasher; 2]);

impl Digest {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|hasher| hasher.write(bytes));
    }

    pub fn end(&self) -> [u8; 16] {
        let halves = self
            .0
            .each_ref()
            .map(|hasher| hasher.finish().to_le_bytes());
        let mut whole = [0; 16];
        whole[..8].copy_from_slice(&halves[0]);
        whole[8..].copy_from_slice(&halves[1]);
        whole
    }
}

/// Most bytes of a row: `jsonb` holds 256 MB (jsonb.h, `JENTRY_OFFLENMASK`).
const MOST: usize = 200 * 1024 * 1024;

/// Tells the largest values by their size, until the row is one that `jsonb` can hold.
pub fn shorten(parts: &mut [(String, String)]) {
    while parts
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>()
        > MOST
    {
        let Some((_, largest)) = parts.iter_mut().max_by_key(|(_, value)| value.len()) else {
            return;
        };
        let told = super::values::told(largest.as_bytes());
        largest.clear();
        quote(&told, largest);
    }
}

/// The text in the form in which it is compared with one of another type.
pub fn canonical(compare: Compare, text: &[u8]) -> Vec<u8> {
    match compare {
        Compare::Text => text.to_vec(),
        Compare::Trimmed => {
            let end = text
                .iter()
                .rposition(|byte| *byte != b' ')
                .map_or(0, |at| at + 1);
            text[..end].to_vec()
        }
        Compare::Number => match text.contains(&b'.') {
            true => {
                let end = text
                    .iter()
                    .rposition(|byte| *byte != b'0')
                    .map_or(0, |at| at + 1);
                let text = &text[..end];
                text.strip_suffix(b".").unwrap_or(text).to_vec()
            }
            false => text.to_vec(),
        },
        Compare::Json => {
            let shown = String::from_utf8_lossy(text);
            if !fits_jsonb(
                &shown,
                text::server_encoding() == pg_sys::pg_enc::PG_UTF8 as i32,
            ) {
                return text.to_vec();
            }
            jsonb_text(text)
        }
    }
}

/// JSON as jsonb prints it.
fn jsonb_text(json: &[u8]) -> Vec<u8> {
    let json = text::c_string(json.to_vec());
    // SAFETY: valid JSON that jsonb can hold; a palloc'd C string.
    unsafe {
        let value = pg_sys::OidInputFunctionCall(
            pg_sys::F_JSONB_IN.into(),
            json.as_ptr().cast_mut(),
            pg_sys::InvalidOid,
            -1,
        );
        let text = pg_sys::OidOutputFunctionCall(pg_sys::F_JSONB_OUT.into(), value);
        std::ffi::CStr::from_ptr(text).to_bytes().to_vec()
    }
}
