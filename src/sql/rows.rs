//! `fork_diff` and `fork_diff_rows`: the candidates from here, matched in SQL, which spills to disk.

use crate::diff::told;
use pgrx::prelude::*;

/// The rows that may differ; without a relation: of all tables, each behind a row of its own.
#[pg_extern(volatile, parallel_unsafe)]
#[expect(clippy::type_complexity)]
fn fork_diff_told(
    fork: &str,
    relation: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(tab, Option<String>),
        name!(side, Option<String>),
        name!(key, Option<String>),
        name!(image, Option<String>),
        name!(data, Option<String>),
        name!(schema, Option<String>),
        name!(name, Option<String>),
        name!(change, Option<String>),
        name!(blocks, Option<String>),
        name!(rewritten, Option<String>),
        name!(readable, Option<String>),
    ),
> {
    let rows = told::from_anywhere(fork, relation);
    TableIterator::new(rows.map(|row| row.into()))
}

extension_sql!(
    r#"
CREATE FUNCTION fork_diff(fork name)
    RETURNS TABLE (schema name, "table" name, change text, rows_inserted bigint, rows_updated bigint,
                   rows_deleted bigint, blocks_changed bigint, rewritten boolean)
    VOLATILE PARALLEL UNSAFE LANGUAGE sql AS $$
WITH told AS MATERIALIZED (
    SELECT tab, side, key, image, "schema", name, change, blocks::bigint AS blocks, rewritten::bool AS rewritten, readable::bool AS readable
    FROM @extschema@.fork_diff_told(fork::pg_catalog.text, NULL)
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
SELECT t."schema"::name, t.name::name,
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
    FROM @extschema@.fork_diff_told(fork::pg_catalog.text, relation) c
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
    requires = [fork_diff_told]
);
