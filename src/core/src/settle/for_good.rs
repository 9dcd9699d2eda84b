//! Settlement for good: an inherited page keeps no transaction's number that would mean anything.
//!
//! All that a page of a fork shows ended before its cut, and nobody in the fork has a snapshot from before that. So
//! how each transaction ended is written on the page, in forms whose meaning no number's age can change:
//!
//! * **There**: the inserter frozen (`HEAP_XMIN_FROZEN`; the number stays, as VACUUM leaves it), neither deleter nor
//!   locker.
//! * **Not there** (never inserted, deleted, updated): no inserter, as `heap_abort_speculative` (heapam.c) leaves it:
//!   `t_xmin` zero, `HEAP_XMIN_INVALID`. VACUUM and pruning remove it whatever their horizon is.
//! * **The root of a chain of versions whose last one is there**: its line pointer redirects to that one, as pruning
//!   has it (pruneheap.c, `heap_prune_chain`). A frozen version does not follow from the number of who updated the
//!   one before, so nothing else would lead to it.
//!
//! The space of what is not there is not given free: the line pointers keep it, or the next pruning finds it.
//!
//! The same page comes of it each time, in recovery too: which transactions had committed at the cut does not change.

use super::page::*;
use super::{end_xmax, Multis, SettleError};

/// More line pointers do not fit on a page.
const MAX_LINES: usize = (PAGE_SIZE - PAGE_HEADER) / LINE_POINTER;
const LP_REDIRECT: u32 = 2;
const HEAP_MOVED: u16 = 0xC000;
const HEAP_ONLY_TUPLE: u16 = 0x8000;
const FIRST_NORMAL_XID: u32 = 3;
/// `t_ctid`: the block in two halves, then the line pointer (from 1).
const T_CTID_LINE: usize = 16;

/// What is to become of a line pointer's tuple.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It has none, or one that stays as it is.
    Nothing,
    There,
    /// Deleted or updated.
    NoMore,
    /// Whoever inserted it has aborted.
    Never,
}

/// Whether any tuple of a heap page says something of a transaction.
pub fn tells(page: &[u8]) -> bool {
    is_heap_page(page) && tuples(page).any(|(_, at)| !is_done(page, at))
}

fn is_done(page: &[u8], at: usize) -> bool {
    let infomask = get_u16(page, at + T_INFOMASK);
    if infomask & HEAP_MOVED != 0 {
        return true;
    }
    let ended = infomask & HEAP_XMAX_INVALID != 0 && get_u32(page, at + T_XMAX) == 0;
    let begun = match infomask & HEAP_XMIN_FROZEN {
        HEAP_XMIN_FROZEN => true,
        HEAP_XMIN_INVALID => get_u32(page, at + T_XMIN) == 0,
        _ => false,
    };
    ended && begun
}

/// Settles a heap page for good, after [`super::settle_page`]: all who are named there had ended at the cut, or are
/// marked as if they had. Tells whether any byte changed. A page that is no heap page is left alone.
pub fn settle_for_good(page: &mut [u8], ends: &mut dyn Multis) -> Result<bool, SettleError> {
    // What cannot be a tuple tells of a page of something else.
    if !tells(page) || !tuples(page).all(|(_, at)| is_plausible(page, at)) {
        return Ok(false);
    }
    let lines = line_count(page).min(MAX_LINES);
    let mut fates = [Fate::Nothing; MAX_LINES];
    // Who updated: of multixacts, which are looked up once.
    let mut updaters: Vec<(usize, u32)> = Vec::new();
    for (line, its) in fates.iter_mut().enumerate().take(lines) {
        if let Some(at) = tuple_at(page, line) {
            let (fate, updater) = fate(page, at, ends)?;
            *its = fate;
            updaters.extend(updater.map(|updater| (line, updater)));
        }
    }
    // First the ways, because they are found by the numbers;
    let mut changed = false;
    for line in 0..lines {
        if let Some(last) = way(page, line, &fates[..lines], &updaters) {
            let redirect = (last as u32 + 1) | (LP_REDIRECT << 15);
            changed |= put_u32(page, PAGE_HEADER + line * LINE_POINTER, redirect);
        }
    }
    // second the tuples.
    for (line, fate) in fates.iter().enumerate().take(lines) {
        if let Some(at) = tuple_at(page, line) {
            changed |= match fate {
                Fate::Nothing => false,
                Fate::There => {
                    let ended = end_xmax(page, at);
                    let infomask = get_u16(page, at + T_INFOMASK) | HEAP_XMIN_FROZEN;
                    put_u16(page, at + T_INFOMASK, infomask) | ended
                }
                Fate::NoMore | Fate::Never => {
                    let ended = end_xmax(page, at);
                    let infomask = get_u16(page, at + T_INFOMASK) & !HEAP_XMIN_FROZEN;
                    put_u16(page, at + T_INFOMASK, infomask | HEAP_XMIN_INVALID)
                        | put_u32(page, at + T_XMIN, 0)
                        | ended
                }
            };
        }
    }
    Ok(changed)
}

