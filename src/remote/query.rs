//! Queries on catalogs: in the worker, and, for the database that the session itself is in, here, where they
//! see what the transaction has done.
#![allow(unsafe_code)] // calls into SPI

use crate::pg::{raw, text};
use crate::remote::call::{Call, Failure};
use crate::remote::settings;
use crate::remote::wire::{Columns, Side};
use crate::shmem::registry::Slot;
use pgrx::pg_sys;
use std::convert::Infallible;
use std::ffi::{c_long, CStr};

const BATCH: c_long = 1000;

/// Runs the query, and calls `each` with its rows, until that fails. With `read_only` by the active
/// snapshot, else by a new one, which sees what the transaction has done so far.
pub fn rows<E>(
    query: &CStr,
    read_only: bool,
    mut each: impl FnMut(Columns) -> Result<(), E>,
) -> Result<(), E> {
    // SAFETY: SPI as its documentation has it; an error ends the worker, or the caller's transaction, and
    // with it all of this.
    unsafe {
        pg_sys::SPI_connect();
        let portal = open(query, read_only);
        loop {
            fetch(portal, read_only);
            let rows = pg_sys::SPI_processed as usize;
            if rows == 0 {
                break;
            }
            let table = pg_sys::SPI_tuptable;
            for n in 0..rows {
                each(columns(*(*table).vals.add(n), (*table).tupdesc))?;
            }
            pg_sys::SPI_freetuptable(table);
        }
        pg_sys::SPI_cursor_close(portal);
        pg_sys::SPI_finish();
    }
    Ok(())
}

/// The worker's errors keep their context, and jump over frames that it will not need any more; the
/// session's unwind them.
unsafe fn open(query: &CStr, read_only: bool) -> pg_sys::Portal {
    let (none, no_types, no_values) =
        (std::ptr::null(), std::ptr::null_mut(), std::ptr::null_mut());
    let options = pg_sys::CURSOR_OPT_NO_SCROLL as i32;
    let query = query.as_ptr();
    // SAFETY: a query without arguments.
    unsafe {
        match read_only {
            true => raw::SPI_cursor_open_with_args(
                none, query, 0, no_types, no_values, none, true, options,
            ),
            false => pg_sys::SPI_cursor_open_with_args(
                none, query, 0, no_types, no_values, none, false, options,
            ),
        }
    }
}

unsafe fn fetch(portal: pg_sys::Portal, read_only: bool) {
    // SAFETY: an open portal.
    unsafe {
        match read_only {
            true => raw::SPI_cursor_fetch(portal, true, BATCH),
            false => pg_sys::SPI_cursor_fetch(portal, true, BATCH),
        }
    }
}

/// The row's columns as text; freed here, as there may be many.
unsafe fn columns(row: pg_sys::HeapTuple, shape: pg_sys::TupleDesc) -> Columns {
    // SAFETY: a row that SPI has just fetched; its texts are palloc'd C strings.
    unsafe {
        let column = |n| {
            let value = pg_sys::SPI_getvalue(row, shape, n);
            (!value.is_null()).then(|| {
                let copy = text::server_string(value);
                pg_sys::pfree(value.cast());
                copy
            })
        };
        (1..=(*shape).natts).map(column).collect()
    }
}

/// A fork's two sides: the fork as it is, looked at from within where the session is in it, and its cut.
pub struct Sides {
    fork: Slot,
    call: Option<Call>,
}

impl Sides {
    pub fn of(fork: Slot) -> Self {
        Sides { fork, call: None }
    }

    fn is_here(&self) -> bool {
        // SAFETY: a plain variable.
        unsafe { pg_sys::MyDatabaseId }.to_u32() == self.fork.oid
    }

    /// Runs a query on one side, with the rights of the current user, and calls `each` with its rows.
    ///
    /// Raises 53400 if no background worker is free.
    pub fn query(
        &mut self,
        side: Side,
        query: &str,
        mut each: impl FnMut(Columns),
    ) -> Result<(), Failure> {
        if side == Side::Now && self.is_here() {
            let query = text::to_server(query);
            let rows = || {
                rows(&query, false, |row| -> Result<(), Infallible> {
                    each(row);
                    Ok(())
                })
            };
            let Ok(()) = settings::meanwhile(rows);
            return Ok(());
        }
        let call = self.call.get_or_insert_with(|| Call::begin(&self.fork));
        call.query(side, query, each)
    }

    /// Lets the worker go, if there is one.
    pub fn finish(self) {
        if let Some(call) = self.call {
            call.finish();
        }
    }
}
