//! The objects of one side, by name, and what is to be looked at.

use crate::remote::{Failure, Side, Sides};
use std::collections::BTreeMap;
use std::fmt::Write;

const OBJECTS: &str = concat!(
    include_str!("parts.sql"),
    include_str!("relations.sql"),
    include_str!("routines.sql"),
    include_str!("others.sql"),
    include_str!("told.sql"),
);
const BUILTIN: &str = include_str!("builtin.sql");

/// The first OID that a user's object can have (transam.h, `FirstNormalObjectId`).
const FIRST: &str = "16384";

/// Digests of the server's own objects by catalog, and of large objects by bucket.
pub type Digests = BTreeMap<(String, Option<String>), Option<String>>;

/// What is to be looked at beside users' objects.
#[derive(Default, PartialEq, Eq)]
pub struct Wanted {
    /// Catalogs whose rows of the server's own objects differ.
    catalogs: Vec<String>,
    /// Buckets of large objects that differ.
    buckets: Vec<String>,
}

impl Wanted {
    pub fn new(now: &Digests, cut: &Digests) -> Self {
        let mut wanted = Wanted::default();
        for key in now.keys().chain(cut.keys()) {
            if now.get(key) != cut.get(key) {
                match key {
                    (_, Some(bucket)) => wanted.buckets.push(bucket.clone()),
                    (catalog, None) => wanted.catalogs.push(catalog.clone()),
                }
            }
        }
        for list in [&mut wanted.catalogs, &mut wanted.buckets] {
            list.sort();
            list.dedup();
        }
        wanted
    }

    /// The query, its places filled in.
    fn query(&self) -> String {
        let mut query = String::new();
        let mut parts = OBJECTS.split(" :pg_");
        query.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_lowercase() && c != '_');
            let (name, rest) = part.split_at(end.unwrap_or(part.len()));
            let catalog = format!("pg_{name}");
            let first = match self.catalogs.contains(&catalog) {
                true => "1",
                false => FIRST,
            };
            let _ = write!(query, " {first}{rest}");
        }
        let buckets = format!("'{{{}}}'::bigint[]", self.buckets.join(","));
        query.replace(":large_objects", &buckets)
    }
}

/// An object, as a query tells it.
pub struct Found {
    pub text: String,
    /// The extension that it came with.
    home: Option<String>,
    /// What is compared, and not shown; null for those without the rights.
    unseen: Option<String>,
}

impl Found {
    pub fn differs(&self, other: &Found) -> bool {
        self.text != other.text || self.unseen != other.unseen
    }
}

/// The objects of a side.
pub struct Objects(BTreeMap<String, Found>);

impl Objects {
    pub fn get(&self, object: &str) -> Option<&Found> {
        self.0.get(object)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether the extension that the object came with, if it came with one, is there.
    pub fn has_home_of(&self, found: &Found) -> bool {
        let home = found.home.as_ref();
        home.is_none_or(|home| self.0.contains_key(&format!("extension {home}")))
    }
}

/// Digests of one side.
pub fn digests(sides: &mut Sides, side: Side) -> Result<Digests, Failure> {
    let mut digests = Digests::new();
    sides.query(side, BUILTIN, |row| {
        if let Ok([Some(catalog), bucket, digest]) = <[_; 3]>::try_from(row) {
            digests.insert((catalog, bucket), digest);
        }
    })?;
    Ok(digests)
}

/// The objects of one side.
pub fn read(sides: &mut Sides, side: Side, wanted: &Wanted) -> Result<Objects, Failure> {
    let mut rows: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    sides.query(side, &wanted.query(), |row| {
        if let Ok([Some(object), text, home, unseen]) = <[_; 4]>::try_from(row) {
            let text = text.unwrap_or_default();
            rows.entry(object)
                .or_default()
                .push(Found { text, home, unseen });
        }
    })?;
    Ok(Objects(
        rows.into_iter().map(|(it, all)| (it, one(all))).collect(),
    ))
}

/// Objects that no name tells apart, as collations of two encodings, are one.
fn one(mut all: Vec<Found>) -> Found {
    all.sort_by(|a, b| (&a.text, &a.unseen).cmp(&(&b.text, &b.unseen)));
    let mut all = all.into_iter();
    let mut first = all.next().unwrap_or(Found {
        text: String::new(),
        home: None,
        unseen: None,
    });
    for other in all {
        let _ = write!(first.text, "\n{}", other.text);
        if let (Some(unseen), Some(more)) = (&mut first.unseen, other.unseen) {
            unseen.push_str(&more);
        }
    }
    first
}
