//! `fork_diff` and `fork_diff_rows`: the candidates from here, matched in SQL, which spills to disk.

use crate::diff::rows::Rows;
use crate::diff::tables::{is_altered, Both, Pair};
use crate::reader::{refuse, At};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

fn side(at: At) -> &'static str {
    match at {
        At::Now => "now",
        At::Cut => "cut",
    }
}

/// Raises 42501 unless the caller may read all of the table, on both sides.
fn check_readable(pair: &Pair) {
    if pair.is_readable() {
        return;
    }
    let name = pair.table().map_or("", |table| &table.name);
    refuse(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied for table \"{name}\""),
        "Comparing rows needs SELECT on the whole table, in the fork and at its cut, and no row security.",
    );
}

/// The rows of a table that are not the very same tuple on both sides.
#[pg_extern(volatile, parallel_unsafe)]
fn fork_diff_candidates(
    fork: &str,
    relation: &str,
) -> TableIterator<
    'static,
    (
        name!(side, &'static str),
        name!(key, Option<String>),
        name!(image, String),
        name!(data, String),
    ),
> {
    let both = Rc::new(Both::open(fork));
    let pair = both.named(relation);
    check_readable(&pair);
    let opened = both.open_pair(&pair);
    let rows = Rows::new(&both, &pair, &opened);
    TableIterator::new(rows.map(|row| (side(row.at), row.key, row.image, row.row)))
}

/// 128 bits that stand for the text.
fn digest(text: &str) -> String {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, text).hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(1), half(2))
}

/// One row of [`fork_diff_all`]: a table's (`side` is null), or one of its candidates.
type Told = (
    pg_sys::Oid,
    Option<&'static str>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<&'static str>,
    Option<i64>,
    Option<bool>,
    Option<bool>,
);

fn table(both: &Rc<Both>, pair: Pair) -> Box<dyn Iterator<Item = Told>> {
    let Some(shown) = pair.table() else {
        return Box::new(std::iter::empty());
    };
    let oid = pg_sys::Oid::from(shown.oid);
    let readable = pair.is_readable();
    let opened = both.open_pair(&pair);
    let change = match (&pair.now, &pair.base) {
        (Some(_), None) => Some("created"),
        (None, Some(_)) => Some("dropped"),
        (Some(now), Some(base)) if now.oid != base.oid => Some("recreated"),
        _ => is_altered(both, &pair).then_some("altered"),
    };
    let blocks = match (&opened.blocks, &opened.now) {
        (Some(blocks), _) => blocks.len() as i64,
        (None, Some(now)) => i64::from(now.pages.count()),
        (None, None) => 0,
    };
    let header: Told = (
        oid,
        None,
        None,
        None,
        Some(shown.schema_name.clone()),
        Some(shown.name.clone()),
        change,
        Some(blocks),
        Some(pair.is_rewritten()),
        Some(readable),
    );
    let header = std::iter::once(header);
    if !readable {
        return Box::new(header);
    }
    let rows = Rows::new(both, &pair, &opened).map(move |row| -> Told {
        let key = row.key.as_deref().map(digest);
        let image = Some(digest(&row.image));
        (
            oid,
            Some(side(row.at)),
            key,
            image,
            None,
            None,
            None,
            None,
            None,
            None,
        )
    });
    Box::new(header.chain(rows))
}

