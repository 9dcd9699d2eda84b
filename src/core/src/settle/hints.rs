//! Hint bits of an inherited page: set while it is read, so that who reads a fork leaves nothing to be
//! written.
//!
//! A tuple without them makes its first reader ask the commit log, set them, and mark the page dirty
//! (heapam_visibility.c, `SetHintBits`): in a fork that is a page of its own, and with checksums a page in
//! the WAL, for each page that is only looked at. What they would say of a settled page is known for good,
//! and a page that is made the same way at each read needs no place to be kept.

use super::page::*;

/// `FrozenTransactionId` and `BootstrapTransactionId` are below it, and have committed.
const FIRST_NORMAL_XID: u32 = 3;
const HEAP_MOVED: u16 = 0xC000;
const PD_ALL_VISIBLE: u16 = 0x0004;
const PD_PRUNE_XID: usize = 20;
const T_HOFF: usize = 22;
const HEAP_NATTS_MASK: u16 = 0x07FF;
/// `MaxTupleAttributeNumber`.
const MAX_ATTRIBUTES: u16 = 1664;

/// How transactions have ended.
pub trait Outcomes {
    /// Whether it committed; `None` where that is not known, or not final.
    fn committed(&mut self, xid: u32) -> Option<bool>;
}

/// Tuples of a heap page that the next reader would set hint bits on; there is one.
pub struct Missing {
    first: [u16; FEW],
    count: usize,
    /// The first line pointer that was not looked at any more.
    rest: usize,
}

/// More of them are looked for again, while they are set.
const FEW: usize = 16;

/// Those of a settled page. One that is all visible had them when it was marked so; only replay may have lost
/// some since, and to look at each tuple of each such page costs more than that is worth.
pub fn missing(page: &[u8]) -> Option<Missing> {
    if !is_heap_page(page) || get_u16(page, PD_FLAGS) & PD_ALL_VISIBLE != 0 {
        return None;
    }
    let mut found = Missing {
        first: [0; FEW],
        count: 0,
        rest: 0,
    };
    for (line, at) in tuples(page) {
        let infomask = get_u16(page, at + T_INFOMASK);
        if (lacks_xmin(infomask) || lacks_xmax(infomask)) && is_plausible(page, at) {
            if found.count == FEW {
                found.rest = line;
                return Some(found);
            }
            found.first[found.count] = at as u16;
            found.count += 1;
        }
    }
    found.rest = line_count(page);
    (found.count > 0).then_some(found)
}

/// Sets them as far as the outcomes are known, in the forms in which
/// heapam_visibility.c, `HeapTupleSatisfiesMVCC`, leaves them. Tells whether any byte changed.
pub fn set(page: &mut [u8], missing: &Missing, outcomes: &mut dyn Outcomes) -> bool {
    let mut changed = false;
    for at in &missing.first[..missing.count] {
        changed |= set_on(page, usize::from(*at), outcomes);
    }
    for line in missing.rest..line_count(page) {
        if let Some(at) = tuple_at(page, line).filter(|at| is_plausible(page, *at)) {
            changed |= set_on(page, at, outcomes);
        }
    }
    changed
}

/// On one tuple.
fn set_on(page: &mut [u8], at: usize, outcomes: &mut dyn Outcomes) -> bool {
    let mut infomask = get_u16(page, at + T_INFOMASK);
    if lacks_xmin(infomask) {
        let outcome = match get_u32(page, at + T_XMIN) {
            // An insertion that was taken back (heapam.c, `heap_abort_speculative`).
            0 => Some(false),
            xmin => ended(xmin, outcomes),
        };
        match outcome {
            Some(true) => infomask |= HEAP_XMIN_COMMITTED,
            Some(false) => infomask |= HEAP_XMIN_INVALID,
            None => {}
        }
    }
    if lacks_xmax(infomask) {
        match ended(get_u32(page, at + T_XMAX), outcomes) {
            Some(true) => infomask |= HEAP_XMAX_COMMITTED,
            Some(false) => infomask |= HEAP_XMAX_INVALID,
            None => {}
        }
    }
    put_u16(page, at + T_INFOMASK, infomask)
}

