//! Values that lie in another database's TOAST table (detoast.c, `toast_fetch_datum`).
#![allow(unsafe_code)] // builds varlenas

use super::relation::{Relation, Toast};
use super::visible;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// `varatt_external`, the pointer that lies in the row.
#[derive(Clone, Copy, Debug)]
pub struct Pointer {
    pub raw: u32,
    pub info: u32,
    pub value: u32,
    pub table: u32,
}

/// The pointer, if the value is one to a TOAST table.
///
/// # Safety
/// `value` is a whole varlena.
pub unsafe fn pointer(value: *const u8) -> Option<Pointer> {
    // SAFETY: varattrib_1b_e: a header byte of 1, a tag, and 16 bytes for VARTAG_ONDISK.
    unsafe {
        if *value != 1 || *value.add(1) != 18 {
            return None;
        }
        let word = |n: usize| value.add(2 + 4 * n).cast::<u32>().read_unaligned();
        Some(Pointer {
            raw: word(0),
            info: word(1),
            value: word(2),
            table: word(3),
        })
    }
}

/// The value, palloc'd and decompressed. Raises XX001 if its chunks are not all there.
pub fn fetch(relation: &Relation, pointer: &Pointer) -> *mut pg_sys::varlena {
    let missing = |what: &str| -> ! {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            format!(
                "{what} for toast value {} of relation {} in the database with OID {}",
                pointer.value, relation.oid, relation.db
            )
        );
    };
    let Some(toast) = relation
        .toast
        .as_ref()
        .filter(|toast| toast.oid == pointer.table)
    else {
        missing("missing TOAST table");
    };
    let size = (pointer.info & 0x3FFF_FFFF) as usize;
    // A compressed value keeps its method and raw size at the beginning of its data.
    let compressed = size + 4 < pointer.raw as usize;
    // SAFETY: a new varlena of that size, filled to the last byte or not returned; the bytes behind its
    // header belong to nobody else yet.
    unsafe {
        let result = pg_sys::palloc(size + 4).cast::<u8>();
        let header = ((size + 4) as u32) << 2 | if compressed { 2 } else { 0 };
        result.cast::<u32>().write(header);
        let data = std::slice::from_raw_parts_mut(result.add(4), size);
        data.fill(0);
        if let Err(what) = fill(data, toast, relation, pointer.value) {
            missing(what);
        }
        if !compressed {
            return result.cast();
        }
        let plain = pg_sys::detoast_attr(result.cast());
        pg_sys::pfree(result.cast());
        plain
    }
}

/// Bytes of each chunk but the last (heaptoast.h, `TOAST_MAX_CHUNK_SIZE`: four rows fill a page).
const CHUNK: usize = 1996;

/// Puts the value's chunks (chunk_id, chunk_seq, chunk_data) where they belong.
fn fill(
    data: &mut [u8],
    toast: &Toast,
    relation: &Relation,
    value: u32,
) -> Result<(), &'static str> {
    let mut had = vec![false; data.len().div_ceil(CHUNK)];
    let mut wrong = false;
    super::relation::rows_in_place(
        relation.db,
        &toast.pages,
        &toast.index,
        value,
        visible::kept,
        |page, tuple| {
            let row = tuple.data(page);
            let number = |at: usize| {
                row.get(at..at + 4)
                    .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            };
            let (Some(id), Some(sequence)) = (number(0), number(4)) else {
                return;
            };
            // The place may have been taken by another value meanwhile.
            if id != value {
                return;
            }
            let chunk = match row.get(8) {
                // A short varlena, or one with a header of four bytes.
                Some(first) if first & 1 == 1 => row.get(9..8 + usize::from(first >> 1)),
                Some(_) => number(8).and_then(|header| row.get(12..8 + (header >> 2) as usize)),
                None => None,
            };
            let sequence = sequence as usize;
            let from = sequence.saturating_mul(CHUNK).min(data.len());
            let to = (from + CHUNK).min(data.len());
            match (chunk, had.get_mut(sequence)) {
                (Some(chunk), Some(had)) if chunk.len() == to - from => {
                    data[from..to].copy_from_slice(chunk);
                    *had = true;
                }
                _ => wrong = true,
            }
        },
    );
    match (wrong, had.iter().all(|had| *had)) {
        (true, _) => Err("unexpected chunk"),
        (false, true) => Ok(()),
        (false, false) => Err("missing chunk"),
    }
}
