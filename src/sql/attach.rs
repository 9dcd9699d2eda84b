//! `fork_attach`, `fork_detach` and `fork_current`: version-1 functions, as their types are `name`.
#![allow(unsafe_code)] // C calls these

use crate::attach::request::{self, Where};
use crate::sql::api::{name_datum, required_name, version_1};
use pgrx::pg_sys;
use pgrx::prelude::*;

version_1!(pg_finfo_fork_attach_c);
version_1!(pg_finfo_fork_detach_c);
version_1!(pg_finfo_fork_current_c);

/// `fork_attach(fork name) RETURNS name`: moves the session into a fork, or back to the database that
/// it logged in to. Returns the name of the database that it was in.
///
/// It moves once the transaction has committed, so the call must be a statement of its own: 25001 in
/// a transaction block, a pipeline, a function or a larger statement. Raises 3D000 (no such database),
/// 0A000 (not a fork; another encoding or locale; a replication connection; a library that keeps state
/// of the database), 42501 (no CONNECT, or another role's rights), 53300 (the database's limit of
/// connections), 55000 (it accepts none, or is invalid), 24000 (open cursors), 55006 (temporary
/// objects, LISTEN, advisory locks, replication slots).
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_attach_c(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let name = required_name(call, 0, "the fork's name");
        let (from, _) = request::ask(call, Where::Named(&name), "fork_attach");
        name_datum(&from)
    }
}

/// `fork_detach() RETURNS name`: moves the session back to the database that it logged in to, and
/// returns its name. Errors as for `fork_attach`.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_detach_c(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let (_, to) = request::ask(call, Where::Home, "fork_detach");
        name_datum(&to)
    }
}

/// `fork_current() RETURNS name`: the fork that the session is in; null in no fork.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_current_c(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call data; the result may be null.
    unsafe {
        match request::current_fork() {
            Some(name) => name_datum(&name),
            None => {
                (*call).isnull = true;
                pg_sys::Datum::from(0)
            }
        }
    }
}

extension_sql!(
    r#"
CREATE FUNCTION fork_attach(fork name) RETURNS name
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_attach_c';
REVOKE ALL ON FUNCTION fork_attach(name) FROM PUBLIC;
COMMENT ON FUNCTION fork_attach(name) IS 'move this session into a fork';

CREATE FUNCTION fork_detach() RETURNS name
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_detach_c';
COMMENT ON FUNCTION fork_detach() IS 'move this session back to the database that it logged in to';

CREATE FUNCTION fork_current() RETURNS name
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_current_c';
COMMENT ON FUNCTION fork_current() IS 'the fork that this session is in';
"#,
    name = "attach_functions"
);
