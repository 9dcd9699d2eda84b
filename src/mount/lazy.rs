//! A TOAST value that is fetched only when it is looked at: an "expanded object" (expandeddatum.c), read-only.
//!
//! The slot takes apart all columns up to the last that a query asks for; those before it may be large, and
//! not be asked for at all.
#![allow(unsafe_code)] // an object of the server's, and functions that C calls

use crate::reader::relation::Relation;
use crate::reader::toast::{self, Pointer};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::c_void;

/// Begins as every expanded object does.
#[repr(C)]
struct Lazy {
    header: pg_sys::ExpandedObjectHeader,
    pointer: Pointer,
    relation: *const Relation,
}

static METHODS: pg_sys::ExpandedObjectMethods = pg_sys::ExpandedObjectMethods {
    get_flat_size: Some(flat_size),
    flatten_into: Some(flatten_into),
};

/// Types whose functions take any expanded object for a value to be made flat; those of arrays and records
/// take it for one of theirs.
pub fn suits(kind: pg_sys::Oid) -> bool {
    // bytea, text, json, xml, bpchar, varchar, numeric, tsvector, jsonb
    matches!(
        kind.to_u32(),
        17 | 25 | 114 | 142 | 1042 | 1043 | 1700 | 3614 | 3802
    )
}

/// The value, in that memory context.
///
/// # Safety
/// The relation outlives the context's next reset.
pub unsafe fn value(
    relation: *const Relation,
    pointer: Pointer,
    context: pg_sys::MemoryContext,
) -> pg_sys::Datum {
    // SAFETY: a new object of that size.
    unsafe {
        let size = std::mem::size_of::<Lazy>();
        let lazy = pg_sys::MemoryContextAlloc(context, size).cast::<Lazy>();
        pg_sys::EOH_init_header(lazy.cast(), &raw const METHODS, context);
        (&raw mut (*lazy).pointer).write(pointer);
        (&raw mut (*lazy).relation).write(relation);
        // EOHPGetRODatum
        pg_sys::Datum::from((&raw mut (*lazy).header.eoh_ro_ptr).cast::<c_void>())
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn flat_size(object: *mut pg_sys::ExpandedObjectHeader) -> pg_sys::Size {
    // SAFETY: made by `value`.
    unsafe { (*object.cast::<Lazy>()).pointer.raw as pg_sys::Size }
}

#[pg_guard]
unsafe extern "C-unwind" fn flatten_into(
    object: *mut pg_sys::ExpandedObjectHeader,
    result: *mut c_void,
    allocated: pg_sys::Size,
) {
    // SAFETY: made by `value`; room for as many bytes as `flat_size` said.
    unsafe {
        let lazy = &*object.cast::<Lazy>();
        let value = toast::fetch(&*lazy.relation, &lazy.pointer);
        let size = (value.cast::<u32>().read() >> 2) as usize;
        if size != allocated {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                format!(
                    "toast value {} has {size} bytes, not {allocated}",
                    lazy.pointer.value
                )
            );
        }
        std::ptr::copy_nonoverlapping(value.cast::<u8>(), result.cast::<u8>(), size);
        pg_sys::pfree(value.cast());
    }
}
