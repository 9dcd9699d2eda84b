//! A value as its output function prints it, in its database's encoding.
#![allow(unsafe_code)] // values of PostgreSQL's

use super::kinds::{fields, Kind};
use super::numbers::{elements, ranges, Elements, Range};
use super::{bytes_of, numbers, plain_size, Layout, Values, LARGE};
use pgrx::pg_sys::{self, Datum};
use std::ffi::CStr;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// `array_isspace`, `isspace` of C's locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C)
}

/// Whether a value has as many bytes that its text might be more than can be allocated.
pub fn is_large(layout: Layout, value: Datum) -> bool {
    // SAFETY: a value of that layout.
    layout.len == -1 && unsafe { plain_size(value) } > LARGE
}

/// The bytes of a value that no function may print.
fn raw(layout: Layout, value: &Datum) -> &[u8] {
    // SAFETY: a value of that layout.
    unsafe {
        match (layout.by_value, layout.len) {
            (true, len) => {
                std::slice::from_raw_parts((value as *const Datum).cast(), len.clamp(0, 8) as usize)
            }
            (false, -1) => bytes_of(*value),
            (false, -2) => CStr::from_ptr(value.cast_mut_ptr()).to_bytes(),
            (false, len) => std::slice::from_raw_parts(value.cast_mut_ptr(), len.max(0) as usize),
        }
    }
}

/// Bytes as byteaout prints them, piece by piece.
fn hex(bytes: &[u8], out: &mut dyn FnMut(&[u8])) {
    out(b"\\x");
    for piece in bytes.chunks(4096) {
        let digits = piece
            .iter()
            .flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        out(&digits.collect::<Vec<u8>>());
    }
}

fn quoted(text: &[u8], double: bool, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' if double => out.push(*byte),
            b'"' | b'\\' => out.push(b'\\'),
            _ => {}
        }
        out.push(*byte);
    }
    out.push(b'"');
}

