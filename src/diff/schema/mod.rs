//! `fork_diff_schema`: the definitions of all objects, in the fork and at its cut, side by side.

mod objects;

use crate::fork::heirs;
use crate::remote::{Failure, Side, Sides};
use crate::shmem::registry::Slot;
use objects::{Objects, Wanted};
use std::collections::{BTreeMap, BTreeSet};

/// An object that is not as it was. Where only what is not shown differs, a password say, both texts are
/// the same.
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

/// The change of one object; `None` if there is none, or none to be told.
fn change(object: &str, cut: &Objects, now: &Objects) -> Option<Change> {
    let (before, after) = (cut.get(object), now.get(object));
    let text = |found: Option<&objects::Found>| found.map(|it| it.text.clone());
    let differs = match (before, after) {
        (Some(before), Some(after)) if object.starts_with(ORDER) => {
            moved(&before.text, &after.text)
        }
        (Some(before), Some(after)) => before.differs(after),
        // What came, or went, with its extension is told by the extension's row.
        (None, Some(after)) => !object.starts_with(ORDER) && cut.has_home_of(after),
        (Some(before), None) => !object.starts_with(ORDER) && now.has_home_of(before),
        (None, None) => false,
    };
    differs.then(|| Change {
        object: object.to_string(),
        before: text(before),
        after: text(after),
    })
}

/// What differs, in the order of the objects' names.
pub fn changes(fork: &Slot) -> Result<Vec<Change>, Failure> {
    let mut sides = Sides::of(*fork);
    let digests = objects::digests(&mut sides, Side::Now)?;
    let mut now = objects::read(&mut sides, Side::Now, &Wanted::default())?;
    // The cut last: a worker that has moved to it need not move back, unless the server's own objects, or
    // large ones, differ.
    let wanted = Wanted::new(&digests, &objects::digests(&mut sides, Side::Cut)?);
    let cut = objects::read(&mut sides, Side::Cut, &wanted)?;
    if wanted != Wanted::default() {
        now = objects::read(&mut sides, Side::Now, &wanted)?;
    }
    sides.finish();
    let given = heirs::given(fork.oid);
    let names: BTreeMap<&str, ()> = cut.names().chain(now.names()).map(|it| (it, ())).collect();
    let changes = names.into_keys().filter_map(|it| change(it, &cut, &now));
    Ok(changes
        .filter(|it| {
            let texts = [it.before.clone(), it.after.clone()];
            !heirs::is_gift(&given, &it.object, &texts)
        })
        .collect())
}
