//! PostgreSQL's own functions behind hooks, without pgrx's guard.
//!
//! Also what runs in a worker that ends with its first error.
//!
//! The guard catches an error, and raises it anew from what it knows of it: the error's position and
//! context are lost. So a hook that passes a call on does it by a raw call, from a function whose frame
//! has nothing to drop: an error jumps over it, as over a C function's.

use pgrx::pg_sys;
use std::ffi::c_char;

extern "C-unwind" {
    pub fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        query: *const c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        dest: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
    pub fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: i32);
    pub fn ThrowErrorData(error: *mut pg_sys::ErrorData);
    pub fn SPI_cursor_open_with_args(
        name: *const c_char,
        query: *const c_char,
        count: i32,
        types: *mut pg_sys::Oid,
        values: *mut pg_sys::Datum,
        nulls: *const c_char,
        read_only: bool,
        options: i32,
    ) -> pg_sys::Portal;
    pub fn SPI_cursor_fetch(portal: pg_sys::Portal, forward: bool, count: std::ffi::c_long);
}

/// Tells the client of something that is no error, in the database's encoding.
pub fn notice(code: pgrx::PgSqlErrorCode, message: &str) {
    let message = crate::pg::text::to_server(message);
    // SAFETY: zeroed error data is whole but for these; C strings that outlive the call, which copies them.
    unsafe {
        let mut error = pg_sys::ErrorData {
            elevel: pg_sys::NOTICE as i32,
            sqlerrcode: code as i32,
            message: message.as_ptr().cast_mut(),
            assoc_context: pg_sys::CurrentMemoryContext,
            ..Default::default()
        };
        pg_sys::ffi::pg_guard_ffi_boundary(|| ThrowErrorData(&mut error));
    }
}
