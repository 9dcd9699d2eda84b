//! `fork_diff_schema` and `fork_blocks`: version-1 functions that return rows.
#![allow(unsafe_code)] // C calls these

use crate::diff::{blocks, schema};
use crate::pg::text;
use crate::remote::{call, Failure};
use crate::sql::api::{name_datum, required_name, version_1};
use crate::sql::srf::{self, text_column};
use pgrx::pg_sys;
use pgrx::prelude::*;

version_1!(pg_finfo_fork_diff_schema_c);
version_1!(pg_finfo_fork_blocks_c);

/// The value, or the failure raised. Nothing of the caller's may be left to drop.
fn get<T>(result: Result<T, Failure>) -> T {
    match result {
        Ok(value) => value,
        Err(failure) => failure.raise(),
    }
}

/// The fork that the first argument names, if the caller may look into it.
unsafe fn fork(call: pg_sys::FunctionCallInfo) -> crate::shmem::registry::Slot {
    // SAFETY: the functions here have one argument, a name.
    call::fork_named(&unsafe { required_name(call, 0, "the fork's name") })
}

/// `fork_diff_schema(fork name)`: the objects whose definitions are not as they were at the fork's cut.
///
/// Raises 3D000 (no such database), 42809 (not a fork), 42501 (no CONNECT), 55000 (invalid, or accepts no
/// connections), 53400 (no background worker is free), 22004 (a null name), and what happens in the fork.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_diff_schema_c(
    call: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let changes = get(schema::changes(&fork(call)));
        let mut rows = srf::Rows::begin(call);
        for change in changes {
            rows.put(&[
                text_column(Some(&change.object)),
                text_column(Some(change.kind())),
                text_column(change.before.as_deref()),
                text_column(change.after.as_deref()),
            ]);
        }
        srf::done(call)
    }
}

/// `fork_blocks(fork name)`: the blocks of each relation, by where they are read from. Errors as above.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_blocks_c(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let found = get(blocks::blocks(&fork(call)));
        let mut rows = srf::Rows::begin(call);
        for found in found {
            let count = found.count;
            let [total, inherited, private, preimages] =
                [count.total, count.inherited, count.private, count.preimages]
                    .map(|blocks| i64::from(blocks).into_datum());
            rows.put(&[
                Some(name_datum(&text::shown(&found.schema))),
                Some(name_datum(&text::shown(&found.relation))),
                text_column(Some(found.fork)),
                total,
                inherited,
                private,
                preimages,
            ]);
        }
        srf::done(call)
    }
}

extension_sql!(
    r#"
CREATE FUNCTION fork_diff_schema(fork name)
    RETURNS TABLE (object text, change text, before text, after text)
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_diff_schema_c';
COMMENT ON FUNCTION fork_diff_schema(name) IS 'the objects whose definitions a fork changed';

CREATE FUNCTION fork_blocks(fork name)
    RETURNS TABLE (schema name, relation name, fork_number text, total bigint, inherited bigint, private bigint,
                   preimages bigint)
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_blocks_c';
COMMENT ON FUNCTION fork_blocks(name) IS 'how much of each relation a fork has inherited, and how much is its own';
"#,
    name = "diff_functions"
);
