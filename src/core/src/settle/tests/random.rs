//! Random pages against a second implementation written for clarity, and
//! hostile bytes.

use super::*;

/// xorshift64*, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
    fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }
}

/// The rules of D6 once more, tuple by tuple, without any short cut.
fn naive(tuple: Tuple, cut: &[u32], oldest_multi: u32, multis: &mut Model) -> Tuple {
    let has = |bits: u16| tuple.infomask & bits == bits;
    let mut after = tuple;
    if cut.contains(&tuple.xmin) && !has(HEAP_XMIN_FROZEN) {
        after.infomask = after.infomask & !HEAP_XMIN_COMMITTED | HEAP_XMIN_INVALID;
    }
    let is_multi = has(HEAP_XMAX_IS_MULTI);
    let settle = match is_multi {
        true => tuple.xmax.wrapping_sub(oldest_multi) < 1 << 31,
        false => cut.contains(&tuple.xmax),
    };
    if settle {
        let updater = match is_multi && !has(HEAP_XMAX_LOCK_ONLY) && !has(HEAP_XMAX_INVALID) {
            true => multis.updaters[&tuple.xmax],
            false => None,
        };
        after.infomask &= !0x1cd0;
        match updater {
            Some(xid) if !cut.contains(&xid) && !multis.aborted.contains(&xid) => {
                after.xmax = xid;
                after.infomask |= HEAP_XMAX_COMMITTED;
            }
            _ => {
                after.xmax = 0;
                after.infomask |= HEAP_XMAX_INVALID;
                after.infomask2 &= !0x6000;
            }
        }
    }
    after
}

#[test]
fn agrees_with_the_naive_implementation() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..3000 {
        // Near the wraparound of both counters, or far from it.
        let next = [1000, 30, 3_000_000_000, 0x8000_0010][round % 4];
        let near = |random: &mut Random| {
            let xid = u32::wrapping_sub(next, random.below(80));
            if xid < 3 {
                3
            } else {
                xid
            }
        };
        let oldest_multi = u32::wrapping_sub(next, 40);
        let mut in_flight: Vec<u32> = Vec::new();
        for _ in 0..1 + random.below(8) {
            in_flight.push(near(&mut random));
        }
        let mut multis = Model::default();
        for _ in 0..10 {
            let xid = near(&mut random);
            multis.aborted.push(xid);
        }
        for back in 0..100 {
            let updater = (random.below(3) > 0).then(|| near(&mut random));
            multis
                .updaters
                .insert(u32::wrapping_sub(next, back), updater);
        }
        multis.updaters.insert(0, None);
        let tuples: Vec<Tuple> = (0..random.below(100))
            .map(|_| Tuple {
                xmin: near(&mut random),
                xmax: if random.below(4) == 0 {
                    0
                } else {
                    near(&mut random)
                },
                infomask: random.next() as u16,
                infomask2: random.next() as u16,
            })
            .map(|t| {
                let no_multi = t.xmax == 0;
                Tuple {
                    infomask: if no_multi {
                        t.infomask & !HEAP_XMAX_IS_MULTI
                    } else {
                        t.infomask
                    },
                    ..t
                }
            })
            .collect();
        let expected: Vec<Tuple> = tuples
            .iter()
            .map(|&tuple| naive(tuple, &in_flight, oldest_multi, &mut multis))
            .collect();
        let mut page = build(&tuples);
        let set = InFlight::new(in_flight, next);
        let concerned = concerns(&page, &set, oldest_multi);
        let changed = settle_page(&mut page, &set, oldest_multi, &mut multis).unwrap();
        assert!(concerned || !changed, "round {round}");
        assert!(page == build(&expected), "round {round}");
        assert_eq!(changed, tuples != expected);
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random(42);
    let mut looked_at = 0;
    for _ in 0..3000 {
        let mut page: Vec<u8> = (0..PAGE_SIZE / 4)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        // Mostly with a header that gets past the first test.
        if random.below(8) > 0 {
            put_u16(&mut page, PD_FLAGS, random.below(8) as u16);
            put_u16(&mut page, PD_SPECIAL, PAGE_SIZE as u16);
            put_u16(&mut page, PD_PAGESIZE_VERSION, 0x2004);
            let lower = 24 + random.below(8169);
            put_u16(&mut page, PD_LOWER, lower as u16);
            put_u16(
                &mut page,
                PD_UPPER,
                (lower + random.below(8193 - lower)) as u16,
            );
        }
        looked_at += usize::from(is_heap_page(&page));
        let xids = (0..1000).map(|_| random.next()).collect();
        let set = InFlight::new(xids, random.next());
        let _ = settle_page(&mut page, &set, random.next(), &mut Model::default());
    }
    assert!(looked_at > 2000);
}
