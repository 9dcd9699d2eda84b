//! `fork_mount` and `fork_unmount`.
#![allow(unsafe_code)] // C calls these

use super::api::{name_argument, name_datum, required_name, version_1};
use crate::mount::create;
use pgrx::pg_sys;
use pgrx::prelude::*;

version_1!(pg_finfo_fork_mount_c);

/// `fork_mount(fork name, at text DEFAULT 'now', into_schema name DEFAULT NULL, tables text[] DEFAULT
/// NULL) RETURNS name`: shows a fork's tables, or a source's, in a schema of this database, read-only.
///
/// `at`: `'now'`, or `'cut'` for the fork as it was made. `into_schema`: null for the fork's name, with
/// `_cut` behind it for its cut. `tables`: null for all that the caller may read there. Returns the schema's
/// name. Raises what [`create::mount`] says.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_mount_c(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let arguments = (*call).args.as_slice(4);
        let fork = required_name(call, 0, "the fork's name");
        let at = <String as FromDatum>::from_datum(arguments[1].value, arguments[1].isnull);
        let schema = name_argument(call, 2);
        let tables =
            <Vec<Option<String>> as FromDatum>::from_datum(arguments[3].value, arguments[3].isnull);
        let tables = tables.map(|names| names.into_iter().flatten().collect());
        let at = at.unwrap_or("now".into());
        name_datum(&create::mount(&fork, &at, schema.as_deref(), tables))
    }
}

/// `fork_unmount(schema name)`: removes what fork_mount made.
///
/// Raises 3F000 (no such schema), 42809 (not made by fork_mount), 2BP01 never: what depends on the tables
/// goes with them.
#[pg_extern(volatile, parallel_unsafe)]
fn fork_unmount_named(schema: &str) {
    create::unmount(schema);
}

extension_sql!(
    r#"
CREATE FUNCTION fork_mount(fork name, at text DEFAULT 'now', into_schema name DEFAULT NULL, tables text[] DEFAULT NULL)
    RETURNS name
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_mount_c';
COMMENT ON FUNCTION fork_mount(name, text, name, text[]) IS 'show a fork''s tables in a schema of this database, read-only';

CREATE FUNCTION fork_unmount(schema name) RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE sql
    AS 'SELECT @extschema@.fork_unmount_named(schema::pg_catalog.text)';
COMMENT ON FUNCTION fork_unmount(name) IS 'remove what fork_mount made';
"#,
    name = "fork_mounts",
    requires = [fork_unmount_named]
);