/// Whether a heap page says that pruning it may be worthwhile.
pub fn prunable(page: &[u8]) -> bool {
    is_heap_page(page) && get_u32(page, PD_PRUNE_XID) != 0
}

/// Takes that back: it is a hint (bufpage.h). Who only reads does not prune then, and the next update or
/// delete on the page says it again.
pub fn clear_prunable(page: &mut [u8]) -> bool {
    prunable(page) && put_u32(page, PD_PRUNE_XID, 0)
}

/// Whether it can be a tuple's header: a page of something else without special space may look like a heap's.
pub(super) fn is_plausible(page: &[u8], at: usize) -> bool {
    let hoff = usize::from(page[at + T_HOFF]);
    let attributes = get_u16(page, at + T_INFOMASK2) & HEAP_NATTS_MASK;
    hoff.is_multiple_of(8) && (24..=PAGE_SIZE - at).contains(&hoff) && attributes <= MAX_ATTRIBUTES
}

fn ended(xid: u32, outcomes: &mut dyn Outcomes) -> Option<bool> {
    match xid {
        0 => None,
        1..FIRST_NORMAL_XID => Some(true),
        _ => outcomes.committed(xid),
    }
}

/// What was moved by VACUUM FULL before 9.0 is left as it is.
fn lacks_xmin(infomask: u16) -> bool {
    infomask & (HEAP_XMIN_FROZEN | HEAP_MOVED) == 0
}

/// Of a tuple that is known to be there. Lockers get no hint, and the updater of a multixact neither.
fn lacks_xmax(infomask: u16) -> bool {
    infomask & (HEAP_XMAX_BITS | HEAP_MOVED) == 0
        // An inserter that has aborted is all there is to know.
        && infomask & HEAP_XMIN_COMMITTED != 0
}

#[cfg(test)]
mod tests {
    use super::super::tests::{build, tuple_of, Tuple, SLOT};
    use super::*;

    /// Odd transactions commit, even ones abort; those from 900 on are not known of.
    struct Parity(u32);

    impl Outcomes for Parity {
        fn committed(&mut self, xid: u32) -> Option<bool> {
            self.0 += 1;
            assert!(xid >= FIRST_NORMAL_XID);
            (xid < 900).then_some(xid % 2 == 1)
        }
    }

    fn set_missing(page: &mut [u8], outcomes: &mut Parity) -> bool {
        missing(page).is_some_and(|found| set(page, &found, outcomes))
    }

    fn hinted(before: Tuple) -> Tuple {
        let mut page = build(&[before]);
        let changed = set_missing(&mut page, &mut Parity(0));
        let after = tuple_of(&page, 0);
        assert_eq!(page, build(&[after]));
        assert_eq!(changed, before != after);
        assert!(!set_missing(&mut page, &mut Parity(0)));
        after
    }

    #[test]
    fn an_inserter_is_told_by_its_outcome() {
        let plain = Tuple::inserted(11, 0);
        assert_eq!(hinted(plain), Tuple::inserted(11, HEAP_XMIN_COMMITTED));
        assert_eq!(
            hinted(Tuple::inserted(12, 0)),
            Tuple::inserted(12, HEAP_XMIN_INVALID)
        );
        let unknown = Tuple::inserted(900, 0);
        assert_eq!(hinted(unknown), unknown);
        assert_eq!(
            hinted(Tuple::inserted(0, 0)),
            Tuple::inserted(0, HEAP_XMIN_INVALID)
        );
        for special in [1, 2] {
            assert_eq!(
                hinted(Tuple::inserted(special, 0)),
                Tuple::inserted(special, HEAP_XMIN_COMMITTED)
            );
        }
    }

    #[test]
    fn what_is_hinted_stays() {
        for infomask in [
            HEAP_XMIN_COMMITTED,
            HEAP_XMIN_INVALID,
            HEAP_XMIN_FROZEN,
            0x4000,
            0x8000,
        ] {
            let tuple = Tuple::inserted(12, infomask);
            assert_eq!(hinted(tuple), tuple);
        }
    }

