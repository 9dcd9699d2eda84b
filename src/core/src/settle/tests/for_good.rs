//! Pages settled for good, against what scans would find before and after.

use super::super::for_good::{freeze_map, settle_for_good, tells};
use super::*;

const HEAP_ONLY: u16 = 0x8000;
const LIVE: u16 = HEAP_XMIN_FROZEN | HEAP_XMAX_INVALID;

/// Numbers that are odd aborted; multixacts from 10,000 on have their tenth as updater, others only lock.
struct Odd;

impl Multis for Odd {
    fn updater(&mut self, multi: u32) -> Result<Option<u32>, SettleError> {
        Ok((multi >= 10_000).then_some(multi / 10))
    }
    fn did_commit(&mut self, xid: u32) -> Result<bool, SettleError> {
        assert!((3..2000).contains(&xid), "asked for {xid}");
        Ok(xid.is_multiple_of(2))
    }
}

/// Whoever asks after that asks about a number that means nothing any more.
struct Nobody;

impl Multis for Nobody {
    fn updater(&mut self, multi: u32) -> Result<Option<u32>, SettleError> {
        panic!("asked for the multixact {multi}")
    }
    fn did_commit(&mut self, xid: u32) -> Result<bool, SettleError> {
        panic!("asked for {xid}")
    }
}

fn version(page: &mut [u8], n: usize, next: usize) {
    let at = PAGE_SIZE - (n + 1) * SLOT;
    put_u16(page, at + 16, next as u16 + 1);
}

/// Whether everyone sees the tuple, and where its chain goes on: heapam_visibility.c, `HeapTupleSatisfiesMVCC`, and
/// heapam.c, `heap_hot_search_buffer`.
fn seen(page: &[u8], at: usize, ends: &mut dyn Multis) -> (bool, Option<(usize, u32)>) {
    let mask = get_u16(page, at + T_INFOMASK);
    let (xmin, xmax) = (get_u32(page, at + T_XMIN), get_u32(page, at + T_XMAX));
    let inserted = match mask & HEAP_XMIN_FROZEN {
        HEAP_XMIN_INVALID => false,
        0 => ends.did_commit(xmin).unwrap(),
        _ => true,
    };
    let locked = mask & HEAP_XMAX_LOCK_ONLY != 0;
    let updater = match mask & HEAP_XMAX_IS_MULTI {
        _ if mask & HEAP_XMAX_INVALID != 0 || locked => None,
        0 => Some(xmax),
        _ => ends.updater(xmax).unwrap(),
    };
    let hinted = mask & HEAP_XMAX_COMMITTED != 0;
    let gone = updater.is_some_and(|xid| hinted || ends.did_commit(xid).unwrap());
    let hot = get_u16(page, at + T_INFOMASK2) & HEAP_HOT_UPDATED != 0;
    // Whoever finds that the inserter has aborted says so first.
    let next = updater.filter(|_| hot && inserted);
    let next = next.map(|xid| (usize::from(get_u16(page, at + 16)) - 1, xid));
    (inserted && !gone, next)
}

/// The line pointer of the version that an index entry to `root` leads to.
fn found(page: &[u8], root: usize, ends: &mut dyn Multis) -> Option<usize> {
    let word = get_u32(page, PAGE_HEADER + root * LINE_POINTER);
    let mut line = match word >> 15 & 3 {
        2 => (word & 0x7fff) as usize - 1,
        _ => root,
    };
    let mut before = None;
    loop {
        let at = tuple_at(page, line)?;
        let frozen = get_u16(page, at + T_INFOMASK) & HEAP_XMIN_FROZEN == HEAP_XMIN_FROZEN;
        let xmin = if frozen {
            2
        } else {
            get_u32(page, at + T_XMIN)
        };
        if before.is_some_and(|before| before != xmin) {
            return None;
        }
        let (is_seen, next) = seen(page, at, ends);
        if is_seen {
            return Some(line);
        }
        let (then, by) = next?;
        (line, before) = (then, Some(by));
    }
}

