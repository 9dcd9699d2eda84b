//! Heap and btree pages, read as plain bytes: what a reader of another database's pages needs, with no
//! buffer pinned and nothing written.
//!
//! Any bytes will do: an offset that leads outside of the page is told as [`Damaged`], never followed.

pub mod btree;
#[cfg(test)]
mod btree_tests;
pub mod heap;

use crate::types::{Page, PAGE_SIZE};
use std::fmt;

/// A page that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// `SizeOfPageHeaderData` (bufpage.h).
const HEADER: usize = 24;

#[inline]
pub(crate) fn u16_at(page: &Page, at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

#[inline]
pub(crate) fn u32_at(page: &Page, at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

/// What a line pointer says (itemid.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Unused,
    /// On an index page its entry is there still.
    Dead {
        at: usize,
        len: usize,
    },
    /// To another line pointer of the page.
    Redirect(u16),
    Normal {
        at: usize,
        len: usize,
    },
}

/// The number of line pointers; 0 for a page that was never used.
#[inline]
pub fn items(page: &Page) -> Result<u16, Damaged> {
    let lower = usize::from(u16_at(page, 12));
    if u16_at(page, 14) == 0 {
        return Ok(0); // pd_upper: PageIsNew
    }
    if !(HEADER..=PAGE_SIZE).contains(&lower) {
        return Err(Damaged("pd_lower is outside of the page"));
    }
    Ok(((lower - HEADER) / 4) as u16)
}

/// The line pointer with this number, from 1 on.
#[inline]
pub fn item(page: &Page, number: u16) -> Result<Item, Damaged> {
    if number == 0 || number > items(page)? {
        return Err(Damaged("no such line pointer"));
    }
    let word = u32_at(page, HEADER + 4 * usize::from(number - 1));
    let (at, flags, len) = (
        word as usize & 0x7FFF,
        word >> 15 & 3,
        (word >> 17) as usize,
    );
    Ok(match flags {
        0 => Item::Unused,
        2 => Item::Redirect(at as u16),
        3 => Item::Dead { at, len },
        _ if at < HEADER || at + len > PAGE_SIZE => {
            return Err(Damaged("a line pointer leads outside of the page"))
        }
        _ => Item::Normal { at, len },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any bytes get an answer.
    #[test]
    fn hostile_pages_are_read_without_harm() {
        let mut seed = 7_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for round in 0..3000 {
            let mut page = [0; PAGE_SIZE];
            if round % 2 == 0 {
                page.iter_mut().for_each(|byte| *byte = random() as u8);
            }
            // Bounds that let the rest be looked at.
            page[12..14].copy_from_slice(&(24 + 4 * (random() % 60) as u16).to_le_bytes());
            page[14..16].copy_from_slice(&(random() as u16 | 1).to_le_bytes());
            page[16..18].copy_from_slice(&(8176_u16).to_le_bytes());
            for _ in 0..40 {
                page[24 + (random() % 300) as usize] = random() as u8;
            }
            for number in 0..=items(&page).unwrap_or(0) {
                let _ = item(&page, number);
                let _ = heap::tuple(&page, number);
                let _ = heap::chain(&page, 1, number, |_| Ok::<_, Damaged>(false));
            }
            let same = page;
            let mut reads = 0;
            let _ = btree::search(9, 20, |_, step| {
                reads += 1;
                step(&same);
                Ok::<_, Damaged>(())
            });
            assert!(reads < 200);
        }
    }
}
