//! Pages of pg_class as forks inherit them.

use crate::fork::files;
use pg_fork_core::pages::{heap, items};
use pg_fork_core::types::Page;
use pgrx::pg_sys::{self, FormData_pg_class};
use std::fs;
use std::io;
use std::mem::offset_of;

/// The file of pg_class at the cut, as the relation map that the layer has tells (relmapper.c, `RelMapFile`: a magic
/// number, how many there are, and then of each its OID and its file).
pub fn file(layer: u32) -> io::Result<u32> {
    let map = files::real_dir(layer, files::DEFAULT_TABLESPACE).join("pg_filenode.map");
    let map = fs::read(map)?;
    let (words, _) = map.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let count = words.get(1).copied().unwrap_or(0) as usize;
    let (pairs, _) = words.get(2..).unwrap_or_default().as_chunks::<2>();
    let class = pg_sys::RelationRelationId.to_u32();
    let found = pairs.iter().take(count).find(|[oid, _]| *oid == class);
    Ok(found.map_or(0, |[_, file]| *file))
}

/// Makes tables not older than that. Tells whether any byte changed.
pub fn make_young(page: &mut Page, xid: u32, multi: u32) -> bool {
    let mut changed = false;
    for number in 1..=items(page).unwrap_or(0) {
        let Ok(Some(tuple)) = heap::tuple(page, number) else {
            continue;
        };
        let form = tuple.at + tuple.hoff;
        let end = form + size_of::<FormData_pg_class>();
        if end > page.len() || page[form + offset_of!(FormData_pg_class, relisshared)] != 0 {
            continue;
        }
        for (at, since) in [
            (offset_of!(FormData_pg_class, relfrozenxid), xid),
            (offset_of!(FormData_pg_class, relminmxid), multi),
        ] {
            let Some(word) = page[form + at..].first_chunk_mut::<4>() else {
                continue;
            };
            let now = u32::from_le_bytes(*word);
            // Zero: it has no rows.
            if now != 0 && (now.wrapping_sub(since) as i32) < 0 {
                *word = since.to_le_bytes();
                changed = true;
            }
        }
    }
    changed
}
