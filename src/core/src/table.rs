//! A fixed table of records, found by number and by group, in memory that the caller lends.
//!
//! The registry in shared memory is one: forks and layers by their numbers, grouped by their
//! source. Two chained hash indexes; nothing here grows, allocates, or holds a pointer.

/// What the table asks of its records.
pub trait Record: Copy {
    /// Unique in the table; not 0.
    fn number(&self) -> u32;
    fn group(&self) -> u32;
}

/// Where lists begin. All zero at the start.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Head {
    /// Rows that were ever used: those past it need no look.
    high: u32,
    /// The first free row below `high`, plus one; linked by `next`.
    free: u32,
    used: u32,
}

/// A place for a record. All zero at the start.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Row<R> {
    used: u32,
    /// The next row with this hash of the number, plus one.
    next: u32,
    /// The next row with this hash of the group, plus one.
    next_in_group: u32,
    record: R,
}

/// The table, to read.
#[derive(Clone, Copy)]
pub struct Table<'a, R> {
    head: &'a Head,
    buckets: &'a [u32],
    rows: &'a [Row<R>],
}

/// The table, to change.
pub struct TableMut<'a, R> {
    head: &'a mut Head,
    buckets: &'a mut [u32],
    rows: &'a mut [Row<R>],
}

/// Words of buckets that a table of so many rows wants.
pub fn bucket_count(rows: usize) -> usize {
    rows.max(16).next_power_of_two() * 2
}

fn bucket(buckets: usize, value: u32, by_group: bool) -> usize {
    let half = buckets / 2;
    let hash = (u64::from(value).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
    hash % half + usize::from(by_group) * half
}

impl<'a, R: Record> Table<'a, R> {
    pub fn new(head: &'a Head, buckets: &'a [u32], rows: &'a [Row<R>]) -> Self {
        Table {
            head,
            buckets,
            rows,
        }
    }

    /// Records in the table.
    pub fn len(&self) -> usize {
        self.head.used as usize
    }

    pub fn is_empty(&self) -> bool {
        self.head.used == 0
    }

    pub fn get(&self, number: u32) -> Option<&'a R> {
        let at = find(self.buckets, self.rows, number)?;
        Some(&self.rows[at].record)
    }

    /// The records of a group, in no order.
    pub fn group(&self, group: u32) -> impl Iterator<Item = &'a R> {
        let rows = self.rows;
        let mut at = self.buckets[bucket(self.buckets.len(), group, true)];
        std::iter::from_fn(move || {
            while at != 0 {
                let row = &rows[at as usize - 1];
                at = row.next_in_group;
                if row.record.group() == group {
                    return Some(&row.record);
                }
            }
            None
        })
    }

    /// All records, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &'a R> {
        let rows = &self.rows[..self.head.high as usize];
        rows.iter()
            .filter(|row| row.used != 0)
            .map(|row| &row.record)
    }
}

fn find<R: Record>(buckets: &[u32], rows: &[Row<R>], number: u32) -> Option<usize> {
    let mut at = buckets[bucket(buckets.len(), number, false)];
    while at != 0 {
        let row = &rows[at as usize - 1];
        if row.record.number() == number {
            return Some(at as usize - 1);
        }
        at = row.next;
    }
    None
}

impl<'a, R: Record> TableMut<'a, R> {
    pub fn new(head: &'a mut Head, buckets: &'a mut [u32], rows: &'a mut [Row<R>]) -> Self {
        TableMut {
            head,
            buckets,
            rows,
        }
    }

