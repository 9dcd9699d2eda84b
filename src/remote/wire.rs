//! What goes through the queues: requests to the worker, rows back. Both ends are the same library in the
//! same server, so there are no versions, and a message that cannot be read is a bug.

use crate::remote::jobs::Job;

/// Which state of a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// As it is: the fork itself.
    Now,
    /// As it was at its cut: the fork's base.
    Cut,
}

/// What the worker is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub side: Side,
    pub job: Job,
    pub arguments: Vec<u8>,
}

/// A row, or a job's arguments: text columns, some of them null.
pub type Columns = Vec<Option<String>>;

/// The message that a row is in; all others are the protocol's own (errors, notices).
pub const ROW: u8 = b'D';
/// The job is done.
pub const DONE: u8 = b'C';

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend((part.len() as u32).to_le_bytes());
    bytes.extend(part);
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *bytes = rest;
    Some(part)
}

impl Request {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.side == Side::Cut), self.job as u8];
        put(&mut bytes, &self.arguments);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let ([side, job], mut rest) = bytes.split_first_chunk::<2>()?;
        Some(Request {
            side: if *side == 0 { Side::Now } else { Side::Cut },
            job: Job::from_number(*job)?,
            arguments: take(&mut rest)?.to_vec(),
        })
    }
}

/// A row as bytes, after those that `bytes` holds.
pub fn encode_row(bytes: &mut Vec<u8>, columns: &[Option<&str>]) {
    for column in columns {
        bytes.push(u8::from(column.is_some()));
        if let Some(text) = column {
            put(bytes, text.as_bytes());
        }
    }
}

pub fn decode_row(mut bytes: &[u8]) -> Option<Columns> {
    let mut columns = Vec::new();
    while let Some((there, rest)) = bytes.split_first() {
        bytes = rest;
        columns.push(match there {
            0 => None,
            _ => Some(String::from_utf8_lossy(take(&mut bytes)?).into_owned()),
        });
    }
    Some(columns)
}
