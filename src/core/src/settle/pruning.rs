//! Pruning, on inherited pages: whether it would be tried, and not while a fork is only read.

use super::page::*;

const PD_PRUNE_XID: usize = 20;

/// Whether a heap page says that pruning it may be worthwhile.
pub fn prunable(page: &[u8]) -> bool {
    is_heap_page(page) && get_u32(page, PD_PRUNE_XID) != 0
}

/// Takes that back: it is a hint (bufpage.h). Who only reads does not prune then, and the next update or
/// delete on the page says it again.
pub fn clear_prunable(page: &mut [u8]) -> bool {
    prunable(page) && put_u32(page, PD_PRUNE_XID, 0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{build, Tuple};
    use super::*;

    #[test]
    fn prunable_is_taken_back_from_heap_pages_only() {
        let mut page = build(&[Tuple::live()]);
        assert!(!prunable(&page) && !clear_prunable(&mut page));
        put_u32(&mut page, PD_PRUNE_XID, 77);
        let mut index = page.clone();
        put_u16(&mut index, PD_SPECIAL, 8176);
        assert!(prunable(&page) && clear_prunable(&mut page));
        assert_eq!(page, build(&[Tuple::live()]));
        assert!(!prunable(&index) && !clear_prunable(&mut index));
    }
}
