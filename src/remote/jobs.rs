//! What a worker can be asked for. A new job is a variant here and its function.

use crate::remote::query;
use crate::remote::worker::{Failed, Out};
use std::ffi::CString;

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

fn sql(query: &[u8], out: &mut Out) -> Result<(), Failed> {
    let Ok(query) = CString::new(query) else {
        return Err(Failed::Protocol);
    };
    query::rows(&query, true, |row| {
        let columns: Vec<_> = row.iter().map(Option::as_deref).collect();
        out.row(&columns)
    })
}
