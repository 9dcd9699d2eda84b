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
    // SAFETY: a new varlena of that size, filled below to the last byte.
    unsafe {
        let result = pg_sys::palloc(size + 4).cast::<u8>();
        let header = ((size + 4) as u32) << 2 | if compressed { 2 } else { 0 };
        result.cast::<u32>().write(header);
        let mut filled = 0;
        for chunk in chunks(toast, relation, pointer.value) {
            if filled + chunk.len() > size {
                missing("unexpected chunk");
            }
            std::ptr::copy_nonoverlapping(chunk.as_ptr(), result.add(4 + filled), chunk.len());
            filled += chunk.len();
        }
        if filled != size {
            missing("missing chunk");
        }
        if !compressed {
            return result.cast();
        }
        let plain = pg_sys::detoast_attr(result.cast());
        pg_sys::pfree(result.cast());
        plain
    }
}

/// The value's chunks in their order (chunk_id, chunk_seq, chunk_data).
fn chunks(toast: &Toast, relation: &Relation, value: u32) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    super::relation::rows_by_number(
        relation.db,
        &toast.pages,
        &toast.index,
        value,
        |tuple, _| visible::kept(tuple),
        |page, tuple| {
            let row = tuple.data(page);
            let number = |at: usize| {
                row.get(at..at + 4)
                    .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            };
            let (Some(id), Some(sequence)) = (number(0), number(4)) else {
                return;
            };
            let data = match row.get(8) {
                // A short varlena, or one with a header of four bytes.
                Some(first) if first & 1 == 1 => row.get(9..8 + usize::from(first >> 1)),
                Some(_) => number(8).and_then(|header| row.get(12..8 + (header >> 2) as usize)),
                None => None,
            };
            if let (true, Some(data)) = (id == value, data) {
                found.push((sequence, data.to_vec()));
            }
        },
    );
    found.sort_by_key(|(sequence, _)| *sequence);
    found.dedup_by_key(|(sequence, _)| *sequence);
    found.into_iter().map(|(_, data)| data).collect()
}
