//! What a worker says of an error, in the encoding of the database that asked.
#![allow(unsafe_code)] // error data

use crate::pg::text;
use pgrx::pg_sys;
use std::ffi::{c_char, CStr};

/// Converts all texts of the error from the encoding of the worker's database; what has no equal here is
/// written out.
///
/// # Safety
/// Error data of the server's, palloc'd, with C strings or null in its fields.
pub unsafe fn convert(error: &mut pg_sys::ErrorData, encoding: i32) {
    if encoding == text::server_encoding() {
        return;
    }
    for field in [
        &mut error.message,
        &mut error.detail,
        &mut error.hint,
        &mut error.context,
        &mut error.schema_name,
        &mut error.table_name,
        &mut error.column_name,
        &mut error.datatype_name,
        &mut error.constraint_name,
        &mut error.internalquery,
    ] {
        // SAFETY: by the caller's promise.
        unsafe { convert_text(field, encoding) };
    }
}

unsafe fn convert_text(field: &mut *mut c_char, encoding: i32) {
    // SAFETY: by the caller's promise; the new text is palloc'd.
    unsafe {
        if field.is_null() || CStr::from_ptr(*field).to_bytes().is_ascii() {
            return;
        }
        let said = text::from(CStr::from_ptr(*field).to_bytes(), encoding);
        *field = pg_sys::pstrdup(text::to_server(&text::shown(&said)).as_ptr());
    }
}