#[test]
fn each_form_of_a_tuple() {
    let settled = |tuple: Tuple| {
        let mut page = build(&[tuple]);
        settle_for_good(&mut page, &mut Odd).unwrap();
        assert!(!tells(&page) && !settle_for_good(&mut page, &mut Nobody).unwrap());
        tuple_of(&page, 0)
    };
    let live = |xmin, infomask| Tuple::inserted(xmin, infomask | HEAP_XMIN_FROZEN);
    let gone = Tuple::inserted(0, HEAP_XMIN_INVALID);
    // Whatever hints there are.
    assert_eq!(settled(Tuple::inserted(12, 0)), live(12, 0));
    assert_eq!(
        settled(Tuple::inserted(13, HEAP_XMIN_COMMITTED)),
        live(13, 0)
    );
    assert_eq!(settled(Tuple::inserted(2, 0)), live(2, 0));
    assert_eq!(settled(Tuple::inserted(13, 0)), gone);
    assert_eq!(settled(Tuple::inserted(12, HEAP_XMIN_INVALID)), gone);
    assert_eq!(settled(Tuple::inserted(0, 0)), gone);
    let left = |xmax, infomask| {
        settled(Tuple {
            infomask2: 3,
            ..Tuple::with_xmax(xmax, infomask)
        })
    };
    let there = Tuple {
        infomask2: 3,
        ..live(10, 0)
    };
    let gone = Tuple {
        infomask2: 3,
        ..gone
    };
    assert_eq!(left(14, 0), gone);
    assert_eq!(left(15, 0), there);
    assert_eq!(left(15, HEAP_XMAX_COMMITTED), gone);
    assert_eq!(left(15, HEAP_XMAX_INVALID), there);
    assert_eq!(left(14, HEAP_XMAX_LOCK_ONLY | HEAP_XMAX_EXCL_LOCK), there);
    assert_eq!(left(14, HEAP_XMAX_EXCL_LOCK), there);
    assert_eq!(left(500, HEAP_XMAX_IS_MULTI), there);
    assert_eq!(left(500, HEAP_XMAX_IS_MULTI | HEAP_XMAX_LOCK_ONLY), there);
    assert_eq!(left(10_140, HEAP_XMAX_IS_MULTI), gone);
    assert_eq!(left(10_150, HEAP_XMAX_IS_MULTI), there);
    // Moved by a server before 9.0: left to this one.
    let moved = Tuple::inserted(12, 0x4000);
    assert_eq!(settled(moved), moved);
}

#[test]
fn the_root_of_a_chain_leads_to_its_last_version() {
    let chain = |last: Tuple| {
        let root = Tuple {
            xmax: 20,
            infomask: 0,
            infomask2: HEAP_HOT_UPDATED,
            ..Tuple::inserted(10, 0)
        };
        // By a multixact.
        let middle = Tuple {
            xmin: 20,
            xmax: 10_220,
            infomask: HEAP_XMAX_IS_MULTI | HEAP_XMIN_COMMITTED,
            infomask2: HEAP_ONLY | HEAP_HOT_UPDATED,
        };
        let last = Tuple {
            infomask2: HEAP_ONLY,
            ..last
        };
        let mut page = build(&[Tuple::inserted(12, 0), root, last, middle]);
        version(&mut page, 1, 3);
        version(&mut page, 3, 2);
        page
    };
    let mut page = chain(Tuple::inserted(1022, 0));
    assert_eq!(found(&page, 1, &mut Odd), Some(2));
    assert!(settle_for_good(&mut page, &mut Odd).unwrap());
    assert_eq!(get_u32(&page, PAGE_HEADER + LINE_POINTER), 3 | 2 << 15);
    assert_eq!(found(&page, 1, &mut Nobody), Some(2));
    assert_eq!(tuple_of(&page, 2).infomask, LIVE);
    // Deleted at last.
    let mut page = chain(Tuple {
        xmax: 30,
        infomask: 0,
        ..Tuple::inserted(1022, 0)
    });
    assert!(settle_for_good(&mut page, &mut Odd).unwrap());
    assert_eq!(found(&page, 1, &mut Nobody), None);
    // A chain of another row, in the place that this one's went on at.
    let mut page = chain(Tuple::inserted(1024, 0));
    assert_eq!(found(&page, 1, &mut Odd), None);
    assert!(settle_for_good(&mut page, &mut Odd).unwrap());
    assert_eq!(found(&page, 1, &mut Nobody), None);
}

