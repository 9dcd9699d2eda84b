//! `fork_diff_schema`: the definitions of all objects, in the fork and at its cut, side by side.

use crate::fork::heirs;
use crate::remote::{Failure, Side, Sides};
use crate::shmem::registry::Slot;
use std::collections::{BTreeMap, BTreeSet};

const OBJECTS: &str = include_str!("schema.sql");

/// An object that is not as it was.
pub struct Change {
    pub object: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

impl Change {
    pub fn kind(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "created",
            (_, None) => "dropped",
            _ => "altered",
        }
    }
}

/// What the query calls the columns of a table, one after the other.
const ORDER: &str = "order of columns of ";

/// Whether the columns that are in both lists stand in another order. Those that came or went have rows
/// of their own.
fn moved(before: &str, after: &str) -> bool {
    let lists = [before, after].map(|it| it.split(", ").collect::<Vec<_>>());
    let [old, new] = lists
        .each_ref()
        .map(|it| it.iter().collect::<BTreeSet<_>>());
    let [before, after] = &lists;
    let kept = before.iter().filter(|it| new.contains(it));
    !kept.eq(after.iter().filter(|it| old.contains(it)))
}

fn differs(object: &str, texts: &[Option<String>; 2]) -> bool {
    match texts {
        [before, after] if !object.starts_with(ORDER) => before != after,
        [Some(before), Some(after)] => moved(before, after),
        _ => false,
    }
}

/// What differs, in the order of the objects' names.
pub fn changes(fork: &Slot) -> Result<Vec<Change>, Failure> {
    let mut sides = Sides::of(*fork);
    let mut objects: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
    // The cut last: a worker that has moved to it need not move back.
    for (at, side) in [(1, Side::Now), (0, Side::Cut)] {
        sides.query(side, OBJECTS, |row| {
            let mut row = row.into_iter();
            let object = row.next().flatten().unwrap_or_default();
            let text = row.next().flatten().unwrap_or_default();
            objects.entry(object).or_default()[at] = Some(text);
        })?;
    }
    sides.finish();
    let given = heirs::given(fork.oid);
    let objects = objects.into_iter();
    Ok(objects
        .filter(|(object, texts)| differs(object, texts) && !heirs::is_gift(&given, object, texts))
        .map(|(object, [before, after])| Change {
            object,
            before,
            after,
        })
        .collect())
}
