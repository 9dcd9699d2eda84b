//! Values that lie in arrays and ranges: bytes, one after the other, each where its type's alignment puts it
//! (tupmacs.h, `att_align_pointer`, `fetch_att`, `att_addlength_pointer`).
#![allow(unsafe_code)] // walks over bytes

use super::Layout;
use pgrx::pg_sys::{self, Datum};

/// The next place from `at` on where a value of that alignment may lie.
pub fn aligned(at: usize, align: i8) -> usize {
    let to = match align as u8 {
        pg_sys::TYPALIGN_CHAR => 1,
        pg_sys::TYPALIGN_SHORT => 2,
        pg_sys::TYPALIGN_INT => 4,
        _ => 8,
    };
    at.next_multiple_of(to)
}

/// The value at `at`, and where it ends.
///
/// # Safety
/// A value of that layout begins there, or behind bytes that align it; the start of the bytes is aligned to 8.
pub unsafe fn value_at(bytes: &[u8], at: usize, layout: Layout) -> Option<(Datum, usize)> {
    // SAFETY: by the caller's promise; no more than the bytes that there are.
    unsafe {
        // A varlena with a short header is not aligned; a byte of padding is zero, a header is not.
        let short = layout.len == -1 && *bytes.get(at)? != 0;
        let at = if short { at } else { aligned(at, layout.align) };
        let place = bytes.get(at..)?.as_ptr();
        let len = match layout.len {
            -1 => pgrx::varlena::varsize_any(place.cast()),
            -2 => std::ffi::CStr::from_ptr(place.cast())
                .to_bytes_with_nul()
                .len(),
            len => len as usize,
        };
        let value = match (layout.by_value, layout.len) {
            (true, 1) => Datum::from(place.cast::<i8>().read()),
            (true, 2) => Datum::from(place.cast::<i16>().read()),
            (true, 4) => Datum::from(place.cast::<i32>().read()),
            (true, _) => Datum::from(place.cast::<u64>().read()),
            (false, _) => Datum::from(place.cast_mut()),
        };
        Some((value, at + len)).filter(|(_, end)| *end <= bytes.len())
    }
}

/// An array's values, its dimensions, and their lower bounds.
pub struct Elements {
    pub values: Vec<Option<Datum>>,
    pub dimensions: Vec<(i32, i32)>,
}

/// # Safety
/// An array whose elements have that layout. The values live as long as it, or the current memory context.
pub unsafe fn elements(array: Datum, layout: Layout) -> Elements {
    // SAFETY: by the caller's promise; as array_out (arrayfuncs.c).
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let count = (*array).ndim as usize;
        let sizes = array.add(1).cast::<i32>();
        let dimensions = (0..count).map(|n| (*sizes.add(n), *sizes.add(count + n)));
        let (mut values, mut nulls, mut len) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            array,
            (*array).elemtype,
            layout.len.into(),
            layout.by_value,
            layout.align as _,
            &mut values,
            &mut nulls,
            &mut len,
        );
        Elements {
            values: (0..len as usize)
                .map(|n| (!*nulls.add(n)).then(|| *values.add(n)))
                .collect(),
            dimensions: dimensions.collect(),
        }
    }
}

/// How many levels of an array of these sizes end before its n-th element, which is not the first.
pub fn ended(sizes: &[usize], n: usize) -> usize {
    let mut span = 1;
    let whole = sizes.iter().rev().take_while(|size| {
        span *= **size;
        n.is_multiple_of(span)
    });
    whole.count()
}

/// A range; a bound is `None` where there is none.
pub struct Range {
    pub empty: bool,
    pub lower: Option<Datum>,
    pub upper: Option<Datum>,
    pub lower_included: bool,
    pub upper_included: bool,
}

/// rangetypes.h
const RANGE_EMPTY: u8 = 0x01;
const RANGE_LB_INC: u8 = 0x02;
const RANGE_UB_INC: u8 = 0x04;
const RANGE_LB_INF: u8 = 0x08;
const RANGE_UB_INF: u8 = 0x10;
const RANGE_LB_NULL: u8 = 0x20;
const RANGE_UB_NULL: u8 = 0x40;

/// The range whose bounds lie at `at`.
unsafe fn range_at(bytes: &[u8], at: usize, flags: u8, layout: Layout) -> Option<Range> {
    let mut at = at;
    let mut bound = |there: bool| -> Option<Option<Datum>> {
        if !there {
            return Some(None);
        }
        // SAFETY: by the caller's promise.
        let (value, end) = unsafe { value_at(bytes, at, layout) }?;
        at = end;
        Some(Some(value))
    };
    let lower = bound(flags & (RANGE_EMPTY | RANGE_LB_NULL | RANGE_LB_INF) == 0)?;
    let upper = bound(flags & (RANGE_EMPTY | RANGE_UB_NULL | RANGE_UB_INF) == 0)?;
    Some(Range {
        empty: flags & RANGE_EMPTY != 0,
        lower,
        upper,
        lower_included: flags & RANGE_LB_INC != 0,
        upper_included: flags & RANGE_UB_INC != 0,
    })
}

/// A value's bytes with its header, aligned to 8.
unsafe fn whole<'b>(value: Datum) -> &'b [u8] {
    // SAFETY: a varlena; a copy that is plain has a header of 4 bytes.
    unsafe {
        let plain = pg_sys::pg_detoast_datum_copy(value.cast_mut_ptr());
        std::slice::from_raw_parts(plain.cast::<u8>(), pgrx::varlena::varsize_any(plain))
    }
}

/// A range (rangetypes.c, `range_deserialize`): header, type, bounds, and the flags in the last byte.
///
/// # Safety
/// A range whose bounds have that layout.
pub unsafe fn range(value: Datum, layout: Layout) -> Option<Range> {
    // SAFETY: by the caller's promise.
    unsafe {
        let bytes = whole(value);
        range_at(
            bytes,
            std::mem::size_of::<pg_sys::RangeType>(),
            *bytes.last()?,
            layout,
        )
    }
}

/// The ranges of a multirange (multirangetypes.c, `multirange_get_range`): header, type, count; for each range
/// but the first the length of the one before, or its own offset; flags; bounds.
///
/// # Safety
/// A multirange whose bounds have that layout.
pub unsafe fn ranges(value: Datum, layout: Layout) -> Option<Vec<Range>> {
    const HEADER: usize = 12;
    const OFFSET: u32 = 0x8000_0000;
    // SAFETY: by the caller's promise.
    let bytes = unsafe { whole(value) };
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let count = word(HEADER - 4)? as usize;
    let flags = HEADER + count.saturating_sub(1) * 4;
    let bounds = aligned(flags + count, layout.align);
    let mut offset = 0;
    let mut found = Vec::new();
    for n in 0..count {
        if n > 0 {
            let item = word(HEADER + (n - 1) * 4)?;
            offset = match item & OFFSET {
                0 => offset + item as usize,
                _ => (item & !OFFSET) as usize,
            };
        }
        // SAFETY: by the caller's promise.
        found.push(unsafe { range_at(bytes, bounds + offset, *bytes.get(flags + n)?, layout) }?);
    }
    Some(found)
}
