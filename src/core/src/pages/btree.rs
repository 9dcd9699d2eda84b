//! Looks up a number in a btree whose first key is an OID (nbtree.h; nbtsearch.c, `_bt_search`).
//!
//! The catalogs' indexes on an OID, and those of TOAST tables. Pages are read one by one, as they are at
//! that moment: a page that was split since its parent was read is found by its right link.

use super::{item, items, u16_at, u32_at, Damaged, Item};
use crate::types::{Page, PAGE_SIZE};

const MAGIC: u32 = 0x0005_3162;
const BTP_LEAF: u16 = 1;
const BTP_DELETED: u16 = 1 << 2;
const BTP_META: u16 = 1 << 3;
const BTP_HALF_DEAD: u16 = 1 << 4;
const INDEX_SIZE_MASK: u16 = 0x1FFF;
const INDEX_ALT_TID_MASK: u16 = 0x2000;
const BT_IS_POSTING: u16 = 0x2000;
const BT_OFFSET_MASK: u16 = 0x0FFF;

/// Block and line pointer of a row.
pub type Tid = (u32, u16);

struct Opaque {
    next: u32,
    flags: u16,
}

fn opaque(page: &Page) -> Result<Opaque, Damaged> {
    let special = usize::from(u16_at(page, 16));
    if special != PAGE_SIZE - 16 {
        return Err(Damaged("not a btree page"));
    }
    Ok(Opaque {
        next: u32_at(page, special + 4),
        flags: u16_at(page, special + 12),
    })
}

fn tid_at(page: &Page, at: usize) -> Tid {
    (
        u32::from(u16_at(page, at)) << 16 | u32::from(u16_at(page, at + 2)),
        u16_at(page, at + 4),
    )
}

/// An entry: its place, its t_info, its first key unless that is "minus infinity".
struct Entry {
    at: usize,
    len: usize,
    info: u16,
    key: Option<u32>,
}

fn entry(page: &Page, number: u16, pivot: bool) -> Result<Option<Entry>, Damaged> {
    // Dead entries are in their order like all others, and their rows tell that they are dead.
    let (Item::Normal { at, len } | Item::Dead { at, len }) = item(page, number)? else {
        return Ok(None);
    };
    if at + len > PAGE_SIZE {
        return Err(Damaged("a line pointer leads outside of the page"));
    }
    if len < 8 {
        return Err(Damaged("an index entry is too short"));
    }
    let info = u16_at(page, at + 6);
    let natts = match pivot && info & INDEX_ALT_TID_MASK != 0 {
        true => u16_at(page, at + 4) & BT_OFFSET_MASK,
        false => 1,
    };
    let size = usize::from(info & INDEX_SIZE_MASK);
    let key = (natts > 0 && size >= 12 && len >= 12).then(|| u32_at(page, at + 8));
    Ok(Some(Entry { at, len, info, key }))
}

fn first_data(opaque: &Opaque) -> u16 {
    1 + u16::from(opaque.next != 0)
}

/// The first entry that is not below `key`, or the number after the last (`_bt_binsrch`). What has no key
/// is below all.
fn not_below(page: &Page, opaque: &Opaque, key: u32) -> Result<u16, Damaged> {
    let pivot = opaque.flags & BTP_LEAF == 0;
    let (mut low, mut high) = (first_data(opaque), items(page)? + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = entry(page, middle, pivot)?.and_then(|entry| entry.key);
        if found.is_none_or(|found| found < key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// The child to go down to: the last whose key is below `key`. The first entry of an inner page is below
/// all.
fn child(page: &Page, opaque: &Opaque, key: u32) -> Result<u32, Damaged> {
    let first = first_data(opaque);
    let last_below = (not_below(page, opaque, key)?.max(first + 1)) - 1;
    match last_below <= items(page)? {
        true => entry(page, last_below, true)?.map(|entry| tid_at(page, entry.at).0),
        false => None,
    }
    .ok_or(Damaged("an inner page without entries"))
}

fn push_tids(page: &Page, entry: &Entry, found: &mut Vec<Tid>) -> Result<(), Damaged> {
    let number = u16_at(page, entry.at + 4);
    if entry.info & INDEX_ALT_TID_MASK == 0 || number & BT_IS_POSTING == 0 {
        found.push(tid_at(page, entry.at));
        return Ok(());
    }
    // A posting list (`BTreeTupleGetPosting`): the block number's place tells where it begins.
    let (offset, count) = (
        tid_at(page, entry.at).0 as usize,
        usize::from(number & BT_OFFSET_MASK),
    );
    if offset + 6 * count > entry.len {
        return Err(Damaged("a posting list is longer than its entry"));
    }
    found.extend((0..count).map(|n| tid_at(page, entry.at + offset + 6 * n)));
    Ok(())
}

/// Where to look next.
enum Step {
    To(u32),
    Done,
}

fn root(page: &Page) -> Result<u32, Damaged> {
    if opaque(page)?.flags & BTP_META == 0 || u32_at(page, 24) != MAGIC {
        return Err(Damaged("not a btree"));
    }
    Ok(u32_at(page, 32))
}

fn step(page: &Page, key: u32, found: &mut Vec<Tid>) -> Result<Step, Damaged> {
    let opaque = opaque(page)?;
    let dead = opaque.flags & (BTP_DELETED | BTP_HALF_DEAD) != 0;
    let mut right = dead;
    if !dead && opaque.next != 0 {
        // The high key: all here are at most that.
        let high = entry(page, 1, true)?.and_then(|entry| entry.key);
        right = high.is_some_and(|high| key > high);
    }
    if right && opaque.next == 0 {
        return Err(Damaged("the last page of an index is a deleted one"));
    }
    if right {
        return Ok(Step::To(opaque.next));
    }
    if opaque.flags & BTP_LEAF == 0 {
        return Ok(Step::To(child(page, &opaque, key)?));
    }
    for number in not_below(page, &opaque, key)?..=items(page)? {
        match entry(page, number, false)? {
            Some(entry) if entry.key == Some(key) => push_tids(page, &entry, found)?,
            Some(entry) if entry.key.is_some_and(|at| at > key) => return Ok(Step::Done),
            _ => {}
        }
    }
    Ok(match opaque.next {
        0 => Step::Done,
        next => Step::To(next),
    })
}

/// The rows whose first key is `key`, in the index's order. `look` shows a page; `blocks` bounds how many
/// are looked at.
pub fn search<E: From<Damaged>>(
    key: u32,
    blocks: u32,
    mut look: impl FnMut(u32, &mut dyn FnMut(&Page)) -> Result<(), E>,
) -> Result<Vec<Tid>, E> {
    const NOT_SHOWN: Damaged = Damaged("a page was not shown");
    let mut at = Err(NOT_SHOWN);
    look(0, &mut |page| at = root(page))?;
    let mut at = at?;
    let mut found = Vec::new();
    if at == 0 {
        return Ok(found);
    }
    for _ in 0..blocks.saturating_mul(2).saturating_add(64) {
        let mut next = Err(NOT_SHOWN);
        look(at, &mut |page| next = step(page, key, &mut found))?;
        match next? {
            Step::To(next) => at = next,
            Step::Done => return Ok(found),
        }
    }
    Err(Damaged("an index that goes round in circles").into())
}