/// The tables that may differ, each followed by its candidates, by digests.
#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::type_complexity)]
fn fork_diff_all(
    fork: &str,
) -> TableIterator<
    'static,
    (
        name!(tab, pg_sys::Oid),
        name!(side, Option<&'static str>),
        name!(key, Option<String>),
        name!(image, Option<String>),
        name!(schema, Option<String>),
        name!(name, Option<String>),
        name!(change, Option<&'static str>),
        name!(blocks, Option<i64>),
        name!(rewritten, Option<bool>),
        name!(readable, Option<bool>),
    ),
> {
    let both = Rc::new(Both::open(fork));
    let mut pairs = both.pairs();
    pairs.retain(|pair| both.may_differ(pair));
    TableIterator::new(pairs.into_iter().flat_map(move |pair| table(&both, pair)))
}

extension_sql!(
    r#"
CREATE FUNCTION fork_diff(fork name)
    RETURNS TABLE (schema name, "table" name, change text, rows_inserted bigint, rows_updated bigint,
                   rows_deleted bigint, blocks_changed bigint, rewritten boolean)
    VOLATILE PARALLEL UNSAFE LANGUAGE sql AS $$
WITH told AS MATERIALIZED (
    SELECT * FROM @extschema@.fork_diff_all(fork::pg_catalog.text)
), candidate AS MATERIALIZED (
    -- Rows without a key are told apart by all that they have, and counted.
    SELECT t.tab, t.side, t.image,
           coalesce('k' || t.key, 'i' || t.image || '#' || pg_catalog.row_number()
                    OVER (PARTITION BY t.tab, t.side, t.key, t.image)) AS match
    FROM told t WHERE t.side IS NOT NULL
), counted AS (
    SELECT coalesce(n.tab, c.tab) AS tab,
           pg_catalog.count(*) FILTER (WHERE c.match IS NULL) AS inserted,
           pg_catalog.count(*) FILTER (WHERE c.image <> n.image) AS updated,
           pg_catalog.count(*) FILTER (WHERE n.match IS NULL) AS deleted
    FROM (SELECT * FROM candidate WHERE side = 'now') n
    FULL JOIN (SELECT * FROM candidate WHERE side = 'cut') c ON c.tab = n.tab AND c.match = n.match
    GROUP BY 1
)
SELECT t.schema::name, t.name::name,
       coalesce(t.change, CASE WHEN x.inserted + x.updated + x.deleted > 0 THEN 'rows' ELSE 'rewritten' END),
       CASE WHEN t.readable THEN coalesce(x.inserted, 0) END,
       CASE WHEN t.readable THEN coalesce(x.updated, 0) END,
       CASE WHEN t.readable THEN coalesce(x.deleted, 0) END,
       t.blocks, t.rewritten
FROM told t LEFT JOIN counted x ON x.tab = t.tab
WHERE t.side IS NULL
  AND (t.change IS NOT NULL OR t.rewritten OR NOT t.readable OR x.inserted + x.updated + x.deleted > 0)
ORDER BY 1, 2
$$;
COMMENT ON FUNCTION fork_diff(name) IS 'what a fork changed since its cut, by table';

CREATE FUNCTION fork_diff_rows(fork name, relation text, max_rows bigint DEFAULT NULL)
    RETURNS TABLE (change text, key jsonb, before jsonb, after jsonb)
    VOLATILE PARALLEL UNSAFE LANGUAGE sql AS $$
WITH candidate AS MATERIALIZED (
    SELECT c.side, c.key, c.image, c.data,
           coalesce('k' || c.key, 'i' || c.image || '#' || pg_catalog.row_number()
                    OVER (PARTITION BY c.side, c.key, c.image)) AS match
    FROM @extschema@.fork_diff_candidates(fork::pg_catalog.text, relation) c
)
SELECT CASE WHEN c.match IS NULL THEN 'inserted' WHEN n.match IS NULL THEN 'deleted' ELSE 'updated' END,
       coalesce(n.key, c.key)::pg_catalog.jsonb, c.data::pg_catalog.jsonb, n.data::pg_catalog.jsonb
FROM (SELECT * FROM candidate WHERE side = 'now') n
FULL JOIN (SELECT * FROM candidate WHERE side = 'cut') c ON c.match = n.match
WHERE c.image IS DISTINCT FROM n.image
ORDER BY 2, 1, 3, 4
LIMIT max_rows
$$;
COMMENT ON FUNCTION fork_diff_rows(name, text, bigint) IS 'the rows that a fork changed in a table since its cut';
"#,
    name = "fork_diffs",
    requires = [fork_diff_all, fork_diff_candidates]
);
