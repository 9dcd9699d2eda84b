//! `fork_create` and `fork_drop`: version-1 functions, as their types are `name`.
#![allow(unsafe_code)] // C calls these

use crate::fork::{create, drop};
use crate::pg::text;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// Tells PostgreSQL how the function is called (fmgr.h, `PG_FUNCTION_INFO_V1`).
macro_rules! version_1 {
    ($info:ident) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $info() -> &'static pg_sys::Pg_finfo_record {
            const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &RECORD
        }
    };
}
pub(super) use version_1;
version_1!(pg_finfo_fork_create_c);
version_1!(pg_finfo_fork_drop_c);

/// An argument's datum; `None` if it is null.
pub(super) unsafe fn argument(fcinfo: pg_sys::FunctionCallInfo, n: usize) -> Option<pg_sys::Datum> {
    // SAFETY: the function was declared with more than n arguments.
    let argument = unsafe { (*fcinfo).args.as_slice((*fcinfo).nargs as usize)[n] };
    (!argument.isnull).then_some(argument.value)
}

/// An argument of type `name`, which is a C string of fixed size.
pub(super) unsafe fn name_argument(fcinfo: pg_sys::FunctionCallInfo, n: usize) -> Option<String> {
    // SAFETY: the argument is of type name.
    unsafe {
        let datum = argument(fcinfo, n)?;
        Some(text::server_string(datum.cast_mut_ptr()))
    }
}

pub(super) unsafe fn required_name(
    fcinfo: pg_sys::FunctionCallInfo,
    n: usize,
    what: &str,
) -> String {
    // SAFETY: as above.
    match unsafe { name_argument(fcinfo, n) } {
        Some(name) => name,
        None => {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                format!("{what} must not be null")
            );
        }
    }
}

/// An argument of type `text`.
pub(super) unsafe fn text_argument(fcinfo: pg_sys::FunctionCallInfo, n: usize) -> Option<String> {
    // SAFETY: the argument is of type text.
    unsafe { argument(fcinfo, n).map(|datum| text::server(&text::datum_bytes(datum))) }
}

/// A result of type `name`, or a column of it.
pub(super) fn name_datum(name: &str) -> pg_sys::Datum {
    let name = text::to_server(name);
    // SAFETY: a palloc'd, zeroed NameData, and as many bytes of whole characters as it has room for.
    unsafe {
        let datum = pg_sys::palloc0(pg_sys::NAMEDATALEN as usize).cast::<u8>();
        let bytes = name.as_bytes();
        let most = pg_sys::NAMEDATALEN as i32 - 1;
        let len = pg_sys::pg_mbcliplen(name.as_ptr(), bytes.len() as i32, most) as usize;
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), datum, len);
        pg_sys::Datum::from(datum)
    }
}

unsafe fn flag(fcinfo: pg_sys::FunctionCallInfo, n: usize, default: bool) -> bool {
    // SAFETY: the argument is a boolean.
    unsafe { argument(fcinfo, n) }.map_or(default, |datum| datum.value() != 0)
}

/// `fork_create(source name, fork name DEFAULT NULL) RETURNS name`: forks a live database.
///
/// `source`: the database's name. `fork`: the new database's name; null for `<source>_fork_<n>`.
/// Raises 3D000 (no such source), 42P04 (name taken), 42501 (no CONNECT on the source), 53400 (too
/// many forks), 55P03 (the source's backends did not stop within `pg_fork.cut_timeout`), 25006
/// (read-only transaction), 22004 (null source), 53100 or 58030 (files could not be made).
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_create_c(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: declared in the SQL below.
    let (source, fork) = unsafe {
        (
            required_name(fcinfo, 0, "the source's name"),
            name_argument(fcinfo, 1),
        )
    };
    if fork.as_ref().is_some_and(String::is_empty) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_NAME,
            "the fork's name must not be empty"
        );
    }
    name_datum(&create::create(&source, fork.as_deref()))
}

/// `fork_drop(fork name, force boolean DEFAULT true, missing_ok boolean DEFAULT false) RETURNS boolean`.
///
/// Drops a fork when the transaction commits; true if there was one. `force`: ends its sessions.
/// Raises 3D000 (no such database), 42809 (not a fork), 42501 (neither owner nor superuser), 55006
/// (in use, or this session is in it), 2BP01 (it has forks of its own).
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_drop_c(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: declared in the SQL below; the calls raise an error where nothing may be written.
    let (name, force, missing_ok) = unsafe {
        pg_sys::PreventCommandIfReadOnly(c"fork_drop()".as_ptr());
        pg_sys::PreventCommandIfParallelMode(c"fork_drop()".as_ptr());
        (
            required_name(fcinfo, 0, "the fork's name"),
            flag(fcinfo, 1, true),
            flag(fcinfo, 2, false),
        )
    };
    pg_sys::Datum::from(drop::drop_fork(&name, force, missing_ok))
}

extension_sql!(
    r#"
CREATE FUNCTION fork_create(source name, fork name DEFAULT NULL) RETURNS name
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_create_c';
REVOKE ALL ON FUNCTION fork_create(name, name) FROM PUBLIC;
COMMENT ON FUNCTION fork_create(name, name) IS 'make a writable copy-on-write fork of a live database';

CREATE FUNCTION fork_drop(fork name, force boolean DEFAULT true, missing_ok boolean DEFAULT false) RETURNS boolean
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_drop_c';
COMMENT ON FUNCTION fork_drop(name, boolean, boolean) IS 'drop a fork';
"#,
    name = "fork_functions"
);
