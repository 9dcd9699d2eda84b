//! The rows of a pair of tables that are not the very same tuple on both sides, matched.

use super::columns::{self, Column, Compare, Shape};
use super::compare::Digests;
use super::heads::{Head, Leaf};
use super::side::{Plan, Side};
use super::sort::{Shown, Sort};
use super::tables::{Both, Pair};
use super::values::{Values, LARGE};
use crate::reader::{damaged, relation, visible, At};
use pg_fork_core::matching::Change;
use pg_fork_core::pages::heap::Tuple;
use pg_fork_core::types::{Block, Page, PAGE_SIZE};
use std::collections::HashMap;
use std::rc::Rc;

/// Tuples that are looked at to find out what an added column began with.
const SAMPLE: usize = 1000;

/// Compares the rows of a pair, and calls `each` with what became of those that are not as they were, and of
/// how many. `show`: as JSON; else they are only counted.
pub fn compare(both: &Both, pair: &Pair, show: bool, each: impl FnMut(Change<Shown>, u64)) {
    let heads = (pair.now.as_ref(), pair.base.as_ref());
    let (now, base) = (
        both.columns(At::Now, heads.0),
        both.columns(At::Cut, heads.1),
    );
    let values = (
        Values::new(&both.now, both.encoding),
        Values::new(&both.base, both.encoding),
    );
    let shape = shape(both, heads, &now, &base);
    let digests = Digests::new();
    let added = match heads.0 {
        Some(head) => added(both, head, &now, &shape, &values.0),
        None => Vec::new(),
    };
    let name = |at: &usize| match heads.0 {
        Some(_) => now[shape.same[*at].0].name.clone(),
        None => base[shape.same[*at].1].name.clone(),
    };
    let key_names: Vec<Vec<u8>> = shape.key.iter().flatten().map(name).collect();
    let plan = |at: At, columns: Vec<Column>| {
        let place = |(now, base, compare): &(usize, usize, Compare)| match at {
            At::Now => (*now, *compare),
            At::Cut => (*base, *compare),
        };
        Rc::new(Plan {
            columns,
            image: shape.same.iter().map(place).collect(),
            key: shape.key.clone(),
            key_names: key_names.clone(),
            added: if at == At::Now {
                added.clone()
            } else {
                Vec::new()
            },
            show,
        })
    };
    let plans = (plan(At::Now, now), plan(At::Cut, base));
    let mut sort = Sort::new();
    for (now, base) in pair.leaves() {
        let side = |at: At, leaf: Option<Leaf>, head: Option<&Head>, plan: &Rc<Plan>| {
            let (leaf, head) = (leaf?, head?);
            let values = if at == At::Now { &values.0 } else { &values.1 };
            open(both, at, head, leaf, plan, values, &digests)
        };
        let sides = [
            side(At::Now, now, heads.0, &plans.0),
            side(At::Cut, base, heads.1, &plans.1),
        ];
        read(both, &sides, &mut |at, side, page, tuple| {
            sort.put(at, &side.row(page, tuple));
        });
    }
    sort.finish(each);
}

/// Which columns are the same on both sides, and which are the key.
fn shape(
    both: &Both,
    heads: (Option<&Head>, Option<&Head>),
    now: &[Column],
    base: &[Column],
) -> Shape {
    let key = |at: At, head: Option<&Head>| {
        head.and_then(|head| columns::key(both.catalogs(at), head.oid))
    };
    let keys = (key(At::Now, heads.0), key(At::Cut, heads.1));
    // Of a table that is on one side only, the other has the same columns and no row.
    let (now, base) = match heads {
        (Some(_), Some(_)) => (now, base),
        (Some(_), None) => (now, now),
        _ => (base, base),
    };
    let same_table = match heads {
        (Some(now), Some(base)) => now.oid == base.oid,
        _ => true,
    };
    let mut shape = columns::shape(now, base, same_table);
    columns::choose_key(&mut shape, (now, base), keys);
    shape
}

