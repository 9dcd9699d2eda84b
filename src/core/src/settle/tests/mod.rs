//! Hand-built pages, one for each case.

use super::*;
use std::collections::HashMap;

mod for_good;
mod random;

const NEXT: u32 = 1000;
const OLDEST_MULTI: u32 = 500;
const RUNNING: u32 = 900;
const ENDED: u32 = 899;

/// The page's tuples, 32 bytes each, from the end of the page downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tuple {
    pub xmin: u32,
    pub xmax: u32,
    pub infomask: u16,
    pub infomask2: u16,
}

impl Tuple {
    pub fn inserted(xmin: u32, infomask: u16) -> Self {
        Self {
            xmin,
            infomask: infomask | HEAP_XMAX_INVALID,
            ..Self::default()
        }
    }
    pub fn with_xmax(xmax: u32, infomask: u16) -> Self {
        Self {
            xmin: 10,
            xmax,
            infomask: infomask | HEAP_XMIN_COMMITTED,
            infomask2: 3,
        }
    }
    /// What is left of `with_xmax` when the xmax goes.
    pub fn live() -> Self {
        Self::with_xmax(0, HEAP_XMAX_INVALID)
    }
}

pub const SLOT: usize = 32;

pub fn build(tuples: &[Tuple]) -> Vec<u8> {
    let mut page = vec![0xa5; PAGE_SIZE];
    let upper = PAGE_SIZE - tuples.len() * SLOT;
    page[..PAGE_HEADER].fill(0);
    put_u16(
        &mut page,
        PD_LOWER,
        (PAGE_HEADER + tuples.len() * LINE_POINTER) as u16,
    );
    put_u16(&mut page, PD_UPPER, upper as u16);
    put_u16(&mut page, PD_SPECIAL, PAGE_SIZE as u16);
    put_u16(&mut page, PD_PAGESIZE_VERSION, 0x2004);
    for (n, tuple) in tuples.iter().enumerate() {
        let at = PAGE_SIZE - (n + 1) * SLOT;
        put_line(&mut page, n, at, 1, 30);
        put_u32(&mut page, at + T_XMIN, tuple.xmin);
        put_u32(&mut page, at + T_XMAX, tuple.xmax);
        put_u16(&mut page, at + T_INFOMASK, tuple.infomask);
        put_u16(&mut page, at + T_INFOMASK2, tuple.infomask2);
        page[at + 22] = 24;
    }
    page
}

/// The nth tuple of such a page.
pub fn tuple_of(page: &[u8], n: usize) -> Tuple {
    let at = PAGE_SIZE - (n + 1) * SLOT;
    Tuple {
        xmin: get_u32(page, at + T_XMIN),
        xmax: get_u32(page, at + T_XMAX),
        infomask: get_u16(page, at + T_INFOMASK),
        infomask2: get_u16(page, at + T_INFOMASK2),
    }
}

fn put_line(page: &mut [u8], n: usize, offset: usize, flags: u32, len: u32) {
    put_u32(
        page,
        PAGE_HEADER + n * LINE_POINTER,
        offset as u32 | flags << 15 | len << 17,
    );
}

/// The updaters of multixacts, and who aborted; all others committed.
#[derive(Default)]
struct Model {
    updaters: HashMap<u32, Option<u32>>,
    aborted: Vec<u32>,
    asked: Vec<u32>,
}

impl Multis for Model {
    fn updater(&mut self, multi: u32) -> Result<Option<u32>, SettleError> {
        self.asked.push(multi);
        let known = self.updaters.get(&multi).copied();
        known.ok_or(SettleError::Multi {
            multi,
            reason: "no such multixact".into(),
        })
    }
    fn did_commit(&mut self, xid: u32) -> Result<bool, SettleError> {
        Ok(!self.aborted.contains(&xid))
    }
}

fn cut() -> InFlight {
    InFlight::new(vec![RUNNING, 950, 4_000_000_000], NEXT)
}

/// Settles a page of this one tuple, and checks that all other bytes stay and
/// that a second time changes nothing.
fn settle_one(before: Tuple, multis: &mut Model) -> Tuple {
    let mut page = build(&[before]);
    let changed = settle_page(&mut page, &cut(), OLDEST_MULTI, multis).unwrap();
    let after = tuple_of(&page, 0);
    assert_eq!(page, build(&[after]));
    assert_eq!(changed, before != after);
    assert!(!changed || concerns(&build(&[before]), &cut(), OLDEST_MULTI));
    assert!(!settle_page(&mut page, &cut(), OLDEST_MULTI, multis).unwrap());
    after
}

