//! Values of a database whose encoding is another than this one's.
//!
//! Text is converted by the server's own conversions, which raise its own errors for what has no equal here
//! (22021, 22P05). Types that may hold text in a form that only their own functions know are not shown.
#![allow(unsafe_code)] // takes values apart, and calls the server's functions

use crate::pg::text;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;
use std::ffi::CStr;

/// What has to be done with a type's values.
#[derive(Clone, Debug)]
pub enum Conversion {
    /// They hold no text.
    Plain,
    /// The bytes of a varlena are text.
    Text,
    /// `name`.
    Name,
    /// `"char"`: a byte.
    Char,
    /// By its text form: its output and input functions, built-in ones that take any bytes.
    Through(u32, u32),
    Lexemes,
    Array(Box<Element>),
}

#[derive(Clone, Debug)]
pub struct Element {
    kind: Oid,
    len: i16,
    by_value: bool,
    align: i8,
    conversion: Conversion,
}

/// Whether text of a database in that encoding has to be looked at here.
pub fn is_foreign(encoding: i32) -> bool {
    // A database in SQL_ASCII takes any bytes.
    let here = text::server_encoding();
    here != encoding && here != pg_sys::pg_enc::PG_SQL_ASCII as i32
}

/// The server's own types that hold no text.
const PLAIN: &[Oid] = &[
    pg_sys::BOOLOID,
    pg_sys::BYTEAOID,
    pg_sys::INT8OID,
    pg_sys::INT2OID,
    pg_sys::INT4OID,
    pg_sys::REGPROCOID,
    pg_sys::OIDOID,
    pg_sys::TIDOID,
    pg_sys::XIDOID,
    pg_sys::CIDOID,
    pg_sys::POINTOID,
    pg_sys::LSEGOID,
    pg_sys::PATHOID,
    pg_sys::BOXOID,
    pg_sys::POLYGONOID,
    pg_sys::LINEOID,
    pg_sys::FLOAT4OID,
    pg_sys::FLOAT8OID,
    pg_sys::CIRCLEOID,
    pg_sys::MONEYOID,
    pg_sys::MACADDROID,
    pg_sys::INETOID,
    pg_sys::CIDROID,
    pg_sys::MACADDR8OID,
    pg_sys::ACLITEMOID,
    pg_sys::DATEOID,
    pg_sys::TIMEOID,
    pg_sys::TIMESTAMPOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::INTERVALOID,
    pg_sys::TIMETZOID,
    pg_sys::BITOID,
    pg_sys::VARBITOID,
    pg_sys::NUMERICOID,
    pg_sys::REGPROCEDUREOID,
    pg_sys::REGOPEROID,
    pg_sys::REGOPERATOROID,
    pg_sys::REGCLASSOID,
    pg_sys::REGTYPEOID,
    pg_sys::REGCONFIGOID,
    pg_sys::REGDICTIONARYOID,
    pg_sys::REGNAMESPACEOID,
    pg_sys::REGROLEOID,
    pg_sys::REGCOLLATIONOID,
    pg_sys::UUIDOID,
    pg_sys::PG_LSNOID,
    pg_sys::XID8OID,
    pg_sys::TXID_SNAPSHOTOID,
    pg_sys::PG_SNAPSHOTOID,
];

impl Conversion {
    /// That of a type which is the same here; `None` if there is none that is known to be right.
    pub fn of(kind: Oid) -> Option<Conversion> {
        // SAFETY: look-ups of a type that exists.
        unsafe {
            let base = pg_sys::getBaseType(kind);
            match base {
                pg_sys::TEXTOID
                | pg_sys::VARCHAROID
                | pg_sys::BPCHAROID
                | pg_sys::JSONOID
                | pg_sys::XMLOID
                | pg_sys::REFCURSOROID => return Some(Conversion::Text),
                pg_sys::NAMEOID => return Some(Conversion::Name),
                pg_sys::CHAROID => return Some(Conversion::Char),
                pg_sys::JSONBOID => {
                    return Some(Conversion::Through(pg_sys::F_JSONB_OUT, pg_sys::F_JSONB_IN))
                }
                pg_sys::JSONPATHOID => {
                    let input = pg_sys::F_JSONPATH_IN;
                    return Some(Conversion::Through(pg_sys::F_JSONPATH_OUT, input));
                }
                pg_sys::TSVECTOROID => return Some(Conversion::Lexemes),
                base if PLAIN.contains(&base) => return Some(Conversion::Plain),
                _ => {}
            }
            let element = pg_sys::get_element_type(base);
            if element != pg_sys::InvalidOid {
                return Self::of_array(element);
            }
            let plain = |kind| Self::of(kind).filter(|it| matches!(it, Conversion::Plain));
            match pg_sys::get_typtype(base) as u8 {
                // Its values are numbers; the labels here are the same ones.
                pg_sys::TYPTYPE_ENUM => Some(Conversion::Plain),
                pg_sys::TYPTYPE_RANGE => plain(pg_sys::get_range_subtype(base)),
                pg_sys::TYPTYPE_MULTIRANGE => plain(pg_sys::get_multirange_range(base)),
                _ => None,
            }
        }
    }

