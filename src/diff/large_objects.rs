//! The large objects that a fork changed: counted by object, not by the pages that they are kept in
//! (pg_largeobject.h).
#![allow(unsafe_code)] // rows of catalogs

use super::columns;
use super::compare::Digests;
use super::heads::{Head, Leaf};
use super::rows;
use super::side::Plan;
use super::tables::Both;
use super::values::{bytes_of, Values};
use crate::reader::rights::Reader;
use crate::reader::At;
use pg_fork_core::matching::Counts;
use pgrx::pg_sys;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;

/// pg_largeobject: loid, pageno, data; pg_largeobject_metadata: oid first (pg_largeobject_metadata.h).
const PAGES: u32 = 2613;
const OBJECTS: u32 = 2995;

/// What a fork did to its large objects; `counts` is null for a role that may not read them.
pub struct Objects {
    pub counts: Option<Counts>,
    pub blocks: u64,
}

/// A side's two catalogs.
type Catalog = (At, Option<Head>, Option<Head>);
type Heads = [Catalog; 2];

/// `None`: nothing that may differ.
pub fn changes(both: &Both) -> Option<Objects> {
    let heads = [At::Now, At::Cut].map(|at| (at, head(both, at, PAGES), head(both, at, OBJECTS)));
    let blocks = |of: fn(&Catalog) -> Option<Leaf>| -> Option<u64> {
        let [now, base] = [of(&heads[0])?, of(&heads[1])?];
        let pages = (both.now.file(now.file), both.base.file(base.file));
        let blocks = both.blocks(&pages.0, &pages.1);
        Some(blocks.map_or_else(|| u64::from(pages.0.count()), |blocks| blocks.len() as u64))
    };
    let pages = blocks(|(_, pages, _)| leaf(pages))?;
    let objects = blocks(|(_, _, objects)| leaf(objects))?;
    if pages + objects == 0 {
        return None;
    }
    let readable = heads
        .iter()
        .all(|(_, pages, _)| pages.as_ref().is_some_and(|head| head.readable));
    let counts = readable.then(|| {
        let [now, base] = sets(both, &heads);
        let mut changed = changed(both, &heads);
        changed.retain(|object| !now.contains(object) && !base.contains(object));
        Counts {
            inserted: now.len() as u64,
            updated: changed.len() as u64,
            deleted: base.len() as u64,
        }
    });
    let told = counts.as_ref().is_none_or(Counts::any);
    told.then_some(Objects {
        counts,
        blocks: pages,
    })
}

fn leaf(head: &Option<Head>) -> Option<Leaf> {
    head.as_ref().and_then(|head| head.leaves.first().copied())
}

fn head(both: &Both, at: At, oid: u32) -> Option<Head> {
    let catalogs = both.catalogs(at);
    let class = catalogs.class(oid)?;
    let reader = Reader::new(catalogs, both.role);
    let mut readable = false;
    let (catalog, index) = (pg_sys::RelationRelationId.to_u32(), pg_sys::ClassOidIndexId);
    catalogs.each(catalog, index, oid, |row| {
        readable = reader.reads_table(row)
    });
    let leaf = Leaf {
        oid,
        file: (class.reltablespace.to_u32(), class.relfilenode.to_u32()),
    };
    Some(Head {
        oid,
        schema: String::new(),
        name: String::new(),
        natts: class.relnatts,
        partitioned: false,
        leaves: vec![leaf],
        readable,
    })
}

/// Calls `each` with the values of the rows of a catalog that are not the same on both sides.
fn each_row(
    both: &Both,
    heads: &Heads,
    of: fn(&Catalog) -> &Option<Head>,
    each: &mut dyn FnMut(At, &[Option<pg_sys::Datum>]),
) {
    let values = (
        Values::new(&both.now, both.encoding),
        Values::new(&both.base, both.encoding),
    );
    let sides = heads.each_ref().map(|entry| {
        let head = of(entry).as_ref()?;
        let catalogs = both.catalogs(entry.0);
        let plan = Rc::new(Plan {
            columns: columns::of(catalogs, head.oid),
            image: Vec::new(),
            key: None,
            key_names: Vec::new(),
            added: Vec::new(),
            show: false,
        });
        let values = if entry.0 == At::Now {
            &values.0
        } else {
            &values.1
        };
        rows::open(
            both,
            entry.0,
            head,
            *head.leaves.first()?,
            &plan,
            values,
            &Digests::new(),
        )
    });
    rows::read(both, &sides, &mut |at, side, page, tuple| {
        side.with_row(page, tuple, |_, row| each(at, row));
    });
}

/// The objects that only the fork has, and those that only its cut has.
fn sets(both: &Both, heads: &Heads) -> [HashSet<u32>; 2] {
    let mut sets = [HashSet::new(), HashSet::new()];
    each_row(both, heads, |(_, _, objects)| objects, &mut |at, row| {
        if let Some(Some(object)) = row.first() {
            sets[usize::from(at == At::Cut)].insert(object.value() as u32);
        }
    });
    let [now, base] = &sets;
    // One whose owner or rights changed has another row on both sides.
    [now - base, base - now]
}

/// The objects whose content is not what it was.
fn changed(both: &Both, heads: &Heads) -> HashSet<u32> {
    let state = RandomState::new();
    // Pages in any order: their digests are added up on the one side, and taken off on the other.
    let mut sums: HashMap<u32, u64> = HashMap::new();
    each_row(both, heads, |(_, pages, _)| pages, &mut |at, row| {
        let [Some(object), Some(page), data] = row else {
            return;
        };
        let mut hasher = state.build_hasher();
        hasher.write_u32(page.value() as u32);
        // SAFETY: a bytea.
        hasher.write(data.map_or(&[], |data| unsafe { bytes_of(data) }));
        let digest = hasher.finish();
        let sum = sums.entry(object.value() as u32).or_default();
        *sum = match at {
            At::Now => sum.wrapping_add(digest),
            At::Cut => sum.wrapping_sub(digest),
        };
    });
    sums.into_iter()
        .filter(|(_, sum)| *sum != 0)
        .map(|(object, _)| object)
        .collect()
}
