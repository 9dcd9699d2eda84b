//! What a worker can be asked for. A new job is a variant here and its function.
#![allow(unsafe_code)] // calls into SPI

use crate::pg::raw;
use crate::remote::worker::{Failed, Out};
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// A job by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Job {
    /// The rows of the query that the arguments are, each column as text.
    Sql,
}

impl Job {
    pub fn from_number(number: u8) -> Option<Self> {
        (number == Job::Sql as u8).then_some(Job::Sql)
    }

    /// Does the job in the worker, in a transaction with an active snapshot. Errors may be raised.
    pub fn run(self, arguments: &[u8], out: &mut Out) -> Result<(), Failed> {
        match self {
            Job::Sql => sql(arguments, out),
        }
    }
}

const BATCH: std::ffi::c_long = 1000;

fn sql(query: &[u8], out: &mut Out) -> Result<(), Failed> {
    let Ok(query) = CString::new(query) else {
        return Err(Failed::Protocol);
    };
    // SAFETY: SPI as its documentation has it; an error ends the process, and with it all of this.
    unsafe {
        pg_sys::SPI_connect();
        let portal = raw::SPI_cursor_open_with_args(
            std::ptr::null(),
            query.as_ptr(),
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null(),
            true,
            pg_sys::CURSOR_OPT_NO_SCROLL as i32,
        );
        loop {
            raw::SPI_cursor_fetch(portal, true, BATCH);
            let rows = pg_sys::SPI_processed as usize;
            if rows == 0 {
                break;
            }
            let table = pg_sys::SPI_tuptable;
            for n in 0..rows {
                send_row(*(*table).vals.add(n), (*table).tupdesc, out)?;
            }
            pg_sys::SPI_freetuptable(table);
        }
        pg_sys::SPI_cursor_close(portal);
        pg_sys::SPI_finish();
    }
    Ok(())
}

unsafe fn send_row(
    row: pg_sys::HeapTuple,
    shape: pg_sys::TupleDesc,
    out: &mut Out,
) -> Result<(), Failed> {
    // SAFETY: a row that SPI has just fetched; its texts are palloc'd C strings, freed here.
    unsafe {
        let texts: Vec<_> = (1..=(*shape).natts)
            .map(|column| pg_sys::SPI_getvalue(row, shape, column))
            .collect();
        let columns: Vec<Option<&CStr>> = texts
            .iter()
            .map(|text| (!text.is_null()).then(|| CStr::from_ptr(*text)))
            .collect();
        out.row(&columns)?;
        for text in texts.into_iter().filter(|text| !text.is_null()) {
            pg_sys::pfree(text.cast());
        }
    }
    Ok(())
}
