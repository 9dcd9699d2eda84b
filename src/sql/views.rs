//! The functions behind the views `pg_forks` and `pg_fork_stats`.
#![allow(unsafe_code)] // a call into procarray.c

use crate::fork::{catalog, check, files};
use crate::shmem::registry::{self, ForkState};
use crate::shmem::stats;
use crate::shmem::view;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use pgrx::prelude::*;

#[pg_extern(volatile, parallel_restricted)]
#[expect(clippy::type_complexity)]
fn fork_list() -> TableIterator<
    'static,
    (
        name!(oid, pg_sys::Oid),
        name!(source, pg_sys::Oid),
        name!(cut_time, Option<TimestampWithTimeZone>),
        name!(cut_lsn, i64),
        name!(depth, i32),
        name!(state, String),
        name!(reason, Option<String>),
        name!(sessions, i32),
        name!(private_bytes, i64),
        name!(preimage_bytes, i64),
    ),
> {
    let rows: Vec<_> = registry::all_forks()
        .into_iter()
        .map(|(slot, depth)| {
            let state = match slot.state {
                ForkState::Creating | ForkState::Ready => "ready",
                ForkState::Dropping => "dropping",
                ForkState::Invalid => "invalid",
            };
            let reason = slot.reason();
            // SAFETY: counts processes.
            let sessions = unsafe { pg_sys::CountDBConnections(slot.oid.into()) };
            let layers = view::layers_needed(slot.oid);
            (
                pg_sys::Oid::from(slot.oid),
                pg_sys::Oid::from(slot.source),
                TimestampWithTimeZone::try_from(slot.cut_time).ok(),
                slot.cut_lsn as i64,
                depth as i32,
                state.to_string(),
                (!reason.is_empty()).then_some(reason),
                sessions,
                files::storage(slot.oid),
                layers.into_iter().map(files::storage).sum(),
            )
        })
        .collect();
    TableIterator::new(rows)
}

#[pg_extern(volatile, parallel_safe)]
fn fork_counters() -> TableIterator<
    'static,
    (
        name!(name, String),
        name!(value, f64),
        name!(unit, String),
        name!(description, String),
    ),
> {
    TableIterator::new(
        stats::snapshot()
            .into_iter()
            .map(|(name, value, unit, what)| (name, value, unit.to_string(), what.to_string())),
    )
}

/// `fork_check(fork name)`: what is wrong with a fork; no rows if nothing is. Reads all of it.
///
/// Raises 3D000 (no such database), 42809 (not a fork), 42501 (neither owner nor superuser).
#[pg_extern(volatile, parallel_restricted)]
fn fork_check_named(
    fork: &str,
) -> TableIterator<
    'static,
    (
        name!(relation, Option<String>),
        name!(block, Option<i64>),
        name!(problem, String),
    ),
> {
    let Some(oid) = catalog::database_oid(fork) else {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            format!("database \"{fork}\" does not exist")
        );
    };
    if registry::fork(oid).is_none() {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("database \"{fork}\" is not a fork")
        );
    }
    if !catalog::owns(oid) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must be owner of database {fork}")
        );
    }
    let findings = check::check(oid).into_iter().map(|found| {
        let relation = (!found.relation.is_empty()).then_some(found.relation);
        (relation, found.block.map(i64::from), found.problem)
    });
    TableIterator::new(findings)
}

extension_sql!(
    r#"
CREATE FUNCTION fork_check(fork name)
    RETURNS TABLE (relation text, block bigint, problem text)
    VOLATILE PARALLEL RESTRICTED LANGUAGE sql
    AS 'SELECT * FROM @extschema@.fork_check_named(fork::pg_catalog.text)';
COMMENT ON FUNCTION fork_check(name) IS 'what is wrong with a fork; no rows if nothing is';

CREATE VIEW pg_forks AS
SELECT d.datname AS name, f.oid, s.datname AS source, pg_catalog.pg_get_userbyid(d.datdba) AS owner,
       f.cut_time,
       pg_catalog.format('%s/%s', pg_catalog.upper(pg_catalog.to_hex(f.cut_lsn >> 32)),
                         pg_catalog.upper(pg_catalog.to_hex(f.cut_lsn & 4294967295)))::pg_lsn AS cut_lsn,
       f.depth, f.state, f.reason, f.sessions, f.private_bytes, f.preimage_bytes
FROM fork_list() f
JOIN pg_catalog.pg_database d ON d.oid = f.oid
LEFT JOIN pg_catalog.pg_database s ON s.oid = f.source;
COMMENT ON VIEW pg_forks IS 'the forks of this server';

CREATE VIEW pg_fork_stats AS SELECT * FROM fork_counters();
COMMENT ON VIEW pg_fork_stats IS 'counters of pg_fork since the start of the server';

GRANT SELECT ON pg_forks, pg_fork_stats TO PUBLIC;
"#,
    name = "fork_views",
    requires = [fork_list, fork_counters, fork_check_named]
);
