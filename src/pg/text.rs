//! Text of a database as Rust has it (UTF-8), and back.
//!
//! A byte that is no text in its encoding (SQL_ASCII holds any) becomes a private-use character, U+10FF00
//! and the byte, so that nothing is lost on the way there and back.
//!
//! Conversions are the server's own (mbutils.c, `pg_do_encoding_conversion_buf`), found once by the search path
//! (namespace.c, `FindDefaultConversionProc`): a conversion's function takes `internal`, so it is C and a
//! superuser's. They look into catalogs, so a transaction must be open unless one of the two encodings is
//! UTF-8 or SQL_ASCII and the other the same.

use pgrx::pg_sys;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_char, CStr, CString};

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;
/// The first of the 256 characters that stand for bytes.
const BYTES: u32 = 0x10_FF00;

/// The encoding of the database that this process is in.
pub fn server_encoding() -> i32 {
    // SAFETY: a plain variable of this process.
    unsafe { pg_sys::GetDatabaseEncoding() }
}

/// The character that stands for a byte which is no text.
fn stand_in(byte: u8) -> char {
    char::from_u32(BYTES + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character stands for.
fn stands_for(c: char) -> Option<u8> {
    u32::from(c)
        .checked_sub(BYTES)
        .and_then(|byte| byte.try_into().ok())
        .filter(|byte: &u8| *byte >= 0x80)
}

fn from_utf8(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| stand_in(*byte)));
    }
    text
}

fn to_utf8(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut buffer = [0; 4];
    for c in text.chars() {
        match stands_for(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(c.encode_utf8(&mut buffer).bytes()),
        }
    }
    bytes
}

/// By both encodings; `None` where there is none.
type Conversions = HashMap<(i32, i32), Option<Box<pg_sys::FmgrInfo>>>;

thread_local! {
    /// Found once, with the search path of that moment.
    static CONVERSIONS: RefCell<Conversions> = RefCell::default();
}

/// Finds the functions for both directions: what was read in one encoding may have to be said in it when
/// no catalog can be read any more (`say`).
fn find(from: i32, to: i32) {
    for pair in [(from, to), (to, from)] {
        if CONVERSIONS.with_borrow(|known| known.contains_key(&pair)) {
            continue;
        }
        // SAFETY: a look-up; what it remembers lives as long as the process.
        let found = unsafe {
            let number = pg_sys::FindDefaultConversionProc(pair.0, pair.1);
            (number != pg_sys::InvalidOid).then(|| {
                let mut function = Box::new(pg_sys::FmgrInfo::default());
                pg_sys::fmgr_info_cxt(number, &mut *function, pg_sys::TopMemoryContext);
                function
            })
        };
        CONVERSIONS.with_borrow_mut(|known| known.insert(pair, found));
    }
}

/// Converts as much as can be; returns it, and how many bytes of `bytes` that was. `look_up`: where catalogs
/// can be read.
fn convert(bytes: &[u8], from: i32, to: i32, look_up: bool) -> (Vec<u8>, usize) {
    if look_up {
        find(from, to);
    }
    CONVERSIONS.with_borrow_mut(|known| {
        let Some(Some(function)) = known.get_mut(&(from, to)) else {
            return (Vec::new(), 0);
        };
        // `MAX_CONVERSION_GROWTH`, and a zero byte.
        let mut result = vec![0u8; bytes.len() * pg_sys::MAX_CONVERSION_GROWTH as usize + 1];
        // SAFETY: a conversion's function (pg_conversion.h) with its six arguments, the last of which says
        // that it is to return how far it came; a buffer as large as the longest result.
        let done = unsafe {
            pg_sys::FunctionCall6Coll(
                &mut **function,
                pg_sys::InvalidOid,
                pg_sys::Datum::from(from),
                pg_sys::Datum::from(to),
                pg_sys::Datum::from(bytes.as_ptr().cast_mut()),
                pg_sys::Datum::from(result.as_mut_ptr()),
                pg_sys::Datum::from(bytes.len() as i32),
                pg_sys::Datum::from(true),
            )
        };
        let end = result.iter().position(|byte| *byte == 0).unwrap_or(0);
        result.truncate(end);
        (result, (done.value() as i32).max(0) as usize)
    })
}

/// Bytes that one conversion takes at a time: its buffer has four times as many, and a length that C's
/// `int` can hold.
const PIECE: usize = 64 * 1024 * 1024;

/// Text in `encoding` as Rust has it.
pub fn from(bytes: &[u8], encoding: i32) -> String {
    if bytes.is_ascii() || encoding == UTF8 || encoding == SQL_ASCII {
        return from_utf8(bytes);
    }
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        // What is no text in the encoding, or has no equal, is told byte by byte.
        let piece = &rest[..rest.len().min(PIECE)];
        // SAFETY: that many bytes.
        let valid = unsafe {
            pg_sys::pg_encoding_verifymbstr(encoding, piece.as_ptr().cast(), piece.len() as i32)
        };
        let (converted, done) = convert(&piece[..valid.max(0) as usize], encoding, UTF8, true);
        text.push_str(&from_utf8(&converted));
        rest = &rest[done..];
        if done == 0 {
            text.push(stand_in(rest[0]));
            rest = &rest[1..];
        }
    }
    text
}

/// Text of the database that this process is in.
pub fn server(bytes: &[u8]) -> String {
    from(bytes, server_encoding())
}

