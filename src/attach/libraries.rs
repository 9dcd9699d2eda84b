//! Libraries that keep state of one database in their own memory, which no invalidation reaches.
#![allow(unsafe_code)] // looks at what is loaded, and at catalogs

use crate::attach::{postgis, refuse};
use crate::reader::relation::Catalogs;
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;
use std::ffi::{CStr, CString};
use std::path::Path;

/// Each with the extensions and languages by which it is used: other procedural languages' functions, and
/// extensions that work for one database. Where neither the database that is left nor the one that is entered
/// has any of them, the library has nothing to keep.
const STAY: [(&str, &[&CStr]); 16] = [
    ("plperl", &[c"plperl", c"plperlu"]),
    ("plpython3", &[c"plpython3u"]),
    ("plpython2", &[c"plpython2u", c"plpythonu"]),
    ("pltcl", &[c"pltcl", c"pltclu"]),
    ("plv8", &[c"plv8", c"plls", c"plcoffee"]),
    ("pljava", &[c"pljava", c"java", c"javau"]),
    ("plr", &[c"plr"]),
    ("pllua", &[c"pllua", c"plluau"]),
    ("timescaledb", &[c"timescaledb"]),
    ("citus", &[c"citus"]),
    ("pglogical", &[c"pglogical"]),
    ("bdr", &[c"bdr"]),
    ("pg_cron", &[c"pg_cron"]),
    ("orioledb", &[c"orioledb"]),
    ("pgq_lowlevel", &[c"pgq", c"pgq_lowlevel"]),
    ("age", &[c"age"]),
];

/// pg_extension and pg_language; the second column of either is the name.
const EXTENSIONS: u32 = 3079;
const LANGUAGES: u32 = 2612;
const NAME: i32 = 2;

/// Raises 0A000 if the process has a library that cannot follow to the database `to`. In a transaction.
pub fn refuse_those_that_stay(to: u32) {
    let loaded = loaded();
    let suspects: Vec<_> = loaded
        .iter()
        .filter_map(|name| Some((name, used_by(name)?)))
        .collect();
    // It costs a look into the other database: only where there is a reason.
    if !suspects.is_empty() {
        let there = names_in(to);
        for (library, names) in suspects {
            let here = names.iter().any(|name| is_here(name));
            if here
                || names
                    .iter()
                    .any(|name| there.iter().any(|it| it.as_c_str() == *name))
            {
                refuse(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!(
                        "cannot leave the database: the library \"{library}\" keeps state of it"
                    ),
                    "Connect to the fork by its name, in a session of its own.",
                );
            }
        }
    }
    postgis::check();
}

/// By what a library is used, if it is one of those: `NAME`, or `NAME-VERSION`.
fn used_by(library: &str) -> Option<&'static [&'static CStr]> {
    let is = |stays: &str| {
        library
            .strip_prefix(stays)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    STAY.into_iter()
        .find_map(|(stays, names)| is(stays).then_some(names))
}

/// Whether this database has an extension or a language of that name.
fn is_here(name: &CStr) -> bool {
    // SAFETY: look-ups.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::LANGNAME as i32;
        let none = Datum::from(0usize);
        pg_sys::get_extension_oid(name.as_ptr(), true) != pg_sys::InvalidOid
            || pg_sys::SearchSysCacheExists(cache, Datum::from(name.as_ptr()), none, none, none)
    }
}

/// The extensions and languages of another database.
fn names_in(database: u32) -> Vec<CString> {
    let catalogs = Catalogs::open(database);
    let mut found = Vec::new();
    for catalog in [EXTENSIONS, LANGUAGES] {
        catalogs.all(catalog, |row| {
            // SAFETY: a column of type name.
            found.extend(
                row.column(NAME)
                    .map(|name| unsafe { CStr::from_ptr(name.cast_mut_ptr()).to_owned() }),
            );
        });
    }
    found
}

/// The names of the shared libraries in this process, without folder and ending.
fn loaded() -> Vec<String> {
    let mut names = Vec::new();
    each_loaded(|name, _| names.push(name.to_string()));
    names
}

/// Calls `what` with the name and the segments of each shared library in this process.
pub fn each_loaded(mut what: impl FnMut(&str, &libc::dl_phdr_info)) {
    unsafe extern "C" fn note(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        data: *mut libc::c_void,
    ) -> i32 {
        // SAFETY: dl_iterate_phdr passes a library's entry, and our own closure.
        unsafe {
            let what = &mut *data.cast::<&mut dyn FnMut(&str, &libc::dl_phdr_info)>();
            if !(*info).dlpi_name.is_null() {
                let path = CStr::from_ptr((*info).dlpi_name).to_string_lossy();
                if let Some(stem) = Path::new(path.as_ref()).file_stem() {
                    what(&stem.to_string_lossy(), &*info);
                }
            }
        }
        0
    }
    let mut what: &mut dyn FnMut(&str, &libc::dl_phdr_info) = &mut what;
    // SAFETY: the callback gets a pointer to our own closure.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut what).cast()) };
}