/// Opens and locks a leaf of a table.
pub fn open<'a>(
    both: &Both,
    at: At,
    head: &Head,
    leaf: Leaf,
    plan: &Rc<Plan>,
    values: &'a Values<'a>,
    digests: &Digests,
) -> Option<Side<'a>> {
    let catalogs = both.catalogs(at);
    let relation = relation::open(catalogs.db, leaf.oid)?;
    let numbers = columns::of_leaf(catalogs, head, leaf.oid, &plan.columns);
    Some(Side::new(
        relation, catalogs, values, plan, &numbers, digests,
    ))
}

/// The columns that the fork added, and what they began with; those of which nobody knows are left out.
fn added(
    both: &Both,
    head: &Head,
    columns: &[Column],
    shape: &Shape,
    values: &Values,
) -> Vec<(usize, Option<Vec<u8>>)> {
    if shape.added.is_empty() {
        return Vec::new();
    }
    let mut sampled: Option<Vec<Sampled>> = None;
    let mut known = Vec::new();
    for at in &shape.added {
        let column = &columns[*at];
        // A table that was not rewritten since still has it.
        if column.has_missing {
            let missing = super::side::missing(&both.now, head.oid, head.natts.max(0) as usize);
            let first = missing.get(column.number as usize - 1).copied().flatten();
            known.push((*at, first.map(|value| values.text(column.kind, value))));
            continue;
        }
        // Else all its first rows may still have what it began with.
        let sampled =
            sampled.get_or_insert_with(|| sample(both, head, columns, &shape.added, values));
        let at_first = shape
            .added
            .iter()
            .position(|it| it == at)
            .map(|n| &sampled[n]);
        // It began with a default that was dropped, or was filled in.
        let nothing = !column.has_default && column.not_null;
        let first = match at_first.and_then(Sampled::had_by_all) {
            Some(text) => Some(text),
            None if nothing => at_first.and_then(Sampled::had_by_most),
            None => {
                let default = columns::constant_default(&both.now, head.oid, column);
                let default = columns::first_text(values, column, default);
                // A default that no row has came later than the column.
                let later =
                    |text: &_| at_first.is_some_and(|sampled| !sampled.0.contains_key(text));
                match default {
                    Some(text) if later(&text) => {
                        at_first.and_then(Sampled::had_by_most).or(Some(text))
                    }
                    default => default,
                }
            }
        };
        known.extend(first.map(|first| (*at, first)));
    }
    known
}

/// How many of the first rows have each text of a column.
#[derive(Default)]
struct Sampled(HashMap<Option<Vec<u8>>, usize>);

impl Sampled {
    fn had_by_all(&self) -> Option<Option<Vec<u8>>> {
        match self.0.len() {
            1 => self.0.keys().next().cloned(),
            _ => None,
        }
    }

    /// By more than half of them.
    fn had_by_most(&self) -> Option<Option<Vec<u8>>> {
        let rows: usize = self.0.values().sum();
        let most = self.0.iter().find(|(_, count)| **count * 2 > rows);
        most.map(|(text, _)| text.clone())
    }
}

/// Reads the first rows of the table, for what each of these columns has in them.
fn sample(
    both: &Both,
    head: &Head,
    columns: &[Column],
    wanted: &[usize],
    values: &Values,
) -> Vec<Sampled> {
    let plan = Rc::new(Plan {
        columns: columns.to_vec(),
        image: Vec::new(),
        key: None,
        key_names: Vec::new(),
        added: Vec::new(),
        show: false,
    });
    let mut found: Vec<Sampled> = wanted.iter().map(|_| Sampled::default()).collect();
    let (mut page, mut tuples) = (Box::new([0; PAGE_SIZE]), Vec::new());
    let (mut count, mut bytes) = (0, 0);
    for leaf in &head.leaves {
        let Some(side) = open(both, At::Now, head, *leaf, &plan, values, &Digests::new()) else {
            continue;
        };
        for block in 0..side.relation.pages.count() {
            if count >= SAMPLE || bytes > LARGE {
                break;
            }
            read_block(both, &side, block, &mut page, &mut tuples);
            for tuple in &tuples {
                count += 1;
                side.with_row(&page, tuple, |_, row| {
                    for (n, column) in wanted.iter().enumerate() {
                        let text =
                            row[*column].map(|value| values.text(columns[*column].kind, value));
                        bytes += text.as_ref().map_or(0, Vec::len);
                        *found[n].0.entry(text).or_default() += 1;
                    }
                });
            }
        }
    }
    found
}

