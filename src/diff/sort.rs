//! Brings the rows of both sides together: sorted by what tells them apart, on disk where they are many.
#![allow(unsafe_code)] // tuplesort.c

use super::side::Row;
use crate::pg::text;
use crate::reader::At;
use pg_fork_core::matching::{Change, Group};
use pgrx::pg_sys::{self, Datum};

/// `bytea < bytea` (pg_operator.dat).
const BYTEA_LESS: u32 = 1957;
/// Key, image, side.
const HEAD: usize = 16 + 16 + 1;

/// Rows that wait to be matched. What is not sorted to the end is freed with its memory context.
pub struct Sort {
    state: *mut pg_sys::Tuplesortstate,
}

/// Rows, and how often each is there.
type Counted = Vec<(Shown, u64)>;

/// A row of one side as it is shown: key and row.
pub type Shown = (String, String);

impl Sort {
    pub fn new() -> Self {
        // SAFETY: bytea sorts by its bytes.
        let state = unsafe {
            pg_sys::tuplesort_begin_datum(
                pg_sys::BYTEAOID,
                BYTEA_LESS.into(),
                pg_sys::InvalidOid,
                false,
                pg_sys::work_mem,
                std::ptr::null_mut(),
                0, // TUPLESORT_NONE
            )
        };
        Sort { state }
    }

    pub fn put(&mut self, at: At, row: &Row) {
        let (key, data) = &row.shown;
        let mut bytes = Vec::with_capacity(HEAD + 8 + key.len() + data.len());
        bytes.extend(row.key);
        bytes.extend(row.image);
        bytes.push(u8::from(at == At::Cut));
        bytes.extend((key.len() as u64).to_le_bytes());
        bytes.extend(key.bytes());
        bytes.extend(data.bytes());
        // SAFETY: a palloc'd value, which is copied.
        unsafe {
            let value = text::bytes_datum(&bytes);
            pg_sys::tuplesort_putdatum(self.state, value, false);
            pg_sys::pfree(value.cast_mut_ptr());
        }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let (mut value, mut null) = (Datum::from(0usize), false);
        // SAFETY: a sort that was performed; the value is palloc'd.
        unsafe {
            let none = std::ptr::null_mut();
            if !pg_sys::tuplesort_getdatum(self.state, true, &mut value, &mut null, none) {
                return None;
            }
            let bytes = super::values::bytes_of(value).to_vec();
            pg_sys::pfree(value.cast_mut_ptr());
            Some(bytes)
        }
    }

    /// Calls `each` with what became of the rows.
    pub fn finish(mut self, mut each: impl FnMut(Change<Shown>, u64)) {
        // SAFETY: begun by us, and ended below.
        unsafe { pg_sys::tuplesort_performsort(self.state) };
        let mut group: Option<([u8; 16], Group<Shown>)> = None;
        let mut images: Option<([u8; 16], [Counted; 2])> = None;
        loop {
            pgrx::check_for_interrupts!();
            let row = self.next();
            let head = row.as_deref().and_then(parse);
            let same_image = match (&head, &images, &group) {
                (Some(head), Some((image, _)), Some((key, _))) => {
                    (&head.key, &head.image) == (key, image)
                }
                _ => false,
            };
            if !same_image {
                if let (Some((_, [now, cut])), Some((_, group))) = (images.take(), &mut group) {
                    group.add(now, cut);
                }
            }
            let same_key =
                matches!((&head, &group), (Some(head), Some((key, _))) if head.key == *key);
            if !same_key {
                if let Some((_, group)) = group.take() {
                    for (change, count) in group.changes() {
                        each(change, count);
                    }
                }
            }
            let Some(head) = head else { break };
            group.get_or_insert_with(|| (head.key, Group::new()));
            let (_, sides) = images.get_or_insert_with(|| (head.image, Default::default()));
            let side = &mut sides[usize::from(head.at == At::Cut)];
            // The same rows come one after the other.
            match side.last_mut() {
                Some((last, count)) if *last == head.shown => *count += 1,
                _ => side.push((head.shown, 1)),
            }
        }
        // SAFETY: begun by us.
        unsafe { pg_sys::tuplesort_end(self.state) };
    }
}

struct Parsed {
    key: [u8; 16],
    image: [u8; 16],
    at: At,
    shown: Shown,
}

fn parse(bytes: &[u8]) -> Option<Parsed> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (len, rest) = rest.split_first_chunk::<8>()?;
    let (key, data) = rest.split_at_checked(u64::from_le_bytes(*len) as usize)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(Parsed {
        key: head[..16].try_into().ok()?,
        image: head[16..32].try_into().ok()?,
        at: if head[32] == 0 { At::Now } else { At::Cut },
        shown: (text(key), text(data)),
    })
}
