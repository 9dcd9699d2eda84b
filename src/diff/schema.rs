//! `fork_diff_schema`: the definitions of all objects, in the fork and at its cut, side by side.

use crate::remote::{Call, Failure, Side};
use crate::shmem::registry::Slot;
use std::collections::BTreeMap;

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

/// What differs, in the order of the objects' names.
pub fn changes(fork: &Slot) -> Result<Vec<Change>, Failure> {
    let mut call = Call::begin(fork);
    let mut objects: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
    // The cut last: a worker that has moved to it need not move back.
    for (at, side) in [(1, Side::Now), (0, Side::Cut)] {
        call.query(side, OBJECTS, |row| {
            let mut row = row.into_iter();
            let object = row.next().flatten().unwrap_or_default();
            let text = row.next().flatten().unwrap_or_default();
            objects.entry(object).or_default()[at] = Some(text);
        })?;
    }
    call.finish();
    let changed = objects.into_iter().filter(|(_, [old, new])| old != new);
    Ok(changed
        .map(|(object, [before, after])| Change {
            object,
            before,
            after,
        })
        .collect())
}