fn read_block(both: &Both, side: &Side, block: Block, page: &mut Page, tuples: &mut Vec<Tuple>) {
    pgrx::check_for_interrupts!();
    let relation = &side.relation;
    relation.pages.read(block, std::ptr::null_mut(), page);
    if let Err(error) = visible::on_page(page, both.snapshot, tuples) {
        damaged(relation.db, relation.oid, error);
    }
}

/// Reads the relation on both sides, and calls `each` with the tuples that are not the very same.
pub fn read<'a>(
    both: &Both,
    sides: &[Option<Side<'a>>; 2],
    each: &mut dyn FnMut(At, &Side<'a>, &Page, &Tuple),
) {
    // They are locked, so that their files stay what they are.
    let blocks = match sides {
        [Some(now), Some(base)] => both.blocks(&now.relation.pages, &base.relation.pages),
        _ => None,
    };
    let lengths = sides
        .each_ref()
        .map(|side| side.as_ref().map_or(0, |side| side.relation.pages.count()));
    let all: Box<dyn Iterator<Item = Block>> = match &blocks {
        Some(blocks) => Box::new(blocks.iter().copied()),
        None => Box::new(0..lengths[0].max(lengths[1])),
    };
    let mut pages = [Box::new([0; PAGE_SIZE]), Box::new([0; PAGE_SIZE])];
    let mut tuples = [Vec::new(), Vec::new()];
    for block in all {
        for (n, side) in sides.iter().enumerate() {
            tuples[n].clear();
            if let Some(side) = side.as_ref().filter(|_| block < lengths[n]) {
                read_block(both, side, block, &mut pages[n], &mut tuples[n]);
            }
        }
        // The same file: tuples can be told by their places.
        if blocks.is_some() {
            leave_out_same(&pages, &mut tuples);
        }
        for (n, at) in [At::Now, At::Cut].into_iter().enumerate() {
            if let Some(side) = &sides[n] {
                tuples[n]
                    .iter()
                    .for_each(|tuple| each(at, side, &pages[n], tuple));
            }
        }
    }
}

/// A tuple in its place with the bytes it had is the row that it was: TOAST values are never changed
/// while a row has them.
fn leave_out_same(pages: &[Box<Page>; 2], tuples: &mut [Vec<Tuple>; 2]) {
    let bytes = |page: &Page, tuple: &Tuple| {
        // Behind t_hoff lie the null bitmap and the data; what is before is about visibility.
        let null = tuple.infomask & 1;
        let from = tuple.at + if null != 0 { 23 } else { tuple.hoff };
        (
            tuple.natts(),
            null,
            page[from..tuple.at + tuple.len].to_vec(),
        )
    };
    let base: HashMap<u16, _> = tuples[1]
        .iter()
        .map(|tuple| (tuple.number, bytes(&pages[1], tuple)))
        .collect();
    let same: Vec<u16> = tuples[0]
        .iter()
        .filter(|tuple| base.get(&tuple.number) == Some(&bytes(&pages[0], tuple)))
        .map(|tuple| tuple.number)
        .collect();
    for tuples in tuples {
        tuples.retain(|tuple| same.binary_search(&tuple.number).is_err());
    }
}
