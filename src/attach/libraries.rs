//! Libraries that keep state of one database in their own memory, which no invalidation reaches.
#![allow(unsafe_code)] // looks at what is loaded, and at catalogs

use crate::attach::{postgis, refuse};
use crate::reader::relation::Catalogs;
use pgrx::pg_sys;
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

/// Each looks up once in a session the number of a type that this extension has. They can follow to where the
/// extension is the same one, so to a fork in which nobody made it anew.
const REMEMBER: [(&str, &CStr); 4] = [
    ("ogr_fdw", c"postgis"),
    ("oracle_fdw", c"postgis"),
    ("pointcloud", c"pointcloud"),
    ("libMobilityDB", c"mobilitydb"),
];

/// pg_extension and pg_language; of both the first columns are the number and the name.
const EXTENSIONS: u32 = 3079;
const LANGUAGES: u32 = 2612;
const NUMBER: i32 = 1;
const NAME: i32 = 2;

/// Raises 0A000 if the process has a library that cannot follow to the database `to`. In a transaction.
pub fn refuse_those_that_stay(to: u32) {
    // It costs a look into the other database: only where there is a reason.
    let mut there = None;
    let mut number_there = |name: &CStr| {
        let known = there.get_or_insert_with(|| numbers_in(to));
        let found = known.iter().find(|(it, _)| it.as_c_str() == name);
        found.map(|(_, number)| *number)
    };
    for library in loaded() {
        let stays = STAY.iter().find(|(name, _)| is(&library, name));
        let used = stays.is_some_and(|(_, names)| {
            let mut names = names.iter();
            names.any(|name| number_here(name).is_some() || number_there(name).is_some())
        });
        let remembers = REMEMBER.iter().find(|(name, _)| is(&library, name));
        let other = remembers.is_some_and(|(_, name)| number_here(name) != number_there(name));
        if used || other {
            refuse(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("cannot leave the database: the library \"{library}\" keeps state of it"),
                "Connect to the fork by its name, in a session of its own.",
            );
        }
    }
    postgis::check();
}

/// Whether a library is that one: `NAME`, or `NAME-VERSION`.
pub fn is(library: &str, name: &str) -> bool {
    let rest = library.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The number of the extension or language of that name in this database.
fn number_here(name: &CStr) -> Option<u32> {
    // SAFETY: look-ups.
    unsafe {
        let extension = pg_sys::get_extension_oid(name.as_ptr(), true).to_u32();
        let language = || pg_sys::get_language_oid(name.as_ptr(), true).to_u32();
        let found = if extension != 0 {
            extension
        } else {
            language()
        };
        (found != 0).then_some(found)
    }
}

/// The extensions, then the languages, of another database, with their numbers.
fn numbers_in(database: u32) -> Vec<(CString, u32)> {
    let catalogs = Catalogs::open(database);
    let mut found = Vec::new();
    for catalog in [EXTENSIONS, LANGUAGES] {
        catalogs.all(catalog, |row| {
            // SAFETY: a column of type name.
            let name = row
                .column(NAME)
                .map(|name| unsafe { CStr::from_ptr(name.cast_mut_ptr()).to_owned() });
            let number = row.column(NUMBER).map(|number| number.value() as u32);
            found.extend(name.zip(number));
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
