//! `fork_check`, the views `pg_forks` and `pg_fork_stats`, and the functions behind them: version-1
//! functions that return rows. All may read the views, so all may call the functions.
#![allow(unsafe_code)] // C calls these

use crate::fork::{catalog, check, cost};
use crate::shmem::registry;
use crate::shmem::stats;
use crate::sql::api::{required_name, version_1};
use crate::sql::srf::{self, text_column};
use crate::sql::tree;
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;

version_1!(pg_finfo_fork_list_c);
version_1!(pg_finfo_fork_counters_c);
version_1!(pg_finfo_fork_check_c);

/// `fork_list()`: the forks, as the registry knows them.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_list_c(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let mut rows = srf::Rows::begin(call);
        let costs = cost::all();
        for (slot, depth) in registry::all_forks() {
            pgrx::check_for_interrupts!();
            let reason = slot.reason();
            let cost = costs.get(&slot.oid).copied().unwrap_or_default();
            rows.put(&[
                Some(Datum::from(slot.oid)),
                Some(Datum::from(slot.source)),
                (slot.cut_time != 0).then(|| Datum::from(slot.cut_time)),
                Some(Datum::from(slot.cut_lsn)),
                (depth as i32).into_datum(),
                text_column(Some(tree::state_name(slot.state))),
                text_column((!reason.is_empty()).then_some(&reason)),
                tree::sessions(slot.oid).into_datum(),
                cost.private.into_datum(),
                cost.preimages.into_datum(),
                cost.freed.into_datum(),
            ]);
        }
        srf::done(call)
    }
}

/// `fork_counters()`: counters since the start of the server.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_counters_c(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let mut rows = srf::Rows::begin(call);
        for (name, value, unit, what) in stats::snapshot() {
            rows.put(&[
                text_column(Some(&name)),
                value.into_datum(),
                text_column(Some(unit)),
                text_column(Some(what)),
            ]);
        }
        srf::done(call)
    }
}

/// The fork of that name, which must be the caller's.
fn owned_fork(name: &str) -> u32 {
    let Some(oid) = catalog::database_oid(name) else {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            format!("database \"{name}\" does not exist")
        );
    };
    if registry::fork(oid).is_none() {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("database \"{name}\" is not a fork")
        );
    }
    if !catalog::owns(oid) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must be owner of database {name}")
        );
    }
    oid
}

/// `fork_check(fork name)`: what is wrong with a fork; no rows if nothing is. Reads all of it.
///
/// Raises 3D000 (no such database), 42809 (not a fork), 42501 (neither owner nor superuser), 22004 (a null
/// name).
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_check_c(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let oid = owned_fork(&required_name(call, 0, "the fork's name"));
        let mut rows = srf::Rows::begin(call);
        for found in check::check(oid) {
            let relation = (!found.relation.is_empty()).then_some(found.relation);
            rows.put(&[
                text_column(relation.as_deref()),
                found.block.and_then(|block| i64::from(block).into_datum()),
                text_column(Some(&found.problem)),
            ]);
        }
        srf::done(call)
    }
}

// All names are qualified: whoever owns the extension's schema may have put others there before.
extension_sql!(
    r#"
CREATE FUNCTION fork_check(fork name)
    RETURNS TABLE (relation text, block bigint, problem text)
    VOLATILE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'fork_check_c';
COMMENT ON FUNCTION fork_check(name) IS 'what is wrong with a fork; no rows if nothing is';

CREATE FUNCTION fork_list()
    RETURNS TABLE (oid oid, source oid, cut_time timestamp with time zone, cut_lsn pg_lsn, depth int, state text,
                   reason text, sessions int, private_bytes bigint, preimage_bytes bigint,
                   freed_bytes bigint)
    VOLATILE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'fork_list_c';
COMMENT ON FUNCTION fork_list() IS 'what pg_forks is made of';

CREATE FUNCTION fork_counters()
    RETURNS TABLE (name text, value double precision, unit text, description text)
    VOLATILE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_counters_c';
COMMENT ON FUNCTION fork_counters() IS 'what pg_fork_stats is made of';

CREATE VIEW pg_forks AS
SELECT d.datname AS name, f.oid, s.datname AS source, pg_catalog.pg_get_userbyid(d.datdba) AS owner,
       f.cut_time, f.cut_lsn, f.depth, f.state, f.reason, f.sessions, f.private_bytes, f.preimage_bytes,
       f.freed_bytes
FROM @extschema@.fork_list() f
JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) f.oid
LEFT JOIN pg_catalog.pg_database s ON s.oid OPERATOR(pg_catalog.=) f.source;
COMMENT ON VIEW pg_forks IS 'the forks of this server';

CREATE VIEW pg_fork_stats AS
SELECT c.name, c.value, c.unit, c.description FROM @extschema@.fork_counters() c;
COMMENT ON VIEW pg_fork_stats IS 'counters of pg_fork since the start of the server';

GRANT SELECT ON pg_forks, pg_fork_stats TO PUBLIC;
"#,
    name = "fork_views"
);