    fn of_array(kind: Oid) -> Option<Conversion> {
        let conversion = Self::of(kind)?;
        if matches!(conversion, Conversion::Plain) {
            return Some(conversion);
        }
        let (mut len, mut by_value, mut align) = (0, false, 0);
        // SAFETY: a look-up of a type that exists, and places for the results.
        unsafe { pg_sys::get_typlenbyvalalign(kind, &mut len, &mut by_value, &mut align) };
        Some(Conversion::Array(Box::new(Element {
            kind,
            len,
            by_value,
            align,
            conversion,
        })))
    }

    /// The value in this database's encoding: itself, or palloc'd.
    ///
    /// # Safety
    /// A whole value of the type, in `encoding`, without TOAST pointer.
    pub unsafe fn convert(&self, value: Datum, encoding: i32) -> Datum {
        // SAFETY: by the caller's promise.
        unsafe {
            match self {
                Conversion::Plain => value,
                Conversion::Text => {
                    let bytes = text::datum_bytes(value);
                    converted(&bytes, encoding).map_or(value, |new| text::bytes_datum(&new))
                }
                Conversion::Name => {
                    let bytes = CStr::from_ptr(value.cast_mut_ptr()).to_bytes();
                    converted(bytes, encoding).map_or(value, |new| name(&new))
                }
                Conversion::Char => {
                    if !(value.value() as u8).is_ascii() {
                        ereport!(
                            ERROR,
                            PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
                            "a value of type \"char\" of another database is no character of this one"
                        );
                    }
                    value
                }
                Conversion::Through(output, input) => {
                    let out = pg_sys::OidOutputFunctionCall((*output).into(), value);
                    match converted(CStr::from_ptr(out).to_bytes(), encoding) {
                        Some(new) => read(*input, new),
                        None => value,
                    }
                }
                Conversion::Lexemes => {
                    let plain = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
                    let bytes = text::datum_bytes(Datum::from(plain));
                    match lexemes(&bytes, |lexeme| converted(lexeme, encoding)) {
                        Some(None) => value,
                        Some(Some(new)) => read(pg_sys::F_TSVECTORIN, new),
                        None => damaged(),
                    }
                }
                Conversion::Array(element) => array(value, element, |value| {
                    element.conversion.convert(value, encoding)
                }),
            }
        }
    }
}

impl Conversion {
    /// Whether [`Conversion::convert`] raises no error for the value.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn fits(&self, value: Datum, encoding: i32) -> bool {
        // SAFETY: by the caller's promise.
        unsafe {
            match self {
                Conversion::Plain => true,
                Conversion::Text => fits(&text::datum_bytes(value), encoding),
                Conversion::Name => fits(CStr::from_ptr(value.cast_mut_ptr()).to_bytes(), encoding),
                Conversion::Char => (value.value() as u8).is_ascii(),
                Conversion::Through(output, _) => {
                    let out = pg_sys::OidOutputFunctionCall((*output).into(), value);
                    fits(CStr::from_ptr(out).to_bytes(), encoding)
                }
                Conversion::Lexemes => {
                    let mut all = true;
                    let plain = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
                    let bytes = text::datum_bytes(Datum::from(plain));
                    lexemes(&bytes, |lexeme| {
                        all &= fits(lexeme, encoding);
                        None
                    })
                    .is_some()
                        && all
                }
                Conversion::Array(element) => {
                    let mut all = true;
                    array(value, element, |value| {
                        all &= element.conversion.fits(value, encoding);
                        value
                    });
                    all
                }
            }
        }
    }
}

fn fits(bytes: &[u8], encoding: i32) -> bool {
    if encoding == pg_sys::pg_enc::PG_SQL_ASCII as i32 {
        return text::is_valid(bytes, text::server_encoding());
    }
    text::fits(&text::from(bytes, encoding))
}