    #[test]
    fn a_deleter_is_told_by_its_outcome() {
        let of = Tuple::with_xmax;
        assert_eq!(hinted(of(11, 0)), of(11, HEAP_XMAX_COMMITTED));
        assert_eq!(hinted(of(12, 0)), of(12, HEAP_XMAX_INVALID));
        for same in [
            of(901, 0),
            of(0, 0),
            of(12, HEAP_XMAX_INVALID),
            of(12, HEAP_XMAX_COMMITTED),
            of(12, HEAP_XMAX_IS_MULTI),
            of(12, HEAP_XMAX_LOCK_ONLY),
            of(12, HEAP_XMAX_EXCL_LOCK),
            of(12, HEAP_XMAX_KEYSHR_LOCK | HEAP_XMAX_LOCK_ONLY),
        ] {
            assert_eq!(hinted(same), same);
        }
    }

    #[test]
    fn a_deleter_is_nothing_to_who_was_never_there() {
        let tuple = |infomask| Tuple {
            xmin: 12,
            xmax: 13,
            infomask,
            infomask2: 3,
        };
        assert_eq!(hinted(tuple(0)), tuple(HEAP_XMIN_INVALID));
        let unknown = Tuple {
            xmin: 900,
            ..tuple(0)
        };
        assert_eq!(hinted(unknown), unknown);
        let both = Tuple {
            xmin: 15,
            ..tuple(0)
        };
        let expected = Tuple {
            infomask: HEAP_XMIN_COMMITTED | HEAP_XMAX_COMMITTED,
            ..both
        };
        assert_eq!(hinted(both), expected);
    }

    #[test]
    fn an_all_visible_page_and_one_that_is_no_heap_page_are_not_looked_at() {
        let tuples = [Tuple::inserted(11, 0), Tuple::with_xmax(11, 0)];
        for spoil in [
            |page: &mut [u8]| put_u16(page, PD_SPECIAL, 8176),
            |page: &mut [u8]| put_u16(page, PD_FLAGS, PD_ALL_VISIBLE),
            |page: &mut [u8]| {
                for slot in page.chunks_exact_mut(SLOT).rev().take(2) {
                    slot[T_HOFF] = 25;
                }
                true
            },
        ] {
            let mut page = build(&tuples);
            spoil(&mut page);
            let same = page.clone();
            assert!(!set_missing(&mut page, &mut Parity(0)));
            assert_eq!(page, same);
        }
    }

    #[test]
    fn nobody_asks_twice_about_a_page_that_is_done() {
        let mut page = build(&[Tuple::inserted(11, HEAP_XMIN_COMMITTED), Tuple::live()]);
        let mut outcomes = Parity(0);
        assert!(!set_missing(&mut page, &mut outcomes));
        assert_eq!(outcomes.0, 0);
    }

    #[test]
    fn all_are_set_however_many() {
        for count in [FEW - 1, FEW, FEW + 1, 100] {
            let of = |infomask| {
                let hinted = Tuple::inserted(12, HEAP_XMIN_INVALID);
                let tuples = (0..count).flat_map(|_| [hinted, Tuple::inserted(11, infomask)]);
                build(&tuples.collect::<Vec<_>>())
            };
            let mut page = of(0);
            assert!(set_missing(&mut page, &mut Parity(0)));
            assert_eq!(page, of(HEAP_XMIN_COMMITTED));
        }
    }

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

    /// Any bytes: nothing but infomasks changes, and no bit goes.
    #[test]
    fn hostile_pages_come_to_no_harm() {
        let mut seed = 99_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..2000 {
            let mut page = build(&[Tuple::default(); 40]);
            for _ in 0..200 {
                let at = PAGE_HEADER + (random() as usize) % (PAGE_SIZE - PAGE_HEADER);
                page[at] = random() as u8;
            }
            put_u16(&mut page, PD_LOWER, (24 + random() % 8000) as u16);
            let before = page.clone();
            set_missing(&mut page, &mut Parity(0));
            for (old, new) in before.iter().zip(&page) {
                assert_eq!(old & !new, 0);
            }
        }
    }
}