impl Values<'_> {
    /// The value's text.
    pub fn text(&self, kind: u32, value: Datum) -> Vec<u8> {
        let mut out = Vec::new();
        self.print(&self.kind(kind), value, &mut |piece| {
            out.extend_from_slice(piece)
        });
        out
    }

    /// Prints the value, in one or more pieces.
    pub fn print(&self, kind: &Kind, value: Datum, out: &mut dyn FnMut(&[u8])) {
        // SAFETY: raises an error.
        unsafe { pg_sys::check_stack_depth() };
        // SAFETY: a value of the type that the kind was made for, here and below.
        match kind {
            Kind::Plain(_) => out(unsafe { bytes_of(value) }),
            Kind::Bytea => hex(unsafe { bytes_of(value) }, out),
            Kind::Output(_, _, _, layout) | Kind::Bytes(layout) if is_large(*layout, value) => {
                hex(raw(*layout, &value), out);
            }
            Kind::Output(_, _, function, _) => out(&self.call(function, value)),
            Kind::Object(kind) => out(&self.object(*kind, value.value() as u32)),
            Kind::Enum(labels) => match labels.get(&(value.value() as u32)) {
                Some(label) => out(label),
                None => out((value.value() as u32).to_string().as_bytes()),
            },
            Kind::Array {
                element,
                layout,
                delimiter,
            } => {
                out(&self.array(*element, unsafe { elements(value, *layout) }, *delimiter));
            }
            Kind::Row(columns, form) => {
                let values = unsafe { fields(value, *form) };
                let live = columns.iter().zip(values);
                let live = live.filter_map(|(column, value)| Some((column.as_ref()?.kind, value)));
                out(&self.record(live));
            }
            Kind::Range { element, layout } => match unsafe { numbers::range(value, *layout) } {
                Some(range) => out(&self.range(*element, &range)),
                None => hex(unsafe { bytes_of(value) }, out),
            },
            Kind::Multirange { element, layout } => match unsafe { ranges(value, *layout) } {
                Some(ranges) => {
                    let all: Vec<Vec<u8>> =
                        ranges.iter().map(|it| self.range(*element, it)).collect();
                    out(b"{");
                    out(&all.join(&b','));
                    out(b"}");
                }
                None => hex(unsafe { bytes_of(value) }, out),
            },
            Kind::Bytes(layout) => hex(raw(*layout, &value), out),
        }
    }

    fn call(&self, function: &pg_sys::FmgrInfo, value: Datum) -> Vec<u8> {
        self.in_its_encoding(|| {
            // SAFETY: an output function and a value of its type; a palloc'd C string.
            unsafe {
                let function = (&raw const *function).cast_mut();
                let text = pg_sys::OutputFunctionCall(function, value);
                let bytes = CStr::from_ptr(text).to_bytes().to_vec();
                pg_sys::pfree(text.cast());
                bytes
            }
        })
    }

    /// As array_out (arrayfuncs.c).
    fn array(&self, element: u32, array: Elements, delimiter: u8) -> Vec<u8> {
        let kind = self.kind(element);
        let mut out = Vec::new();
        if array.values.is_empty() {
            return b"{}".to_vec();
        }
        if array.dimensions.iter().any(|(_, lower)| *lower != 1) {
            for (count, lower) in &array.dimensions {
                let upper = i64::from(*lower) + i64::from(*count) - 1;
                out.extend(format!("[{lower}:{upper}]").bytes());
            }
            out.push(b'=');
        }
        let sizes: Vec<usize> = array
            .dimensions
            .iter()
            .map(|(count, _)| *count as usize)
            .collect();
        for (n, value) in array.values.iter().enumerate() {
            match n {
                0 => out.extend(sizes.iter().map(|_| b'{')),
                n => {
                    let ended = numbers::ended(&sizes, n);
                    out.extend((0..ended).map(|_| b'}'));
                    out.push(delimiter);
                    out.extend((0..ended).map(|_| b'{'));
                }
            }
            match value {
                None => out.extend(b"NULL"),
                Some(value) => {
                    let mut text = Vec::new();
                    self.print(&kind, *value, &mut |piece| text.extend_from_slice(piece));
                    let plain = !text.is_empty()
                        && !text.eq_ignore_ascii_case(b"NULL")
                        && !text.iter().any(|byte| {
                            matches!(byte, b'"' | b'\\' | b'{' | b'}')
                                || *byte == delimiter
                                || is_space(*byte)
                        });
                    match plain {
                        true => out.extend(text),
                        false => quoted(&text, false, &mut out),
                    }
                }
            }
        }
        out.extend(sizes.iter().map(|_| b'}'));
        out
    }

    /// As record_out (rowtypes.c).
    fn record(&self, columns: impl Iterator<Item = (u32, Option<Datum>)>) -> Vec<u8> {
        let mut out = vec![b'('];
        for (n, (kind, value)) in columns.enumerate() {
            if n > 0 {
                out.push(b',');
            }
            let Some(value) = value else { continue };
            let text = self.text(kind, value);
            let special =
                |byte: &u8| matches!(byte, b'"' | b'\\' | b'(' | b')' | b',') || is_space(*byte);
            match text.is_empty() || text.iter().any(special) {
                false => out.extend(text),
                true => quoted(&text, true, &mut out),
            }
        }
        out.push(b')');
        out
    }

    /// As range_out (rangetypes.c).
    fn range(&self, element: u32, range: &Range) -> Vec<u8> {
        if range.empty {
            return b"empty".to_vec();
        }
        let bound = |value: Option<Datum>, out: &mut Vec<u8>| {
            let Some(value) = value else { return };
            let text = self.text(element, value);
            let special = |byte: &u8| {
                matches!(byte, b'"' | b'\\' | b'(' | b')' | b'[' | b']' | b',') || is_space(*byte)
            };
            match text.is_empty() || text.iter().any(special) {
                false => out.extend(text),
                true => quoted(&text, true, out),
            }
        };
        let mut out = vec![if range.lower_included { b'[' } else { b'(' }];
        bound(range.lower, &mut out);
        out.push(b',');
        bound(range.upper, &mut out);
        out.push(if range.upper_included { b']' } else { b')' });
        out
    }
}
