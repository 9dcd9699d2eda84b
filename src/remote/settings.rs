//! Settings under which catalogs print the same everywhere, whatever a database, a role or the session has
//! set: for the worker, and for a query that the caller's own session runs.
#![allow(unsafe_code)] // guc.c

use pgrx::pg_sys;
use std::ffi::CStr;

/// What could change the text of a value, what a query's text means, or how it runs. Any user may set these.
const SETTINGS: [(&CStr, &CStr); 25] = [
    // Temporary relations last: unnamed they would come first, before the catalogs.
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"quote_all_identifiers", c"off"),
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"xmlbinary", c"base64"),
    (c"xmloption", c"content"),
    (c"lc_monetary", c"C"),
    (c"lc_numeric", c"C"),
    (c"lc_time", c"C"),
    (c"standard_conforming_strings", c"on"),
    (c"backslash_quote", c"safe_encoding"),
    (c"escape_string_warning", c"on"),
    (c"array_nulls", c"on"),
    (c"transform_null_equals", c"off"),
    (c"row_security", c"on"),
    (c"plan_cache_mode", c"auto"),
    (c"jit", c"off"),
    (c"max_parallel_workers_per_gather", c"0"),
    (c"force_parallel_mode", c"off"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    (c"client_min_messages", c"notice"),
];

fn set(name: &CStr, value: &CStr, action: pg_sys::GucAction::Type) {
    // SAFETY: C strings. The context lets us set what a user may.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// In a worker's transaction, until its end or longer. It tells of errors in its own database's encoding,
/// and the caller converts: between two encodings the server need not have a conversion.
pub fn of_worker() {
    // SAFETY: a static C string.
    let encoding = unsafe { CStr::from_ptr(pg_sys::GetDatabaseEncodingName()) };
    let all = SETTINGS.into_iter();
    for (name, value) in all.chain([(c"client_encoding", encoding)]) {
        set(name, value, pg_sys::GucAction::GUC_ACTION_SET);
    }
}

/// In the caller's session, while `what` runs. An error puts them back as well (guc.c, `AtEOSubXact_GUC`).
pub fn meanwhile<R>(what: impl FnOnce() -> R) -> R {
    // SAFETY: as SECURITY DEFINER functions with settings of their own have it (fmgr.c).
    let level = unsafe { pg_sys::NewGUCNestLevel() };
    for (name, value) in SETTINGS {
        set(name, value, pg_sys::GucAction::GUC_ACTION_SAVE);
    }
    let result = what();
    // SAFETY: the level from above.
    unsafe { pg_sys::AtEOXact_GUC(true, level) };
    result
}
