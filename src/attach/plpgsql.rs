//! PL/pgSQL keeps each function that it has compiled, and takes it for valid while the function's
//! `pg_proc` row is the same one. The types that it was compiled with may differ in a fork. So the
//! session's compiled functions are marked as out of date at each switch.
//!
//! Its table is a static of `plpgsql.so`, found here by the memory context that is named after it.
#![allow(unsafe_code)] // the insides of dynahash.c and of PL/pgSQL

use crate::attach::refuse;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{c_char, c_void, CStr};

/// `HTAB` of dynahash.c up to `keysize` (PostgreSQL 15).
#[repr(C)]
struct Table {
    header: *mut c_void,
    directory: *mut c_void,
    hash: *mut c_void,
    matches: *mut c_void,
    copy: *mut c_void,
    alloc: *mut c_void,
    context: pg_sys::MemoryContext,
    name: *mut c_char,
    is_shared: bool,
    is_fixed: bool,
    frozen: bool,
    key_size: usize,
    segment_size: i64,
    segment_shift: i32,
}

/// `PLpgSQL_function` up to what tells whether it is valid (plpgsql.h, PostgreSQL 15).
#[repr(C)]
struct Function {
    signature: *mut c_char,
    oid: pg_sys::Oid,
    xmin: pg_sys::TransactionId,
}

const NAME: &CStr = c"PLpgSQL function hash";
/// `sizeof(PLpgSQL_func_hashkey)`: four words of four bytes, and 100 types of arguments.
const KEY: usize = 16 + 4 * 100;

enum Found {
    /// PL/pgSQL is not loaded.
    Nothing,
    Table(*mut Table),
    /// Something that does not look as it should.
    Unknown,
}

fn find() -> Found {
    // SAFETY: memory contexts are linked as children of TopMemoryContext; `hash_create` allocates the
    // table's name right behind the table, in the context that it names after it. Each is checked.
    unsafe {
        let mut context = (*pg_sys::TopMemoryContext).firstchild;
        while !context.is_null() {
            let ident = (*context).ident;
            if !ident.is_null() && CStr::from_ptr(ident) == NAME {
                let table = ident
                    .byte_sub(size_of::<Table>())
                    .cast_mut()
                    .cast::<Table>();
                let known = (*table).context == context
                    && (*table).name.cast_const() == ident
                    && (*table).key_size == KEY
                    && !(*table).is_shared;
                return if known {
                    Found::Table(table)
                } else {
                    Found::Unknown
                };
            }
            context = (*context).nextchild;
        }
    }
    Found::Nothing
}

/// Raises 0A000 if there is such a table, but not as it is known here.
pub fn check() {
    if matches!(find(), Found::Unknown) {
        refuse(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot leave the database: the functions that PL/pgSQL has compiled are not where they should be",
            "Connect to the fork by its name.",
        );
    }
}

/// Marks all compiled functions as out of date: PL/pgSQL frees and compiles each anew when it is called.
pub fn forget() {
    let Found::Table(table) = find() else { return };
    // SAFETY: a hash table of this process; an entry is the key, then a pointer to the function.
    unsafe {
        let mut scan = pg_sys::HASH_SEQ_STATUS::default();
        pg_sys::hash_seq_init(&mut scan, table.cast());
        loop {
            let entry = pg_sys::hash_seq_search(&mut scan);
            if entry.is_null() {
                return;
            }
            let at = entry.byte_add(KEY.next_multiple_of(8));
            let function = *at.cast::<*mut Function>();
            if !function.is_null() {
                (*function).xmin = pg_sys::TransactionId::from(0);
            }
        }
    }
}
