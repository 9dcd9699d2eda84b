//! The bytes of a heap page: offsets and bits as in bufpage.h, itemid.h and
//! htup_details.h (PostgreSQL 15, page layout version 4), little-endian.

/// `BLCKSZ`.
pub const PAGE_SIZE: usize = 8192;

// PageHeaderData.
pub(super) const PD_FLAGS: usize = 10;
pub(super) const PD_LOWER: usize = 12;
pub(super) const PD_UPPER: usize = 14;
pub(super) const PD_SPECIAL: usize = 16;
pub(super) const PD_PAGESIZE_VERSION: usize = 18;
pub(super) const PAGE_HEADER: usize = 24;
const PD_VALID_FLAG_BITS: u16 = 0x0007;
const PAGESIZE_AND_VERSION: u16 = PAGE_SIZE as u16 | 4;

// ItemIdData: lp_off in bits 0 to 14, lp_flags in 15 and 16, lp_len in 17 to 31.
pub(super) const LINE_POINTER: usize = 4;
const LP_NORMAL: u32 = 1;

// HeapTupleHeaderData.
pub(super) const T_XMIN: usize = 0;
pub(super) const T_XMAX: usize = 4;
pub(super) const T_INFOMASK2: usize = 18;
pub(super) const T_INFOMASK: usize = 20;
const TUPLE_HEADER: usize = 23;
const _: () = assert!(T_INFOMASK + 2 <= TUPLE_HEADER);

// t_infomask.
pub(super) const HEAP_XMAX_KEYSHR_LOCK: u16 = 0x0010;
pub(super) const HEAP_XMAX_EXCL_LOCK: u16 = 0x0040;
pub(super) const HEAP_XMAX_LOCK_ONLY: u16 = 0x0080;
pub(super) const HEAP_XMIN_COMMITTED: u16 = 0x0100;
pub(super) const HEAP_XMIN_INVALID: u16 = 0x0200;
pub(super) const HEAP_XMIN_FROZEN: u16 = HEAP_XMIN_COMMITTED | HEAP_XMIN_INVALID;
pub(super) const HEAP_XMAX_COMMITTED: u16 = 0x0400;
pub(super) const HEAP_XMAX_INVALID: u16 = 0x0800;
pub(super) const HEAP_XMAX_IS_MULTI: u16 = 0x1000;
pub(super) const HEAP_XMAX_BITS: u16 = HEAP_XMAX_COMMITTED
    | HEAP_XMAX_INVALID
    | HEAP_XMAX_IS_MULTI
    | HEAP_XMAX_KEYSHR_LOCK
    | HEAP_XMAX_EXCL_LOCK
    | HEAP_XMAX_LOCK_ONLY;

// t_infomask2.
pub(super) const HEAP_KEYS_UPDATED: u16 = 0x2000;
pub(super) const HEAP_HOT_UPDATED: u16 = 0x4000;

/// Whether the page can be a heap page: a sane header of layout version 4, not
/// new, and no special space (index pages and sequences have one). The same
/// tests as `PageIsVerifiedExtended` (bufpage.c), and stricter ones.
pub fn is_heap_page(page: &[u8]) -> bool {
    if page.len() != PAGE_SIZE {
        return false;
    }
    let lower = usize::from(get_u16(page, PD_LOWER));
    let upper = usize::from(get_u16(page, PD_UPPER));
    usize::from(get_u16(page, PD_SPECIAL)) == PAGE_SIZE
        && get_u16(page, PD_PAGESIZE_VERSION) == PAGESIZE_AND_VERSION
        && get_u16(page, PD_FLAGS) & !PD_VALID_FLAG_BITS == 0
        && (PAGE_HEADER..=upper).contains(&lower)
        && upper <= PAGE_SIZE
}

/// The number of line pointers of a heap page.
pub(super) fn line_count(page: &[u8]) -> usize {
    (usize::from(get_u16(page, PD_LOWER)) - PAGE_HEADER) / LINE_POINTER
}

/// Where the tuple of the nth line pointer (from 0) of a heap page starts; `None`
/// for one without a tuple, or whose header would lie outside the tuple area.
pub(super) fn tuple_at(page: &[u8], n: usize) -> Option<usize> {
    let line = get_u32(page, PAGE_HEADER + n * LINE_POINTER);
    let (offset, flags, len) = (line & 0x7fff, line >> 15 & 3, line >> 17);
    let at = offset as usize;
    let inside = at >= usize::from(get_u16(page, PD_UPPER)) && at + TUPLE_HEADER <= PAGE_SIZE;
    (flags == LP_NORMAL && len as usize >= TUPLE_HEADER && inside).then_some(at)
}

/// The line pointers of a heap page (from 0) for which [`tuple_at`] finds a tuple, and where it starts.
#[inline]
pub(super) fn tuples(page: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let upper = u32::from(get_u16(page, PD_UPPER));
    let lines = &page[PAGE_HEADER..PAGE_HEADER + line_count(page) * LINE_POINTER];
    let (words, _) = lines.as_chunks::<LINE_POINTER>();
    words.iter().enumerate().filter_map(move |(n, word)| {
        let line = u32::from_le_bytes(*word);
        let (at, flags, len) = (line & 0x7fff, line >> 15 & 3, line >> 17);
        let inside = at >= upper && at as usize + TUPLE_HEADER <= PAGE_SIZE;
        (flags == LP_NORMAL && len as usize >= TUPLE_HEADER && inside).then_some((n, at as usize))
    })
}

const T_HOFF: usize = 22;
const HEAP_NATTS_MASK: u16 = 0x07FF;
/// `MaxTupleAttributeNumber`.
const MAX_ATTRIBUTES: u16 = 1664;

/// Whether it can be a tuple's header: a page of something else without special space may look like a heap's.
pub(super) fn is_plausible(page: &[u8], at: usize) -> bool {
    let hoff = usize::from(page[at + T_HOFF]);
    let attributes = get_u16(page, at + T_INFOMASK2) & HEAP_NATTS_MASK;
    hoff.is_multiple_of(8) && (24..=PAGE_SIZE - at).contains(&hoff) && attributes <= MAX_ATTRIBUTES
}

#[inline]
pub(super) fn get_u16(page: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

#[inline]
pub(super) fn get_u32(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

/// Stores a value, and tells whether it differs from what was there.
pub(super) fn put_u16(page: &mut [u8], at: usize, value: u16) -> bool {
    let changed = get_u16(page, at) != value;
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
    changed
}

/// Stores a value, and tells whether it differs from what was there.
pub(super) fn put_u32(page: &mut [u8], at: usize, value: u32) -> bool {
    let changed = get_u32(page, at) != value;
    page[at..at + 4].copy_from_slice(&value.to_le_bytes());
    changed
}