/// Chains of all lengths and ends, some begun by a redirect.
#[test]
fn whatever_was_found_is_found_again() {
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) % below
    };
    let mut redirected = 0;
    for _ in 0..3000 {
        let lines = 1 + random(40) as usize;
        let mut tuples = Vec::new();
        let mut links = Vec::new();
        let mut xmin = None;
        for line in 0..lines {
            let hints = [0, HEAP_XMIN_COMMITTED, HEAP_XMIN_FROZEN];
            let heap_only = xmin.is_some();
            let own = xmin.take().unwrap_or_else(|| 4 + random(900) as u32 * 2);
            let mut tuple = Tuple::inserted(own, hints[random(2 + u64::from(!heap_only)) as usize]);
            if random(6) == 0 && !heap_only {
                tuple = Tuple::inserted(own + 1, 0);
            }
            tuple.infomask2 = if heap_only { HEAP_ONLY } else { 0 };
            if random(2) == 0 {
                let by = 4 + random(1900) as u32;
                let multi = random(4) == 0;
                tuple.xmax = if multi { by * 10 + 10_000 } else { by };
                let by = if multi { by + 1000 } else { by };
                tuple.infomask &= !HEAP_XMAX_INVALID;
                tuple.infomask |= if multi { HEAP_XMAX_IS_MULTI } else { 0 };
                if by < 2000 && random(4) > 0 && line + 1 < lines {
                    tuple.infomask2 |= HEAP_HOT_UPDATED;
                    links.push(line);
                    xmin = Some(by);
                } else if by >= 2000 {
                    tuple = Tuple::inserted(own, HEAP_XMIN_COMMITTED);
                    tuple.infomask2 = if heap_only { HEAP_ONLY } else { 0 };
                }
            }
            tuples.push(tuple);
        }
        let mut page = build(&tuples);
        for line in &links {
            version(&mut page, *line, line + 1);
            // Roots that were pruned away before.
            if random(5) == 0 && tuples[*line].infomask2 & HEAP_ONLY == 0 {
                put_line(&mut page, *line, line + 2, 2, 0);
            }
        }
        let roots = (0..lines).filter(|line| tuples[*line].infomask2 & HEAP_ONLY == 0);
        let roots: Vec<usize> = roots.collect();
        let before: Vec<_> = roots
            .iter()
            .map(|root| found(&page, *root, &mut Odd))
            .collect();
        settle_for_good(&mut page, &mut Odd).unwrap();
        let after: Vec<_> = roots
            .iter()
            .map(|root| found(&page, *root, &mut Nobody))
            .collect();
        assert_eq!(before, after, "{tuples:?}");
        assert!(!tells(&page) && !settle_for_good(&mut page, &mut Nobody).unwrap());
        redirected += before
            .iter()
            .zip(&roots)
            .filter(|(found, root)| found.is_some_and(|found| found != **root))
            .count();
        // A scan of all tuples finds no others.
        for (line, at) in tuples_of(&page) {
            let (is_seen, _) = seen(&page, at, &mut Nobody);
            assert_eq!(
                is_seen,
                seen(&build(&tuples), at, &mut Odd).0,
                "line {line}"
            );
        }
    }
    assert!(redirected > 1000, "{redirected}");
}

fn tuples_of(page: &[u8]) -> Vec<(usize, usize)> {
    super::super::page::tuples(page).collect()
}

#[test]
fn hostile_pages_come_to_no_harm() {
    let mut seed = 3_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    struct Any(u64);
    impl Multis for Any {
        fn updater(&mut self, multi: u32) -> Result<Option<u32>, SettleError> {
            self.0 += 1;
            Ok((!self.0.is_multiple_of(3)).then_some(multi))
        }
        fn did_commit(&mut self, _: u32) -> Result<bool, SettleError> {
            self.0 += 1;
            Ok(self.0.is_multiple_of(2))
        }
    }
    for _ in 0..3000 {
        let mut page = build(&[Tuple::default(); 60]);
        for _ in 0..random() % 300 {
            let at = PAGE_HEADER + (random() as usize) % (PAGE_SIZE - PAGE_HEADER);
            page[at] = random() as u8;
        }
        if random() % 2 == 0 {
            put_u16(&mut page, PD_LOWER, (24 + random() % 8000) as u16);
        }
        let _ = settle_for_good(&mut page, &mut Any(0));
    }
}

#[test]
fn what_is_all_visible_is_all_frozen() {
    let mut page = vec![0; PAGE_SIZE];
    assert!(!freeze_map(&mut page), "a new page");
    put_u16(&mut page, PD_UPPER, PAGE_SIZE as u16);
    page[PAGE_HEADER] = 0b01_00_11_01;
    page[PAGE_SIZE - 1] = 0b01_01_01_01;
    assert!(freeze_map(&mut page));
    assert_eq!(page[PAGE_HEADER], 0b11_00_11_11);
    assert_eq!(page[PAGE_SIZE - 1], 0xFF);
    assert!(!freeze_map(&mut page));
}
