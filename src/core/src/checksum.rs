//! A page's checksum, as checksum_impl.h computes it.
//!
//! Ours because the server's own is built for processors without the vector multiplication that it is
//! made for, and a page whose hint bits are set on the way needs two more of them: inlined into a function
//! that is compiled for newer processors it takes a third of the time.

use crate::types::{Block, Page, PAGE_SIZE};

/// `N_SUMS`: checksums of parts, computed side by side.
const SUMS: usize = 32;
/// `FNV_PRIME`.
const PRIME: u32 = 16_777_619;
/// `checksumBaseOffsets`.
const BASES: [u32; SUMS] = [
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
];
/// `pd_checksum`, which is taken for zero.
const PD_CHECKSUM: usize = 8;

/// A part of the page that each sum takes one word of.
type Row = [u8; SUMS * 4];

/// `pg_checksum_page`.
#[inline(always)]
pub fn of(page: &Page, block: Block) -> u16 {
    const { assert!(PAGE_SIZE.is_multiple_of(size_of::<Row>())) };
    let mut sums = BASES;
    let (rows, _) = page.as_chunks();
    // The first by itself: a look at each row, whether it is, makes all four times as slow.
    let mut first: Row = rows[0];
    first[PD_CHECKSUM..PD_CHECKSUM + 2].fill(0);
    mix(&mut sums, &first);
    for row in &rows[1..] {
        mix(&mut sums, row);
    }
    for _ in 0..2 {
        mix(&mut sums, &[0; SUMS * 4]);
    }
    let all = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    // Never zero, which stands for "none".
    (all % 65535 + 1) as u16
}

/// `CHECKSUM_COMP` on each.
#[inline(always)]
fn mix(sums: &mut [u32; SUMS], row: &Row) {
    let mut words = [0; SUMS];
    for (word, bytes) in words.iter_mut().zip(row.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

/// What the page says of itself.
pub fn stored(page: &Page) -> u16 {
    u16::from_le_bytes([page[PD_CHECKSUM], page[PD_CHECKSUM + 1]])
}

pub fn store(page: &mut Page, checksum: u16) {
    page[PD_CHECKSUM..PD_CHECKSUM + 2].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What pageinspect's `page_checksum` says.
    #[test]
    fn it_is_the_servers() {
        let mut page = [0xFF; PAGE_SIZE];
        assert_eq!(of(&page, 1), 3613);
        for (n, byte) in page.iter_mut().enumerate() {
            *byte = (n * 7919 + n / 13) as u8;
        }
        assert_eq!(of(&page, 123_456), 25_416);
    }

    #[test]
    fn what_is_stored_does_not_count() {
        let mut page = [7; PAGE_SIZE];
        let checksum = of(&page, 9);
        store(&mut page, checksum);
        assert_eq!((stored(&page), of(&page, 9)), (checksum, checksum));
        page[5000] ^= 1;
        assert_ne!(of(&page, 9), checksum);
    }
}
