//! What a value of a database's reads like, by the catalogs of that database, in whichever this session is.
//!
//! No code of a user's runs: no cast, no operator, no check. The server's own types print by the server's own
//! functions; what is made of others (arrays, rows, ranges, enums, domains) is taken apart here; and a base
//! type of an extension's prints by its output function, which is in C, and so a superuser's. What names
//! objects (`regclass` and its kin) is looked up in the catalogs of its own side.

#![allow(unsafe_code)] // values of PostgreSQL's

mod json;
pub mod kinds;
mod numbers;
mod objects;
mod text;

use crate::pg::text as encoding;
use crate::reader::relation::Catalogs;
use crate::reader::toast;
pub use json::told;
use kinds::Kind;
pub use kinds::Layout;
use pgrx::pg_sys::{self, Datum};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Larger values are told apart by their bytes, and shown by their size: as text they might be more than a
/// process can allocate (1 GB), or `jsonb` hold (256 MB).
pub const LARGE: usize = 64 * 1024 * 1024;

/// Names of objects, by catalog and number.
type Names = HashMap<(u32, u32), Rc<[u8]>>;

/// The values of one database.
pub struct Values<'a> {
    catalogs: &'a Catalogs,
    /// Of its text.
    encoding: i32,
    kinds: RefCell<HashMap<u32, Rc<Kind>>>,
    names: RefCell<Names>,
    /// What kinds are made of lives as long as this, whichever row they were first met in.
    memory: pg_sys::MemoryContext,
}

impl<'a> Values<'a> {
    /// What it remembers lives in the memory context that is current.
    pub fn new(catalogs: &'a Catalogs, encoding: i32) -> Self {
        Values {
            catalogs,
            encoding,
            kinds: RefCell::default(),
            names: RefCell::default(),
            // SAFETY: a plain variable of this process.
            memory: unsafe { pg_sys::CurrentMemoryContext },
        }
    }

    /// A text of that database's, as Rust has it.
    pub fn decode(&self, bytes: &[u8]) -> String {
        encoding::from(bytes, self.encoding)
    }

    /// Runs one of the server's functions as if this session were in that database: those that look at
    /// characters ask for its encoding (mbutils.c, `pg_mblen`).
    pub fn in_its_encoding<R>(&self, what: impl FnOnce() -> R) -> R {
        let here = encoding::server_encoding();
        if here == self.encoding {
            return what();
        }
        struct Back(i32);
        impl Drop for Back {
            fn drop(&mut self) {
                // SAFETY: the encoding that the session had; an error comes here too, before anyone sees it.
                unsafe { pg_sys::SetDatabaseEncoding(self.0) };
            }
        }
        let _back = Back(here);
        // SAFETY: an encoding of a database of this server.
        unsafe { pg_sys::SetDatabaseEncoding(self.encoding) };
        what()
    }
}

/// Whether a value of variable length lies in its row, not in a TOAST table.
fn is_inline(value: Datum) -> bool {
    // SAFETY: a column of a catalog's row.
    unsafe { toast::pointer(value.cast_mut_ptr()) }.is_none()
}

/// The bytes of a value of variable length behind its header, whole and plain.
///
/// # Safety
/// A varlena that does not lie in a TOAST table. The bytes live as long as the value or the current memory context.
pub unsafe fn bytes_of<'b>(value: Datum) -> &'b [u8] {
    // SAFETY: by the caller's promise.
    unsafe {
        let whole = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
        std::slice::from_raw_parts(
            pgrx::varlena::vardata_any(whole).cast::<u8>(),
            pgrx::varlena::varsize_any_exhdr(whole),
        )
    }
}

/// The bytes that a value of variable length takes when it is plain (detoast.c, `toast_raw_datum_size`).
///
/// # Safety
/// A varlena.
pub unsafe fn plain_size(value: Datum) -> usize {
    // SAFETY: by the caller's promise.
    unsafe {
        match toast::pointer(value.cast_mut_ptr()) {
            Some(pointer) => pointer.raw as usize,
            None => pg_sys::toast_raw_datum_size(value) as usize,
        }
    }
}
