//! Hand-built pages, one case each.

use super::*;

struct Known(Vec<(u32, Option<u32>)>, Vec<u32>);

impl Multis for Known {
    fn updater(&mut self, multi: u32) -> Result<Option<u32>, SettleError> {
        let found = self.0.iter().find(|(number, _)| *number == multi);
        found
            .map(|(_, updater)| *updater)
            .ok_or(SettleError::Multi {
                multi,
                reason: "gone".into(),
            })
    }
    fn did_commit(&mut self, xid: u32) -> bool {
        self.1.contains(&xid)
    }
}

const AT: usize = PAGE_SIZE - 32;

fn page(xmin: u32, xmax: u32, infomask: u16) -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE];
    put_u16(&mut page, PD_LOWER, (PAGE_HEADER + LINE_POINTER) as u16);
    put_u16(&mut page, PD_UPPER, AT as u16);
    put_u16(&mut page, PD_SPECIAL, PAGE_SIZE as u16);
    put_u16(&mut page, PD_PAGESIZE_VERSION, PAGE_SIZE as u16 | 4);
    put_u32(&mut page, PAGE_HEADER, AT as u32 | 1 << 15 | 32 << 17);
    put_u32(&mut page, AT + T_XMIN, xmin);
    put_u32(&mut page, AT + T_XMAX, xmax);
    put_u16(&mut page, AT + T_INFOMASK, infomask);
    put_u16(&mut page, AT + T_INFOMASK2, HEAP_KEYS_UPDATED | 3);
    page
}

/// Settles for a cut with 100 and 105 in flight; returns whether it changed, xmax and infomask.
fn settled(mut page: Vec<u8>) -> (bool, u32, u16) {
    let cut = InFlight::new(vec![100, 105], 110);
    let mut known = Known(
        vec![(50, Some(100)), (51, Some(90)), (52, None), (53, Some(91))],
        vec![90, 100],
    );
    let changed = settle_page(&mut page, &cut, 50, &mut known).unwrap();
    let again = settle_page(&mut page, &cut, 50, &mut known).unwrap();
    assert!(!again, "settled twice");
    (
        changed,
        get_u32(&page, AT + T_XMAX),
        get_u16(&page, AT + T_INFOMASK),
    )
}

#[test]
fn an_insert_in_flight_is_aborted_even_when_hinted_committed() {
    let expect = HEAP_XMIN_INVALID | HEAP_XMAX_INVALID;
    assert_eq!(settled(page(100, 0, HEAP_XMAX_INVALID)), (true, 0, expect));
    assert_eq!(
        settled(page(105, 0, HEAP_XMAX_INVALID | HEAP_XMIN_COMMITTED)),
        (true, 0, expect)
    );
}

#[test]
fn what_was_not_in_flight_stays() {
    let mask = HEAP_XMIN_COMMITTED | HEAP_XMAX_INVALID;
    assert_eq!(settled(page(99, 0, mask)), (false, 0, mask));
    assert_eq!(
        settled(page(103, 104, HEAP_XMIN_COMMITTED)),
        (false, 104, HEAP_XMIN_COMMITTED)
    );
    let frozen = HEAP_XMIN_FROZEN | HEAP_XMAX_INVALID;
    assert_eq!(settled(page(100, 0, frozen)), (false, 0, frozen));
}

#[test]
fn updates_and_locks_in_flight_are_undone() {
    let expect = (true, 0, HEAP_XMIN_COMMITTED | HEAP_XMAX_INVALID);
    for mask in [
        0,
        HEAP_XMAX_COMMITTED,
        HEAP_XMAX_LOCK_ONLY | HEAP_XMAX_EXCL_LOCK,
    ] {
        assert_eq!(settled(page(9, 105, mask | HEAP_XMIN_COMMITTED)), expect);
    }
}

#[test]
fn multixacts_keep_a_committed_updater_and_nothing_else() {
    let multi = HEAP_XMIN_COMMITTED | HEAP_XMAX_IS_MULTI;
    let undone = (true, 0, HEAP_XMIN_COMMITTED | HEAP_XMAX_INVALID);
    assert_eq!(settled(page(9, 50, multi)), undone, "updater in flight");
    assert_eq!(
        settled(page(9, 51, multi)),
        (true, 90, HEAP_XMIN_COMMITTED | HEAP_XMAX_COMMITTED)
    );
    assert_eq!(settled(page(9, 52, multi | HEAP_XMAX_LOCK_ONLY)), undone);
    assert_eq!(settled(page(9, 53, multi)), undone, "updater aborted");
    assert_eq!(
        settled(page(9, 49, multi)),
        (false, 49, multi),
        "older than any that ran"
    );
}

#[test]
fn hostile_bytes_do_not_panic() {
    let cut = InFlight::new((3..200).collect(), 200);
    let mut random = 88172645463325252u64;
    for _ in 0..300 {
        let mut bytes = page(100, 100, 0);
        for _ in 0..200 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = random as usize % 512;
            bytes[if random & 1 << 40 == 0 {
                at
            } else {
                PAGE_SIZE - 1 - at
            }] = (random >> 32) as u8;
        }
        let _ = settle_page(&mut bytes, &cut, 0, &mut Known(vec![], vec![]));
    }
}
