//! What a fork changed since its cut, by table.

use super::tables::{Both, Pair};
use super::{large_objects, rows};
use crate::pg::memory::in_context;
use crate::reader::relation;
use pg_fork_core::matching::Counts;

/// A line of fork_diff.
pub struct Line {
    pub schema: String,
    pub table: String,
    pub change: &'static str,
    /// `None` for a table that the role may not read whole.
    pub counts: Option<Counts>,
    pub blocks: u64,
    pub rewritten: bool,
}

/// The tables that are not as they were, by schema and name, and the large objects.
pub fn lines(both: &Both) -> Vec<Line> {
    let mut pairs = both.pairs();
    pairs.retain(|pair| both.may_differ(pair));
    // What each table takes goes with it: there may be many.
    let each = pairs
        .iter()
        .map(|pair| in_context(c"pg_fork diff", || line(both, pair)));
    let mut lines: Vec<Line> = each.flatten().collect();
    lines.extend(large_objects::changes(both).map(|objects| Line {
        schema: "pg_catalog".into(),
        table: "pg_largeobject".into(),
        change: "rows",
        counts: objects.counts,
        blocks: objects.blocks,
        rewritten: false,
    }));
    lines.sort_by(|a, b| (&a.schema, &a.table).cmp(&(&b.schema, &b.table)));
    lines
}

fn line(both: &Both, pair: &Pair) -> Option<Line> {
    let shown = pair.table()?;
    let rewritten = pair.is_rewritten();
    let change = match (&pair.now, &pair.base) {
        (Some(_), None) => Some("created"),
        (None, Some(_)) => Some("dropped"),
        (Some(now), Some(base)) if now.oid != base.oid => Some("recreated"),
        _ => both.is_altered(pair).then_some("altered"),
    };
    let counts = pair.is_readable().then(|| {
        let mut counts = Counts::default();
        rows::compare(both, pair, false, |change, count| {
            counts.add(&change, count)
        });
        counts
    });
    let any = counts.as_ref().is_none_or(Counts::any);
    let change = match change {
        Some(change) => change,
        None if counts.as_ref().is_some_and(Counts::any) => "rows",
        None if rewritten => "rewritten",
        None if any => "rows",
        None => return None,
    };
    Some(Line {
        schema: shown.schema.clone(),
        table: shown.name.clone(),
        change,
        counts,
        blocks: blocks(both, pair),
        rewritten,
    })
}

/// The blocks that may differ: all of a relation that was made or rewritten.
fn blocks(both: &Both, pair: &Pair) -> u64 {
    let leaves = pair.leaves().into_iter();
    let count = leaves.map(|(now, base)| {
        let open =
            |catalogs: &crate::reader::relation::Catalogs, oid| relation::open(catalogs.db, oid);
        let now = now.and_then(|leaf| open(&both.now, leaf.oid));
        let base = base.and_then(|leaf| open(&both.base, leaf.oid));
        let changed = now.as_ref().zip(base.as_ref());
        let changed = changed.and_then(|(now, base)| both.blocks(&now.pages, &base.pages));
        match (changed, now) {
            (Some(blocks), _) => blocks.len() as u64,
            (None, Some(now)) => u64::from(now.pages.count()),
            (None, None) => 0,
        }
    });
    count.sum()
}
