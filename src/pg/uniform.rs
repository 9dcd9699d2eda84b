//! Settings that change how values are printed and names are found, as they are by default: for as long as
//! something runs that must come out the same for everybody.

use pgrx::pg_sys;
use std::ffi::CStr;

/// What a session, a role or a database may have set.
pub const SETTINGS: [(&CStr, &CStr); 11] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"xmlbinary", c"base64"),
    (c"xmloption", c"content"),
    (c"lc_monetary", c"C"),
    (c"lc_numeric", c"C"),
    (c"quote_all_identifiers", c"off"),
];

/// The settings are in force until this is dropped, or the (sub)transaction ends.
pub struct Uniform(i32);

impl Uniform {
    pub fn begin() -> Self {
        // SAFETY: C strings; what is saved comes back with the nest level (guc.c, `AtEOXact_GUC`).
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in SETTINGS {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            Uniform(level)
        }
    }
}

impl Drop for Uniform {
    fn drop(&mut self) {
        // An error's end of the (sub)transaction gives them back.
        if !std::thread::panicking() {
            // SAFETY: begun by us, and nothing that began since is left.
            unsafe { pg_sys::AtEOXact_GUC(true, self.0) };
        }
    }
}