fn settled(before: Tuple) -> Tuple {
    settle_one(before, &mut Model::default())
}

#[test]
fn insert_in_flight_looks_aborted() {
    let dead = Tuple::inserted(RUNNING, HEAP_XMIN_INVALID);
    assert_eq!(settled(Tuple::inserted(RUNNING, 0)), dead);
    assert_eq!(settled(Tuple::inserted(RUNNING, HEAP_XMIN_COMMITTED)), dead);
    assert_eq!(settled(dead), dead);
    let before_wraparound = settled(Tuple::inserted(4_000_000_000, 0));
    assert_eq!(
        before_wraparound,
        Tuple::inserted(4_000_000_000, HEAP_XMIN_INVALID)
    );
}

#[test]
fn others_stay() {
    for xmin in [0, 1, 2, 3, ENDED, RUNNING + 1, NEXT, 3_999_999_999] {
        let tuple = Tuple::inserted(xmin, 0);
        assert_eq!(settled(tuple), tuple);
        let tuple = Tuple::with_xmax(xmin, HEAP_XMAX_COMMITTED);
        assert_eq!(settled(tuple), tuple);
    }
}

#[test]
fn frozen_xmin_is_not_looked_at() {
    let tuple = Tuple::inserted(RUNNING, HEAP_XMIN_FROZEN);
    assert_eq!(settled(tuple), tuple);
}

#[test]
fn update_delete_and_lock_in_flight_leave_no_xmax() {
    let locks = [
        HEAP_XMAX_EXCL_LOCK | HEAP_XMAX_LOCK_ONLY,
        HEAP_XMAX_KEYSHR_LOCK | HEAP_XMAX_LOCK_ONLY,
        HEAP_XMAX_EXCL_LOCK | HEAP_XMAX_KEYSHR_LOCK | HEAP_XMAX_LOCK_ONLY,
        HEAP_XMAX_EXCL_LOCK,
    ];
    for infomask in [0, HEAP_XMAX_COMMITTED, HEAP_XMAX_INVALID]
        .into_iter()
        .chain(locks)
    {
        let mut tuple = Tuple::with_xmax(RUNNING, infomask);
        tuple.infomask2 |= HEAP_KEYS_UPDATED | HEAP_HOT_UPDATED;
        assert_eq!(settled(tuple), Tuple::live(), "{infomask:#x}");
    }
}

#[test]
fn heap_only_and_updated_bits_stay() {
    const HEAP_ONLY_TUPLE: u16 = 0x8000;
    const HEAP_UPDATED: u16 = 0x2000;
    let mut tuple = Tuple::with_xmax(RUNNING, HEAP_UPDATED);
    tuple.infomask2 |= HEAP_ONLY_TUPLE;
    let mut live = Tuple::live();
    live.infomask |= HEAP_UPDATED;
    live.infomask2 |= HEAP_ONLY_TUPLE;
    assert_eq!(settled(tuple), live);
}

#[test]
fn inserted_and_deleted_in_flight() {
    let before = Tuple {
        xmin: RUNNING,
        xmax: RUNNING,
        infomask: 0,
        infomask2: 3,
    };
    let infomask = HEAP_XMIN_INVALID | HEAP_XMAX_INVALID;
    assert_eq!(
        settled(before),
        Tuple {
            xmin: RUNNING,
            xmax: 0,
            infomask,
            infomask2: 3
        }
    );
}

#[test]
fn multixact_with_a_committed_updater_becomes_the_updater() {
    let mut multis = Model {
        updaters: [(600, Some(ENDED))].into(),
        ..Model::default()
    };
    let mut tuple = Tuple::with_xmax(600, HEAP_XMAX_IS_MULTI | HEAP_XMAX_KEYSHR_LOCK);
    tuple.infomask2 |= HEAP_KEYS_UPDATED | HEAP_HOT_UPDATED;
    let mut updated = Tuple::with_xmax(ENDED, HEAP_XMAX_COMMITTED);
    updated.infomask2 = tuple.infomask2;
    assert_eq!(settle_one(tuple, &mut multis), updated);
}

