//! A value as JSON, as `to_json` has it where a type has no cast of its own (json.c, `datum_to_json`): in
//! text that `jsonb` takes, whatever the value.
#![allow(unsafe_code)] // values of PostgreSQL's

use super::kinds::{fields, Form, Kind};
use super::numbers::{elements, ended};
use super::{bytes_of, plain_size, Values, LARGE};
use crate::pg::text as encoding;
use pg_fork_core::json::{fits_jsonb, is_number, quote};
use pgrx::pg_sys::{self, Datum};
use std::ffi::CStr;

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// md5_common.c; pgrx does not bind it.
    fn pg_md5_hash(
        bytes: *const std::ffi::c_void,
        len: usize,
        sum: *mut std::ffi::c_char,
        error: *mut *const std::ffi::c_char,
    ) -> bool;
}

impl Values<'_> {
    /// Appends the value as JSON.
    pub fn json(&self, kind: u32, value: Datum, out: &mut String) {
        let kind = self.kind(kind);
        // SAFETY: raises an error.
        unsafe { pg_sys::check_stack_depth() };
        // SAFETY: a value of the type that the kind was made for, here and below.
        match &*kind {
            Kind::Object(_) | Kind::Enum(_) => self.json_of(&kind, value, out),
            Kind::Output(_, _, _, layout) | Kind::Bytes(layout) if layout.len != -1 => {
                self.json_of(&kind, value, out);
            }
            _ if unsafe { plain_size(value) } > LARGE => large(value, out),
            _ => self.json_of(&kind, value, out),
        }
    }

    fn json_of(&self, kind: &Kind, value: Datum, out: &mut String) {
        // SAFETY: a value of the type that the kind was made for, here and below.
        match kind {
            Kind::Plain(Form::Json) | Kind::Output(_, Form::Json, ..) => {
                let text = self.printed(kind, value);
                let unicode = matches!(encoding::server_encoding() as u32, pg_sys::pg_enc::PG_UTF8);
                match encoding::fits(&text) && fits_jsonb(&text, unicode) {
                    true => out.push_str(&text),
                    false => quote(&encoding::shown(&text), out),
                }
            }
            Kind::Output(_, Form::Bool, ..) => out.push_str(if value.value() & 1 == 0 {
                "false"
            } else {
                "true"
            }),
            Kind::Output(_, Form::Number, ..) => {
                let text = self.printed(kind, value);
                match is_number(&text) {
                    true => out.push_str(&text),
                    false => quote(&text, out),
                }
            }
            Kind::Output(kind, Form::Time, ..) => {
                let mut buffer = [0 as std::ffi::c_char; 129]; // MAXDATELEN and the zero byte
                                                               // SAFETY: room for the longest text.
                let text = unsafe {
                    pg_sys::JsonEncodeDateTime(buffer.as_mut_ptr(), value, *kind, std::ptr::null());
                    CStr::from_ptr(buffer.as_ptr()).to_string_lossy()
                };
                quote(&text, out);
            }
            Kind::Array {
                element, layout, ..
            } => {
                let array = unsafe { elements(value, *layout) };
                let sizes: Vec<usize> = array
                    .dimensions
                    .iter()
                    .map(|(count, _)| *count as usize)
                    .collect();
                if array.values.is_empty() {
                    return out.push_str("[]");
                }
                for (n, value) in array.values.iter().enumerate() {
                    match n {
                        0 => out.extend(sizes.iter().map(|_| '[')),
                        n => {
                            let ended = ended(&sizes, n);
                            out.extend((0..ended).map(|_| ']'));
                            out.push(',');
                            out.extend((0..ended).map(|_| '['));
                        }
                    }
                    match value {
                        None => out.push_str("null"),
                        Some(value) => self.json(*element, *value, out),
                    }
                }
                out.extend(sizes.iter().map(|_| ']'));
            }
            Kind::Row(columns, form) => {
                let values = unsafe { fields(value, *form) };
                out.push('{');
                let mut first = true;
                for (column, value) in columns.iter().zip(values) {
                    let Some(column) = column else { continue };
                    if !std::mem::take(&mut first) {
                        out.push(',');
                    }
                    quote(&encoding::shown(&self.decode(&column.name)), out);
                    out.push(':');
                    match value {
                        None => out.push_str("null"),
                        Some(value) => self.json(column.kind, value, out),
                    }
                }
                out.push('}');
            }
            _ => quote(&encoding::shown(&self.printed(kind, value)), out),
        }
    }

    /// The value's text, as Rust has it.
    fn printed(&self, kind: &Kind, value: Datum) -> String {
        let mut text = Vec::new();
        self.print(kind, value, &mut |piece| text.extend_from_slice(piece));
        self.decode(&text)
    }
}

/// What is shown of a value that `jsonb` might not hold: its size, and what tells it from others.
fn large(value: Datum, out: &mut String) {
    // SAFETY: a varlena.
    let bytes = unsafe { bytes_of(value) };
    quote(&told(bytes), out);
}

/// Bytes told by their number and md5.
pub fn told(bytes: &[u8]) -> String {
    let mut sum = [0 as std::ffi::c_char; 33];
    let mut error = std::ptr::null();
    // SAFETY: that many bytes, and room for 32 digits and a zero byte.
    let sum = unsafe {
        match pg_md5_hash(
            bytes.as_ptr().cast(),
            bytes.len(),
            sum.as_mut_ptr(),
            &mut error,
        ) {
            true => CStr::from_ptr(sum.as_ptr()).to_string_lossy().into_owned(),
            false => "not known".into(),
        }
    };
    format!("({} bytes, md5 {sum})", bytes.len())
}
