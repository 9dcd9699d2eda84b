//! Which rows of two sides are the same row: by a key that may not be unique on either side. Of a table without
//! one the key is all that both sides have of a row, so that rows which differ in it are never the same row.
//!
//! Rows of one key that are the same on both sides cancel each other out; of what is left, as many as there
//! are on both sides are updates. So what is inserted less what is deleted is always the difference of the counts.

/// What became of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

/// A change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    Inserted(T),
    Updated(T, T),
    Deleted(T),
}

/// The rows of one key that had no equal on the other side, so far; each with how often it is there.
#[derive(Debug)]
pub struct Group<T> {
    now: Vec<(T, u64)>,
    cut: Vec<(T, u64)>,
}

fn count<T>(rows: &[(T, u64)]) -> u64 {
    rows.iter().map(|(_, count)| count).sum()
}

/// Takes so many off the end.
fn take<T: Clone>(rows: &mut Vec<(T, u64)>, mut wanted: u64) -> Vec<(T, u64)> {
    let mut taken = Vec::new();
    while wanted > 0 {
        let Some((row, count)) = rows.pop() else {
            break;
        };
        let off = count.min(wanted);
        wanted -= off;
        if count > off {
            rows.push((row.clone(), count - off));
        }
        taken.push((row, off));
    }
    taken
}

impl<T: Ord + Clone> Default for Group<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Ord + Clone> Group<T> {
    pub fn new() -> Self {
        let (now, cut) = (Vec::new(), Vec::new());
        Group { now, cut }
    }

    /// Adds the rows of one image: the same on both sides as far as there are as many.
    pub fn add(&mut self, mut now: Vec<(T, u64)>, mut cut: Vec<(T, u64)>) {
        // Which of the same rows are left must not depend on the order in which they came.
        now.sort();
        cut.sort();
        let (ours, theirs) = (count(&now), count(&cut));
        self.now.extend(take(&mut now, ours.saturating_sub(theirs)));
        self.cut.extend(take(&mut cut, theirs.saturating_sub(ours)));
    }

    /// What became of the group's rows and how often, whatever the order in which they came.
    pub fn changes(mut self) -> Vec<(Change<T>, u64)> {
        // The smallest come off the end first.
        self.now.sort_by(|a, b| b.cmp(a));
        self.cut.sort_by(|a, b| b.cmp(a));
        let mut found = Vec::new();
        let both = count(&self.now).min(count(&self.cut));
        let before = take(&mut self.cut, both);
        let mut after = take(&mut self.now, both);
        after.reverse();
        for (row, mut count) in before {
            while count > 0 {
                let Some((now, there)) = after.pop() else {
                    break;
                };
                let same = count.min(there);
                if there > same {
                    after.push((now.clone(), there - same));
                }
                count -= same;
                found.push((Change::Updated(row.clone(), now), same));
            }
        }
        let deleted = self
            .cut
            .into_iter()
            .rev()
            .map(|(row, count)| (Change::Deleted(row), count));
        found.extend(deleted);
        let inserted = self
            .now
            .into_iter()
            .rev()
            .map(|(row, count)| (Change::Inserted(row), count));
        found.extend(inserted);
        found
    }
}

impl Counts {
    pub fn add<T>(&mut self, change: &Change<T>, count: u64) {
        match change {
            Change::Inserted(_) => self.inserted += count,
            Change::Updated(..) => self.updated += count,
            Change::Deleted(_) => self.deleted += count,
        }
    }

    pub fn any(&self) -> bool {
        *self != Counts::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn changes(now: &[&'static str], cut: &[&'static str]) -> Vec<Change<&'static str>> {
        let mut images: BTreeMap<&str, [Vec<&'static str>; 2]> = BTreeMap::new();
        for (side, rows) in [now, cut].into_iter().enumerate() {
            for row in rows {
                images.entry(row).or_default()[side].push(row);
            }
        }
        let mut group = Group::new();
        for [now, cut] in images.into_values() {
            let counted = |rows: Vec<&'static str>| {
                let mut counted: Vec<(&'static str, u64)> = Vec::new();
                for row in rows {
                    match counted.last_mut() {
                        Some((last, count)) if *last == row => *count += 1,
                        _ => counted.push((row, 1)),
                    }
                }
                counted
            };
            group.add(counted(now), counted(cut));
        }
        let found = group.changes().into_iter();
        let each = found.flat_map(|(change, count)| std::iter::repeat_n(change, count as usize));
        each.collect()
    }

    #[test]
    fn a_key_that_was_not_unique() {
        use Change::*;
        let found = changes(&["21"], &["5", "7", "9"]);
        assert_eq!(found, [Updated("5", "21"), Deleted("7"), Deleted("9")]);
        assert_eq!(changes(&["5"], &["5"]), []);
    }

    #[test]
    fn inserted_less_deleted_is_the_difference_of_the_counts() {
        let mut seed = 1u64;
        let mut below = |n: u64| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..2000 {
            let mut side = || -> Vec<&'static str> {
                let rows = below(7);
                (0..rows)
                    .map(|_| ["a", "b", "c", "d"][below(4) as usize])
                    .collect()
            };
            let (now, cut) = (side(), side());
            let mut counts = Counts::default();
            let found = changes(&now, &cut);
            found.iter().for_each(|change| counts.add(change, 1));
            let difference = counts.inserted as i64 - counts.deleted as i64;
            assert_eq!(difference, now.len() as i64 - cut.len() as i64);
            // What is told turns the one into the other.
            let mut rows = cut.clone();
            let mut take = |row: &str| {
                let at = rows.iter().position(|it| *it == row).expect("it was there");
                rows.swap_remove(at);
            };
            let mut added = Vec::new();
            for change in found {
                match change {
                    Change::Deleted(row) => take(row),
                    Change::Inserted(row) => added.push(row),
                    Change::Updated(before, after) => {
                        assert_ne!(before, after);
                        take(before);
                        added.push(after);
                    }
                }
            }
            rows.extend(added);
            let sorted = |mut rows: Vec<&'static str>| {
                rows.sort();
                rows
            };
            assert_eq!(sorted(rows), sorted(now.clone()));
        }
    }
}
