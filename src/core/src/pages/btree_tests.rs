//! Searches in trees that are built by hand, against a sorted list.

use super::btree::{search, Tid};
use super::Damaged;
use crate::types::{Page, PAGE_SIZE};

const LEAF: u16 = 1;
const META: u16 = 1 << 3;
const HALF_DEAD: u16 = 1 << 4;

struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }
}

fn page(next: u32, flags: u16, entries: &[Vec<u8>]) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut at = PAGE_SIZE - 16;
    page[at + 4..at + 8].copy_from_slice(&next.to_le_bytes());
    page[at + 12..at + 14].copy_from_slice(&flags.to_le_bytes());
    page[16..18].copy_from_slice(&(at as u16).to_le_bytes());
    for (n, entry) in entries.iter().enumerate() {
        at -= entry.len();
        page[at..at + entry.len()].copy_from_slice(entry);
        // LP_NORMAL; each third one LP_DEAD, as scans leave them behind.
        let flags = if n % 3 == 1 { 3 } else { 1 };
        let word = at as u32 | flags << 15 | (entry.len() as u32) << 17;
        page[24 + 4 * n..28 + 4 * n].copy_from_slice(&word.to_le_bytes());
    }
    page[12..14].copy_from_slice(&(24 + 4 * entries.len() as u16).to_le_bytes());
    page[14..16].copy_from_slice(&(at as u16).to_le_bytes());
    page
}

fn tid_bytes((block, number): Tid) -> Vec<u8> {
    let words = [(block >> 16) as u16, block as u16, number];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// t_tid, t_info, the key (padded to 8 bytes), and a posting list.
fn entry(tid: Tid, info: u16, key: Option<u32>, posting: &[Tid]) -> Vec<u8> {
    let size = if key.is_some() { 16 } else { 8 } + (6 * posting.len()).next_multiple_of(8);
    let mut entry = tid_bytes(tid);
    entry.extend((info | size as u16).to_le_bytes());
    entry.extend(key.iter().flat_map(|key| key.to_le_bytes()));
    entry.resize(if key.is_some() { 16 } else { 8 }, 0);
    entry.extend(posting.iter().flat_map(|tid| tid_bytes(*tid)));
    entry.resize(size, 0);
    entry
}

fn leaf_entry(key: u32, tids: &[Tid]) -> Vec<u8> {
    match tids {
        [tid] => entry(*tid, 0, Some(key), &[]),
        // INDEX_ALT_TID_MASK; BT_IS_POSTING, the list behind the key.
        tids => entry((16, tids.len() as u16 | 0x2000), 0x2000, Some(key), tids),
    }
}

/// An inner page's entry, or a high key: of one key column, or of none.
fn pivot(child: u32, key: Option<u32>) -> Vec<u8> {
    entry((child, u16::from(key.is_some())), 0x2000, key, &[])
}

/// A level's page: its block, and what its keys are not above.
type Link = (u32, Option<u32>);

/// Puts a level above `below`: some pages were split just now, and their parents do not know yet.
fn inner(pages: &mut Vec<Page>, below: &[Link], random: &mut Random) -> Vec<Link> {
    let mut level = Vec::new();
    let groups: Vec<_> = below.chunks(2 + random.below(5)).collect();
    for (n, group) in groups.iter().enumerate() {
        let last = n + 1 == groups.len();
        let high = group[group.len() - 1].1;
        let mut entries: Vec<_> = (!last).then(|| pivot(0, high)).into_iter().collect();
        entries.push(pivot(group[0].0, None));
        for pair in group.windows(2) {
            if random.below(4) > 0 {
                entries.push(pivot(pair[1].0, pair[0].1));
            }
        }
        let block = pages.len() as u32;
        let next = if last { 0 } else { block + 1 };
        pages.push(page(next, 0, &entries));
        level.push((block, if last { None } else { high }));
    }
    level
}

fn tree(rows: &[(u32, Tid)], random: &mut Random) -> Vec<Page> {
    let mut pages = vec![[0; PAGE_SIZE]];
    let mut groups = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let (group, after) = rest.split_at((1 + random.below(12)).min(rest.len()));
        groups.push(group);
        rest = after;
    }
    let mut level = Vec::new();
    for (n, group) in groups.iter().enumerate() {
        let next_key = groups.get(n + 1).map(|next| next[0].0);
        if random.below(6) == 0 {
            // A page that is being deleted: empty, and passed by.
            let block = pages.len() as u32;
            pages.push(page(
                block + 1,
                LEAF | HALF_DEAD,
                &[pivot(0, Some(group[0].0))],
            ));
            level.push((block, Some(group[0].0)));
        }
        let mut entries: Vec<_> = next_key
            .map(|key| pivot(0, Some(key)))
            .into_iter()
            .collect();
        for same in group.chunk_by(|a, b| a.0 == b.0) {
            let tids: Vec<_> = same.iter().map(|row| row.1).collect();
            for tids in tids.chunks(1 + random.below(4)) {
                entries.push(leaf_entry(same[0].0, tids));
            }
        }
        let block = pages.len() as u32;
        let next = next_key.map_or(0, |_| block + 1);
        pages.push(page(next, LEAF, &entries));
        level.push((block, next_key));
    }
    while level.len() > 1 {
        level = inner(&mut pages, &level, random);
    }
    let mut meta = page(0, META, &[]);
    meta[24..28].copy_from_slice(&0x0005_3162_u32.to_le_bytes());
    let root = level.first().map_or(0, |root| root.0);
    meta[32..36].copy_from_slice(&root.to_le_bytes());
    pages[0] = meta;
    pages
}

#[test]
fn all_rows_of_a_key_are_found_in_order() {
    for seed in 1..400 {
        let mut random = Random(seed * 7919);
        let count = random.below(300);
        let mut rows: Vec<(u32, Tid)> = (0..count)
            .map(|_| {
                let key = 10 + random.below(40) as u32 * 3;
                (
                    key,
                    (random.below(200_000) as u32, 1 + random.below(200) as u16),
                )
            })
            .collect();
        rows.sort();
        rows.dedup();
        let pages = tree(&rows, &mut random);
        for key in 0..140 {
            let found = search(key, pages.len() as u32, |block, step| {
                step(pages.get(block as usize).ok_or(Damaged("past the end"))?);
                Ok::<_, Damaged>(())
            });
            let expected = rows.iter().filter(|row| row.0 == key).map(|row| row.1);
            assert_eq!(found, Ok(expected.collect()), "seed {seed}, key {key}");
        }
    }
}
