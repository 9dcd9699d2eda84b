//! `fork_mount` and `fork_unmount`.
#![allow(unsafe_code)] // C calls these

use super::api::{argument, name_argument, name_datum, required_name, text_argument, version_1};
use crate::mount::{create, unmount};
use crate::pg::text;
use pgrx::pg_sys;
use pgrx::prelude::*;

version_1!(pg_finfo_fork_mount_c);
version_1!(pg_finfo_fork_unmount_c);

/// `fork_mount(fork name, at text DEFAULT 'now', into_schema name DEFAULT NULL, tables text[] DEFAULT
/// NULL) RETURNS name`: shows a fork's tables, or a source's, in a schema of this database, read-only.
///
/// `at`: `'now'` (or null), or `'cut'` for the fork as it was made. `into_schema`: null for the fork's name,
/// with `_cut` behind it for its cut. `tables`: null for all that the caller may read there. Returns the
/// schema's name. Raises 22004 for a null `fork`, or a null among `tables`, and what [`create::mount`] says.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_mount_c(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let fork = required_name(call, 0, "the fork's name");
        let at = text_argument(call, 1).unwrap_or("now".into());
        let schema = name_argument(call, 2);
        let tables = argument(call, 3).map(|array| names(array));
        name_datum(&create::mount(&fork, &at, schema.as_deref(), tables))
    }
}

/// The elements of a `text[]`.
unsafe fn names(array: pg_sys::Datum) -> Vec<String> {
    let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: by the caller's promise; palloc'd arrays of that many elements.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast();
        let align = pg_sys::TYPALIGN_INT as std::ffi::c_char;
        pg_sys::deconstruct_array(
            array,
            pg_sys::TEXTOID,
            -1,
            false,
            align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        let element = |n: usize| {
            if *nulls.add(n) {
                ereport!(
                    ERROR,
                    PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                    "names of tables must not be null"
                );
            }
            text::server(&text::datum_bytes(*values.add(n)))
        };
        (0..count as usize).map(element).collect()
    }
}

/// `fork_unmount(schema name)`: removes what fork_mount made.
///
/// Raises 22004 (null), and what [`unmount::unmount`] says.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_unmount_c(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: declared in the SQL below.
    unmount::unmount(&unsafe { required_name(call, 0, "the schema's name") });
    pg_sys::Datum::from(0usize)
}

extension_sql!(
    r#"
CREATE FUNCTION fork_mount(fork name, at text DEFAULT 'now', into_schema name DEFAULT NULL, tables text[] DEFAULT NULL)
    RETURNS name
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_mount_c';
COMMENT ON FUNCTION fork_mount(name, text, name, text[]) IS 'show a fork''s tables in a schema of this database, read-only';

CREATE FUNCTION fork_unmount(schema name) RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_unmount_c';
COMMENT ON FUNCTION fork_unmount(name) IS 'remove what fork_mount made';
"#,
    name = "fork_mounts"
);