#[test]
fn multixact_without_a_committed_updater_goes() {
    let mut multis = Model {
        updaters: [(600, Some(RUNNING)), (601, Some(ENDED)), (602, None)].into(),
        aborted: vec![ENDED],
        ..Model::default()
    };
    for multi in 600..=602 {
        let mut tuple = Tuple::with_xmax(multi, HEAP_XMAX_IS_MULTI);
        tuple.infomask2 |= HEAP_KEYS_UPDATED;
        assert_eq!(settle_one(tuple, &mut multis), Tuple::live(), "{multi}");
    }
}

#[test]
fn multixact_of_lockers_goes_without_being_resolved() {
    // The last but one is HEAP_LOCKED_UPGRADED, the number of another cluster.
    for infomask in [
        HEAP_XMAX_LOCK_ONLY | HEAP_XMAX_KEYSHR_LOCK,
        HEAP_XMAX_LOCK_ONLY | HEAP_XMAX_EXCL_LOCK,
        HEAP_XMAX_LOCK_ONLY,
        HEAP_XMAX_INVALID,
    ] {
        let mut multis = Model::default();
        let tuple = Tuple::with_xmax(600, HEAP_XMAX_IS_MULTI | infomask);
        assert_eq!(settle_one(tuple, &mut multis), Tuple::live());
        assert!(multis.asked.is_empty());
    }
}

#[test]
fn old_multixact_stays_and_is_not_taken_for_an_xid() {
    // 900 is the number of an xid in flight, too.
    let mut page = build(&[Tuple::with_xmax(RUNNING, HEAP_XMAX_IS_MULTI)]);
    let before = page.clone();
    let mut multis = Model::default();
    assert!(!settle_page(&mut page, &cut(), RUNNING + 1, &mut multis).unwrap());
    assert!(page == before && multis.asked.is_empty());
    // The numbers of multixacts wrap around, too.
    let tuple = Tuple::with_xmax(u32::MAX, HEAP_XMAX_IS_MULTI);
    assert_eq!(settled(tuple), tuple);
}

#[test]
fn multixact_that_cannot_be_resolved_is_an_error() {
    let mut page = build(&[Tuple::with_xmax(600, HEAP_XMAX_IS_MULTI)]);
    let error = settle_page(&mut page, &cut(), OLDEST_MULTI, &mut Model::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not resolve multixact 600: no such multixact"
    );
}

#[test]
fn pages_that_are_left_alone() {
    let good = build(&[Tuple::inserted(RUNNING, 0)]);
    assert!(is_heap_page(&good));
    let empty = InFlight::new(vec![], NEXT);
    let mut page = good.clone();
    assert!(!settle_page(&mut page, &empty, OLDEST_MULTI, &mut Model::default()).unwrap());
    assert_eq!(page, good);
    for (offset, value) in [
        (PD_SPECIAL, 8176),
        (PD_PAGESIZE_VERSION, 0x2003),
        (PD_PAGESIZE_VERSION, 0x4004),
        (PD_FLAGS, 8),
        (PD_LOWER, 23),
        (PD_LOWER, 8192),
        (PD_UPPER, 8193),
        (PD_UPPER, 0),
    ] {
        let mut page = good.clone();
        put_u16(&mut page, offset, value);
        let before = page.clone();
        assert!(!is_heap_page(&page), "{offset} {value}");
        assert!(!settle_page(&mut page, &cut(), OLDEST_MULTI, &mut Model::default()).unwrap());
        assert_eq!(page, before);
    }
    assert!(!is_heap_page(&[0; PAGE_SIZE]) && !is_heap_page(&[]));
    let short = settle_page(&mut [0; 100], &cut(), OLDEST_MULTI, &mut Model::default());
    assert_eq!(short, Err(SettleError::PageSize(100)));
}

#[test]
fn line_pointers_without_a_tuple_inside_the_page_are_skipped() {
    let good = build(&[Tuple::inserted(RUNNING, 0)]);
    let at = PAGE_SIZE - SLOT;
    for (offset, flags, len) in [
        (at, 0, 30),             // LP_UNUSED
        (at, 2, 30),             // LP_REDIRECT
        (at, 3, 30),             // LP_DEAD, still with its storage
        (at, 1, 22),             // shorter than a tuple header
        (at - 1, 1, 30),         // before pd_upper
        (PAGE_SIZE - 22, 1, 30), // the header would pass the end
        (0x7fff, 1, 0x7fff),
    ] {
        let mut page = good.clone();
        put_line(&mut page, 0, offset, flags, len);
        let before = page.clone();
        assert!(!settle_page(&mut page, &cut(), OLDEST_MULTI, &mut Model::default()).unwrap());
        assert_eq!(page, before);
    }
}