/// A C string of the database that this process is in.
///
/// # Safety
/// A C string.
pub unsafe fn server_string(text: *const c_char) -> String {
    // SAFETY: by the caller's promise.
    server(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// The text in `encoding`, and whether all of it could be converted: a question mark stands for what has
/// no equal there.
pub fn to_or_mark(text: &str, encoding: i32) -> (Vec<u8>, bool) {
    in_encoding(text, encoding, true)
}

/// A text for people, in this database's encoding, also where no catalog can be read: what has been read in
/// that encoding can be said in it.
pub fn say(text: &str) -> Vec<u8> {
    in_encoding(text, server_encoding(), false).0
}

fn in_encoding(text: &str, encoding: i32, look_up: bool) -> (Vec<u8>, bool) {
    if text.is_ascii() || encoding == UTF8 || encoding == SQL_ASCII {
        return (to_utf8(text), true);
    }
    let (mut bytes, mut whole) = (Vec::with_capacity(text.len()), true);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(byte) = stands_for(first) {
            bytes.push(byte);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let end = rest
            .find(|c| stands_for(c).is_some())
            .unwrap_or(rest.len())
            .min(rest.floor_char_boundary(PIECE));
        let (converted, done) = convert(&rest.as_bytes()[..end], UTF8, encoding, look_up);
        bytes.extend(converted);
        rest = &rest[done..];
        if done == 0 {
            bytes.push(b'?');
            whole = false;
            rest = &rest[first.len_utf8()..];
        }
    }
    (bytes, whole)
}

/// The text in `encoding`. Raises 22P05 for a character that it does not have.
pub fn to(text: &str, encoding: i32) -> Vec<u8> {
    let (bytes, whole) = to_or_mark(text, encoding);
    if !whole {
        // SAFETY: a static C string.
        let name = unsafe { CStr::from_ptr(pg_sys::pg_encoding_to_char(encoding)) };
        pgrx::ereport!(
            ERROR,
            pgrx::PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
            format!(
                "text has characters that encoding \"{}\" does not have",
                name.to_string_lossy()
            ),
            shown(&text.chars().take(100).collect::<String>()).into_owned()
        );
    }
    bytes
}

/// The text as a C string of the database that this process is in: up to its first zero byte. Raises 22P05.
pub fn to_server(text: &str) -> CString {
    c_string(to(text, server_encoding()))
}

/// The bytes up to the first zero byte.
pub fn c_string(mut bytes: Vec<u8>) -> CString {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    CString::new(bytes).unwrap_or_default()
}

/// The bytes of a value of type text, whole.
///
/// # Safety
/// A datum of type text, or of one with its layout.
pub unsafe fn datum_bytes<'a>(datum: pg_sys::Datum) -> Cow<'a, [u8]> {
    // SAFETY: by the caller's promise; detoasting copies where it must.
    unsafe {
        let whole = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        let len = pgrx::varlena::varsize_any_exhdr(whole);
        Cow::Borrowed(std::slice::from_raw_parts(
            pgrx::varlena::vardata_any(whole).cast::<u8>(),
            len,
        ))
    }
}

/// A datum of type text, in this database's encoding, palloc'd. Raises 22P05.
pub fn text_datum(text: &str) -> pg_sys::Datum {
    bytes_datum(&to(text, server_encoding()))
}

/// A datum with text's layout, palloc'd.
pub fn bytes_datum(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: that many bytes; the copy is palloc'd. Raises an error past 1 GB.
    unsafe {
        pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(
            bytes.as_ptr().cast(),
            i32::try_from(bytes.len()).unwrap_or(i32::MAX),
        ))
    }
}

/// Whether the text can be said in this database's encoding, all of it.
pub fn fits(text: &str) -> bool {
    let encoding = server_encoding();
    text.is_ascii()
        || (!text.chars().any(|c| stands_for(c).is_some()) && to_or_mark(text, encoding).1)
}

/// The text with what this database's encoding cannot say written out: `\xE9` for a byte that is no text,
/// `\u{20AC}` for a character that it does not have.
pub fn shown(text: &str) -> Cow<'_, str> {
    if fits(text) {
        return Cow::Borrowed(text);
    }
    let encoding = server_encoding();
    // In an encoding of one byte for each character, and in none, any byte is text.
    // SAFETY: a number of an encoding.
    let any_byte = unsafe { pg_sys::pg_encoding_max_length(encoding) } == 1;
    let mut out = String::with_capacity(text.len());
    let mut buffer = [0; 4];
    for c in text.chars() {
        match stands_for(c) {
            Some(_) if any_byte => out.push(c),
            Some(byte) => out.push_str(&format!("\\x{byte:02X}")),
            None if c.is_ascii() || to_or_mark(c.encode_utf8(&mut buffer), encoding).1 => {
                out.push(c)
            }
            None => out.push_str(&format!("\\u{{{:X}}}", u32::from(c))),
        }
    }
    Cow::Owned(out)
}

/// Whether the bytes are text in the encoding.
pub fn is_valid(bytes: &[u8], encoding: i32) -> bool {
    let len = bytes.len() as i32;
    // SAFETY: that many bytes.
    unsafe { pg_sys::pg_encoding_verifymbstr(encoding, bytes.as_ptr().cast(), len) == len }
}

/// How many bytes of the text, in this database's encoding, are whole characters and no more than `most`.
pub fn clip(bytes: &[u8], most: usize) -> usize {
    // SAFETY: that many bytes.
    let len =
        unsafe { pg_sys::pg_mbcliplen(bytes.as_ptr().cast(), bytes.len() as i32, most as i32) };
    len as usize
}