    /// The table, to read.
    pub fn view(&self) -> Table<'_, R> {
        Table::new(self.head, self.buckets, self.rows)
    }

    /// Puts a record in; `false` if there is no room. Its number must not be in the table.
    pub fn insert(&mut self, record: R) -> bool {
        let at = match self.head.free {
            0 if (self.head.high as usize) < self.rows.len() => {
                self.head.high += 1;
                self.head.high as usize - 1
            }
            0 => return false,
            free => {
                self.head.free = self.rows[free as usize - 1].next;
                free as usize - 1
            }
        };
        let by_number = bucket(self.buckets.len(), record.number(), false);
        let by_group = bucket(self.buckets.len(), record.group(), true);
        self.rows[at] = Row {
            used: 1,
            next: self.buckets[by_number],
            next_in_group: self.buckets[by_group],
            record,
        };
        self.buckets[by_number] = at as u32 + 1;
        self.buckets[by_group] = at as u32 + 1;
        self.head.used += 1;
        true
    }

    /// Changes a record in place. Number and group must stay what they are.
    pub fn update<T>(&mut self, number: u32, what: impl FnOnce(&mut R) -> T) -> Option<T> {
        let at = find(self.buckets, self.rows, number)?;
        let group = self.rows[at].record.group();
        let result = what(&mut self.rows[at].record);
        debug_assert!(
            self.rows[at].record.number() == number && self.rows[at].record.group() == group
        );
        Some(result)
    }

    /// Takes a record out.
    pub fn remove(&mut self, number: u32) -> Option<R> {
        let at = find(self.buckets, self.rows, number)?;
        let row = self.rows[at];
        let me = at as u32 + 1;
        let by_number = bucket(self.buckets.len(), number, false);
        if self.buckets[by_number] == me {
            self.buckets[by_number] = row.next;
        } else {
            let mut prev = self.buckets[by_number] as usize - 1;
            while self.rows[prev].next != me {
                prev = self.rows[prev].next as usize - 1;
            }
            self.rows[prev].next = row.next;
        }
        let by_group = bucket(self.buckets.len(), row.record.group(), true);
        if self.buckets[by_group] == me {
            self.buckets[by_group] = row.next_in_group;
        } else {
            let mut prev = self.buckets[by_group] as usize - 1;
            while self.rows[prev].next_in_group != me {
                prev = self.rows[prev].next_in_group as usize - 1;
            }
            self.rows[prev].next_in_group = row.next_in_group;
        }
        self.rows[at].used = 0;
        self.rows[at].next = self.head.free;
        self.head.free = me;
        self.head.used -= 1;
        Some(row.record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Pair(u32, u32, u64);

    impl Record for Pair {
        fn number(&self) -> u32 {
            self.0
        }
        fn group(&self) -> u32 {
            self.1
        }
    }

    /// Random inserts, updates and removals against a plain map, in a table that fills up.
    #[test]
    fn behaves_like_a_map() {
        let mut seed = 42u64;
        let mut random = move |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut head, mut rows) = (Head::default(), vec![Row::<Pair>::default(); 40]);
        let mut buckets = vec![0; bucket_count(8)];
        let mut model = BTreeMap::new();
        for step in 0..20_000u64 {
            let mut table = TableMut::new(&mut head, &mut buckets, &mut rows);
            let number = random(60) as u32 + 1;
            match random(3) {
                0 if !model.contains_key(&number) => {
                    let pair = Pair(number, random(6) as u32, step);
                    assert_eq!(table.insert(pair), model.len() < 40);
                    if model.len() < 40 {
                        model.insert(number, pair);
                    }
                }
                1 => assert_eq!(table.remove(number), model.remove(&number)),
                _ => {
                    let changed = table.update(number, |pair| pair.2 = step);
                    assert_eq!(changed.is_some(), model.contains_key(&number));
                    if let Some(pair) = model.get_mut(&number) {
                        pair.2 = step;
                    }
                }
            }
            let view = table.view();
            assert_eq!(view.len(), model.len());
            assert_eq!(view.get(number), model.get(&number));
            let group = random(6) as u32;
            let mut found: Vec<_> = view.group(group).copied().collect();
            found.sort_by_key(|pair| pair.0);
            let wanted: Vec<_> = model.values().filter(|p| p.1 == group).copied().collect();
            assert_eq!(found, wanted);
            let mut all: Vec<_> = view.iter().copied().collect();
            all.sort_by_key(|pair| pair.0);
            assert_eq!(all, model.values().copied().collect::<Vec<_>>());
        }
    }
}