/// What is to become of a tuple, and who updated it if a multixact told.
fn fate(page: &[u8], at: usize, ends: &mut dyn Multis) -> Result<(Fate, Option<u32>), SettleError> {
    let infomask = get_u16(page, at + T_INFOMASK);
    if infomask & HEAP_MOVED != 0 {
        return Ok((Fate::Nothing, None));
    }
    let inserted = match infomask & HEAP_XMIN_FROZEN {
        HEAP_XMIN_INVALID => false,
        0 => committed(get_u32(page, at + T_XMIN), ends)?,
        _ => true,
    };
    if !inserted {
        return Ok((Fate::Never, None));
    }
    let xmax = get_u32(page, at + T_XMAX);
    let only_locked = infomask & HEAP_XMAX_LOCK_ONLY != 0
        || infomask & (HEAP_XMAX_IS_MULTI | HEAP_XMAX_EXCL_LOCK | HEAP_XMAX_KEYSHR_LOCK)
            == HEAP_XMAX_EXCL_LOCK;
    if infomask & HEAP_XMAX_INVALID != 0 || only_locked {
        return Ok((Fate::There, None));
    }
    if infomask & HEAP_XMAX_IS_MULTI != 0 {
        let updater = match ends.updater(xmax)? {
            Some(xid) if committed(xid, ends)? => Some(xid),
            _ => None,
        };
        let fate = updater.map_or(Fate::There, |_| Fate::NoMore);
        return Ok((fate, updater));
    }
    let gone = infomask & HEAP_XMAX_COMMITTED != 0 || committed(xmax, ends)?;
    Ok((if gone { Fate::NoMore } else { Fate::There }, None))
}

fn committed(xid: u32, ends: &mut dyn Multis) -> Result<bool, SettleError> {
    match xid {
        0 => Ok(false),
        1..FIRST_NORMAL_XID => Ok(true),
        _ => ends.did_commit(xid),
    }
}

/// Where the line pointer has to lead, if it leads to a version that is not there and the last one is: follows the
/// chain of versions on this page.
fn way(page: &[u8], root: usize, fates: &[Fate], updaters: &[(usize, u32)]) -> Option<usize> {
    let word = get_u32(page, PAGE_HEADER + root * LINE_POINTER);
    let mut line = root;
    if word >> 15 & 3 == LP_REDIRECT {
        line = (word & 0x7fff).checked_sub(1)? as usize;
    } else {
        let at = tuple_at(page, root)?;
        if get_u16(page, at + T_INFOMASK2) & HEAP_ONLY_TUPLE != 0 {
            return None;
        }
    }
    if *fates.get(line)? != Fate::NoMore {
        return None;
    }
    // A chain has no more members than there are line pointers.
    for _ in 0..fates.len() {
        let at = tuple_at(page, line)?;
        if get_u16(page, at + T_INFOMASK2) & HEAP_HOT_UPDATED == 0 {
            return None;
        }
        let told = updaters.iter().find(|(of, _)| *of == line);
        let updater = told.map_or_else(|| get_u32(page, at + T_XMAX), |(_, xid)| *xid);
        let next = usize::from(get_u16(page, at + T_CTID_LINE)).checked_sub(1)?;
        let fate = *fates.get(next)?;
        let at = tuple_at(page, next)?;
        let follows = get_u16(page, at + T_INFOMASK2) & HEAP_ONLY_TUPLE != 0
            && get_u32(page, at + T_XMIN) == updater;
        match fate {
            Fate::There if follows => return Some(next),
            Fate::NoMore if follows => line = next,
            _ => return None,
        }
    }
    None
}

/// Says of a page of a visibility map that what is all visible is all frozen, which it is as it is read. Tells
/// whether any byte changed.
pub fn freeze_map(page: &mut [u8]) -> bool {
    /// `VISIBILITYMAP_ALL_VISIBLE` of each of the four blocks of a byte.
    const ALL_VISIBLE: u8 = 0x55;
    let mut changed = false;
    if get_u16(page, PD_UPPER) == 0 {
        return false;
    }
    for byte in page.iter_mut().skip(PAGE_HEADER) {
        let frozen = *byte | (*byte & ALL_VISIBLE) << 1;
        changed |= frozen != *byte;
        *byte = frozen;
    }
    changed
}
