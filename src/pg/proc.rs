//! Rows of pg_proc, in the catalog cache.

use pgrx::pg_sys::{self, Oid, SysCacheIdentifier};
use std::ffi::CStr;

/// Languages that every database has (pg_language.dat).
pub const INTERNAL: Oid = Oid::from_u32(12);
pub const C: Oid = Oid::from_u32(13);
pub const SQL: Oid = Oid::from_u32(14);

/// `PROVOLATILE_IMMUTABLE`, `PROVOLATILE_VOLATILE` of pg_proc.h.
const IMMUTABLE: u8 = b'i';
const VOLATILE: u8 = b'v';

/// A function's row, pinned in the cache.
pub struct Proc(pg_sys::HeapTuple);

impl Proc {
    /// In a transaction.
    pub fn find(function: Oid) -> Option<Self> {
        // SAFETY: a look-up in the catalog cache.
        let tuple =
            unsafe { pg_sys::SearchSysCache1(SysCacheIdentifier::PROCOID as i32, function.into()) };
        (!tuple.is_null()).then_some(Proc(tuple))
    }

    fn form(&self) -> &pg_sys::FormData_pg_proc {
        // SAFETY: the fixed part of a row of pg_proc, pinned as long as this lives.
        unsafe { &*pg_sys::GETSTRUCT(self.0).cast() }
    }

    fn text(&self, column: u32) -> Option<String> {
        let mut null = false;
        // SAFETY: a column of text of that catalog.
        unsafe {
            let cache = SysCacheIdentifier::PROCOID as i32;
            let datum = pg_sys::SysCacheGetAttr(cache, self.0, column as i16, &mut null);
            if null {
                return None;
            }
            let text = pg_sys::text_to_cstring(datum.cast_mut_ptr());
            let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
            pg_sys::pfree(text.cast());
            Some(copy)
        }
    }

    pub fn name(&self) -> String {
        // SAFETY: a name ends with a zero byte.
        let name = unsafe { CStr::from_ptr(self.form().proname.data.as_ptr()) };
        name.to_string_lossy().into_owned()
    }

    pub fn is_volatile(&self) -> bool {
        self.form().provolatile as u8 == VOLATILE
    }

    pub fn is_immutable(&self) -> bool {
        self.form().provolatile as u8 == IMMUTABLE
    }

    pub fn language(&self) -> Oid {
        self.form().prolang
    }

    /// Its source, or its name in C.
    pub fn source(&self) -> Option<String> {
        self.text(pg_sys::Anum_pg_proc_prosrc)
    }

    /// The library that it is in.
    pub fn file(&self) -> Option<String> {
        self.text(pg_sys::Anum_pg_proc_probin)
    }

    /// The server's function that one of the language `internal` stands for.
    pub fn built_in(&self) -> Option<Oid> {
        let name = std::ffi::CString::new(self.source()?).ok()?;
        // SAFETY: a C string.
        let found = unsafe { pg_sys::fmgr_internal_function(name.as_ptr()) };
        (found != pg_sys::InvalidOid).then_some(found)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // While an error unwinds, the end of the transaction unpins it.
        if !std::thread::panicking() {
            // SAFETY: pinned by `find`.
            unsafe { pg_sys::ReleaseSysCache(self.0) };
        }
    }
}

/// Columns of pg_language (pg_language.h); pgrx does not bind it.
const LANPLTRUSTED: i16 = 5;
const LANPLCALLFOID: i16 = 6;

/// A column of a row of pg_language that is found by this key; none of them can be null.
fn of_language(cache: SysCacheIdentifier::Type, key: pg_sys::Datum, column: i16) -> Option<usize> {
    let (cache, mut null) = (cache as i32, false);
    // SAFETY: a row in the catalog cache, looked at while it is pinned; a value of a type by value.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, key);
        if tuple.is_null() {
            return None;
        }
        let value = pg_sys::SysCacheGetAttr(cache, tuple, column, &mut null).value();
        pg_sys::ReleaseSysCache(tuple);
        Some(value)
    }
}

/// The function that calls those of a language.
pub fn handler(language: Oid) -> Option<Oid> {
    let handler = of_language(SysCacheIdentifier::LANGOID, language.into(), LANPLCALLFOID)?;
    Some(Oid::from(handler as u32))
}

/// Whether ordinary roles may write functions in the language with this name; `None` if there is none.
pub fn is_trusted(language: &CStr) -> Option<bool> {
    let key = pg_sys::Datum::from(language.as_ptr());
    of_language(SysCacheIdentifier::LANGNAME, key, LANPLTRUSTED).map(|trusted| trusted != 0)
}
