//! Tuples on a heap page.

use super::{item, u16_at, u32_at, Damaged, Item};
use crate::types::Page;

/// `SizeofHeapTupleHeader` (htup_details.h).
const HEADER: usize = 23;
const HEAP_HOT_UPDATED: u16 = 0x4000;
const HEAP_ONLY_TUPLE: u16 = 0x8000;
const HEAP_XMAX_INVALID: u16 = 0x0800;
const HEAP_XMIN_COMMITTED: u16 = 0x0100;
const HEAP_XMIN_INVALID: u16 = 0x0200;

/// Where a tuple lies on its page, and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub number: u16,
    pub at: usize,
    pub len: usize,
    pub xmin: u32,
    pub xmax: u32,
    pub infomask: u16,
    pub infomask2: u16,
    /// Where the data begins.
    pub hoff: usize,
    /// Block and line pointer of the next version.
    pub next: (u32, u16),
}

/// The tuple behind a line pointer; `None` if it has none of its own.
#[inline]
pub fn tuple(page: &Page, number: u16) -> Result<Option<Tuple>, Damaged> {
    let Item::Normal { at, len } = item(page, number)? else {
        return Ok(None);
    };
    if len < HEADER + 1 {
        return Err(Damaged("a tuple is shorter than its header"));
    }
    let hoff = usize::from(page[at + 22]);
    if hoff < HEADER || hoff > len {
        return Err(Damaged("a tuple's data begins outside of it"));
    }
    let infomask2 = u16_at(page, at + 18);
    let infomask = u16_at(page, at + 20);
    // HEAP_HASNULL: a bit for each attribute, HEAP_NATTS_MASK of them.
    if infomask & 1 != 0 && HEADER + usize::from(infomask2 & 0x07FF).div_ceil(8) > hoff {
        return Err(Damaged("a tuple's null bitmap is longer than its header"));
    }
    Ok(Some(Tuple {
        number,
        at,
        len,
        xmin: u32_at(page, at),
        xmax: u32_at(page, at + 4),
        infomask,
        infomask2,
        hoff,
        next: (
            u32::from(u16_at(page, at + 12)) << 16 | u32::from(u16_at(page, at + 14)),
            u16_at(page, at + 16),
        ),
    }))
}

/// A tuple's place: what a scan keeps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub number: u16,
    pub at: u16,
    pub len: u16,
}

/// The places of all tuples: where none needs to be looked at, their headers are not.
pub fn all_places(page: &Page, found: &mut Vec<Place>) -> Result<(), Damaged> {
    found.clear();
    for number in 1..=super::items(page)? {
        if let Item::Normal { at, len } = item(page, number)? {
            if len < HEADER + 1 {
                return Err(Damaged("a tuple is shorter than its header"));
            }
            found.push(Place {
                number,
                at: at as u16,
                len: len as u16,
            });
        }
    }
    Ok(())
}

impl Place {
    fn of(tuple: &Tuple) -> Place {
        Place {
            number: tuple.number,
            at: tuple.at as u16,
            len: tuple.len as u16,
        }
    }
}

/// The places of the tuples that `sees` accepts, in the order of their line pointers.
pub fn places(
    page: &Page,
    mut sees: impl FnMut(&Tuple) -> bool,
    found: &mut Vec<Place>,
) -> Result<(), Damaged> {
    found.clear();
    for number in 1..=super::items(page)? {
        if let Some(tuple) = tuple(page, number)? {
            if sees(&tuple) {
                found.push(Place::of(&tuple));
            }
        }
    }
    Ok(())
}

impl Tuple {
    /// Attributes that the tuple has (`HeapTupleHeaderGetNatts`).
    pub fn natts(&self) -> u16 {
        self.infomask2 & 0x07FF
    }

    /// What comes after the header.
    pub fn data<'a>(&self, page: &'a Page) -> &'a [u8] {
        &page[self.at + self.hoff..self.at + self.len]
    }

    fn hot_updated(&self) -> bool {
        self.infomask2 & HEAP_HOT_UPDATED != 0
            && self.infomask & HEAP_XMAX_INVALID == 0
            && self.infomask & (HEAP_XMIN_COMMITTED | HEAP_XMIN_INVALID) != HEAP_XMIN_INVALID
    }
}

/// The version that `sees` accepts, of the row whose index entry points to `number` of `block`
/// (heapam.c, `heap_hot_search_buffer`).
pub fn chain<E: From<Damaged>>(
    page: &Page,
    block: u32,
    number: u16,
    mut sees: impl FnMut(&Tuple) -> Result<bool, E>,
) -> Result<Option<Tuple>, E> {
    let mut number = number;
    let mut previous = None;
    // No chain is longer than the page has line pointers.
    for step in 0..=super::items(page)? {
        if number == 0 || number > super::items(page)? {
            return Ok(None);
        }
        if let (0, Item::Redirect(to)) = (step, item(page, number)?) {
            number = to;
            continue;
        }
        let Some(found) = tuple(page, number)? else {
            return Ok(None);
        };
        let heap_only = found.infomask2 & HEAP_ONLY_TUPLE != 0;
        match previous {
            // The version before was undone, and its place given to another row.
            Some(xmax) if xmax != found.xmin => return Ok(None),
            None if step == 0 && heap_only => return Ok(None),
            _ => {}
        }
        if sees(&found)? {
            return Ok(Some(found));
        }
        if !found.hot_updated() || found.next.0 != block {
            return Ok(None);
        }
        // An updater that is a multixact's member has no plain number here: the next version's xmin
        // cannot be checked, only that it is heap-only.
        const HEAP_XMAX_IS_MULTI: u16 = 0x1000;
        previous = (found.infomask & HEAP_XMAX_IS_MULTI == 0).then_some(found.xmax);
        number = found.next.1;
    }
    Ok(None)
}