fn damaged() -> ! {
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        "a value of another database is damaged"
    );
}

/// The text in this database's encoding, if that is another text.
fn converted(bytes: &[u8], encoding: i32) -> Option<Vec<u8>> {
    if bytes.is_ascii() {
        return None;
    }
    // SAFETY: that many bytes; the result is those, or a new C string. Raises an error for what has no equal.
    unsafe {
        let old = bytes.as_ptr().cast();
        let new = pg_sys::pg_any_to_server(old, bytes.len() as i32, encoding);
        if new.cast_const() == old {
            return None;
        }
        let copy = CStr::from_ptr(new).to_bytes().to_vec();
        pg_sys::pfree(new.cast());
        Some(copy)
    }
}

/// A value of type `name`, as namein makes it.
fn name(bytes: &[u8]) -> Datum {
    // SAFETY: a palloc'd, zeroed NameData, and as many bytes of whole characters as it has room for.
    unsafe {
        let size = pg_sys::NAMEDATALEN as usize;
        let datum = pg_sys::palloc0(size).cast::<u8>();
        let room = size as i32 - 1;
        let len = pg_sys::pg_mbcliplen(bytes.as_ptr().cast(), bytes.len() as i32, room);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), datum, len as usize);
        Datum::from(datum)
    }
}

/// What a built-in input function makes of the text.
fn read(function: u32, bytes: Vec<u8>) -> Datum {
    let string = text::c_string(bytes);
    // SAFETY: an input function without a type modifier; it copies what it needs.
    unsafe {
        pg_sys::OidInputFunctionCall(
            function.into(),
            string.as_ptr().cast_mut(),
            pg_sys::InvalidOid,
            -1,
        )
    }
}

/// A tsvector's text (ts_type.h), converted: its own output function goes by this database's characters. `None`
/// if it is damaged, `Some(None)` if nothing has to be converted.
fn lexemes(
    vector: &[u8],
    mut convert: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Option<Option<Vec<u8>>> {
    let word = |at: usize| Some(u32::from_ne_bytes(vector.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(vector.get(at..at + 2)?.try_into().ok()?));
    let count = word(0)? as usize;
    let strings = count.checked_mul(4)?.checked_add(4)?;
    let (mut out, mut any) = (Vec::new(), false);
    for n in 0..count {
        let entry = word(4 + 4 * n)?;
        let (has, len, at) = (
            entry & 1,
            (entry >> 1 & 0x7FF) as usize,
            (entry >> 12) as usize,
        );
        let from = strings.checked_add(at)?;
        let lexeme = vector.get(from..from + len)?;
        let new = convert(lexeme);
        any |= new.is_some();
        out.push(b'\'');
        for byte in new.as_deref().unwrap_or(lexeme) {
            if matches!(byte, b'\'' | b'\\') {
                out.push(*byte);
            }
            out.push(*byte);
        }
        out.push(b'\'');
        if has == 1 {
            let list = (from + len).next_multiple_of(2);
            for position in 0..usize::from(half(list)?) {
                let place = half(list + 2 + 2 * position)?;
                out.push(if position == 0 { b':' } else { b',' });
                out.extend((place & 0x3FFF).to_string().bytes());
                out.extend(
                    b"DCBA"[usize::from(place >> 14)..][..1]
                        .iter()
                        .filter(|it| **it != b'D'),
                );
            }
        }
        out.push(b' ');
    }
    Some(any.then_some(out))
}

/// The array with other elements.
unsafe fn array(value: Datum, element: &Element, mut change: impl FnMut(Datum) -> Datum) -> Datum {
    // SAFETY: a whole array; palloc'd arrays of as many elements.
    unsafe {
        let array = pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        if (*array).elemtype != element.kind {
            damaged();
        }
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        let align = element.align as std::ffi::c_char;
        pg_sys::deconstruct_array(
            array,
            element.kind,
            element.len.into(),
            element.by_value,
            align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        for n in (0..count as usize).filter(|n| !*nulls.add(*n)) {
            let place = values.add(n);
            *place = change(*place);
        }
        // Behind the header: the lengths, then the lower bounds.
        let dimensions = array.add(1).cast::<i32>();
        Datum::from(pg_sys::construct_md_array(
            values,
            nulls,
            (*array).ndim,
            dimensions,
            dimensions.add((*array).ndim as usize),
            element.kind,
            element.len.into(),
            element.by_value,
            align,
        ))
    }
}
