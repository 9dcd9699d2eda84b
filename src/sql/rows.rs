//! `fork_diff` and `fork_diff_rows`: version-1 functions that return rows.
#![allow(unsafe_code)] // C calls these

use super::api::{argument, name_datum, required_name, text_argument, version_1};
use super::srf::{self, Rows};
use crate::diff::sort::Shown;
use crate::diff::tables::Both;
use crate::diff::{rows, summary};
use crate::pg::text;
use crate::pg::uniform::Uniform;
use crate::reader;
use pg_fork_core::matching::Change;
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;

version_1!(pg_finfo_fork_diff_c);
version_1!(pg_finfo_fork_diff_rows_c);

/// `fork_diff(fork name)`: what the fork changed since its cut, by table.
///
/// Raises 22004 (null), 3D000 (no such database), 42809 (not a fork), 42501 (no CONNECT), 55000 (invalid, or
/// it accepts no connections), 40001 (the transaction's snapshot is older than this session's first look into
/// another database). Counts are null for tables that the caller may not read whole.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_diff_c(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let fork = required_name(call, 0, "the fork's name");
        let mut out = Rows::begin(call);
        let _uniform = Uniform::begin();
        let both = Both::open(&fork);
        for line in summary::lines(&both) {
            let count = |of: fn(&pg_fork_core::matching::Counts) -> u64| {
                line.counts
                    .as_ref()
                    .map(|counts| Datum::from(of(counts) as i64))
            };
            out.put(&[
                Some(name_datum(&text::shown(&line.schema))),
                Some(name_datum(&text::shown(&line.table))),
                srf::text_column(Some(line.change)),
                count(|counts| counts.inserted),
                count(|counts| counts.updated),
                count(|counts| counts.deleted),
                Some(Datum::from(line.blocks as i64)),
                Some(Datum::from(line.rewritten)),
            ]);
        }
        srf::done(call)
    }
}

/// `fork_diff_rows(fork name, relation text, max_rows bigint DEFAULT NULL)`: the rows that the fork changed
/// in a table since its cut, by key.
///
/// `relation`: the table's name in the fork, or the name that it had at the cut. `max_rows`: of the rows in
/// their order, so many; null for all. Raises what `fork_diff` raises, 42P01 (no such table), 42P09 (a name
/// that several schemas have), 42601 and 42602 (no name of a table), 42501 (no right to read the whole table
/// on both sides), 2201W (`max_rows` below 0).
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork_diff_rows_c(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: declared in the SQL below.
    unsafe {
        let fork = required_name(call, 0, "the fork's name");
        let Some(relation) = text_argument(call, 1) else {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "the table's name must not be null"
            );
        };
        let most = argument(call, 2).map(|most| most.value() as i64);
        if most.is_some_and(|most| most < 0) {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_INVALID_ROW_COUNT_IN_LIMIT_CLAUSE,
                "max_rows must not be negative"
            );
        }
        let mut out = Rows::begin(call);
        let _uniform = Uniform::begin();
        let both = Both::open(&fork);
        let pair = both.named(&relation);
        if !pair.is_readable() {
            let name = pair.table().map_or("", |table| &table.name);
            reader::refuse(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied for table \"{name}\""),
                "Comparing rows needs SELECT on the whole table, in the fork and at its cut, and no row security.",
            );
        }
        let mut ordered = Ordered::begin(out.form(), most);
        rows::compare(&both, &pair, true, |change, count| {
            ordered.put(&change, count);
        });
        ordered.finish(most, &mut out);
        srf::done(call)
    }
}

/// A row of fork_diff_rows.
fn columns(change: &Change<Shown>) -> [Option<Datum>; 4] {
    let (what, before, after) = match change {
        Change::Inserted(after) => ("inserted", None, Some(after)),
        Change::Updated(before, after) => ("updated", Some(before), Some(after)),
        Change::Deleted(before) => ("deleted", Some(before), None),
    };
    let key = after
        .or(before)
        .map(|(key, _)| key)
        .filter(|key| !key.is_empty());
    [
        srf::text_column(Some(what)),
        key.map(|key| jsonb(key)),
        before.map(|(_, row)| jsonb(row)),
        after.map(|(_, row)| jsonb(row)),
    ]
}

/// JSON that `jsonb` can hold, as a value of it.
fn jsonb(json: &str) -> Datum {
    let json = text::to_server(json);
    // SAFETY: a C string; a palloc'd value.
    unsafe {
        pg_sys::OidInputFunctionCall(
            pg_sys::F_JSONB_IN.into(),
            json.as_ptr().cast_mut(),
            pg_sys::InvalidOid,
            -1,
        )
    }
}

/// Rows by key, change, before, after, whatever order they come in: sorted, on disk where they are many.
struct Ordered {
    state: *mut pg_sys::Tuplesortstate,
    slot: *mut pg_sys::TupleTableSlot,
    /// Emptied after each row.
    scratch: pg_sys::MemoryContext,
}

/// `jsonb < jsonb` (pg_operator.dat).
const JSONB_LESS: u32 = 3242;

impl Ordered {
    unsafe fn begin(form: pg_sys::TupleDesc, most: Option<i64>) -> Self {
        let mut columns: [i16; 4] = [2, 1, 3, 4];
        let mut operators =
            [JSONB_LESS, pg_sys::TextLessOperator, JSONB_LESS, JSONB_LESS].map(pg_sys::Oid::from);
        let mut collations = [
            pg_sys::InvalidOid,
            pg_sys::C_COLLATION_OID,
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
        ];
        let mut nulls_first = [false; 4];
        let bound = most.is_some_and(|most| most > 0);
        // SAFETY: arrays of as many keys; the descriptor outlives the sort.
        unsafe {
            let state = pg_sys::tuplesort_begin_heap(
                form,
                4,
                columns.as_mut_ptr(),
                operators.as_mut_ptr(),
                collations.as_mut_ptr(),
                nulls_first.as_mut_ptr(),
                pg_sys::work_mem,
                std::ptr::null_mut(),
                if bound {
                    pg_sys::TUPLESORT_ALLOWBOUNDED as i32
                } else {
                    0
                },
            );
            if let Some(most) = most.filter(|most| *most > 0) {
                pg_sys::tuplesort_set_bound(state, most);
            }
            Ordered {
                state,
                slot: pg_sys::MakeSingleTupleTableSlot(form, &raw const pg_sys::TTSOpsMinimalTuple),
                scratch: pg_sys::AllocSetContextCreateInternal(
                    pg_sys::CurrentMemoryContext,
                    c"pg_fork changed row".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                ),
            }
        }
    }

    fn put(&mut self, change: &Change<Shown>, count: u64) {
        // SAFETY: a slot of that form; the sort copies what it needs.
        unsafe {
            let last = pg_sys::MemoryContextSwitchTo(self.scratch);
            pg_sys::ExecClearTuple(self.slot);
            for (n, column) in columns(change).into_iter().enumerate() {
                *(*self.slot).tts_values.add(n) = column.unwrap_or(Datum::from(0usize));
                *(*self.slot).tts_isnull.add(n) = column.is_none();
            }
            pg_sys::ExecStoreVirtualTuple(self.slot);
            for _ in 0..count {
                pgrx::check_for_interrupts!();
                pg_sys::tuplesort_puttupleslot(self.state, self.slot);
            }
            pg_sys::ExecClearTuple(self.slot);
            pg_sys::MemoryContextSwitchTo(last);
            pg_sys::MemoryContextReset(self.scratch);
        }
    }

    /// Puts the first rows into the result.
    unsafe fn finish(self, most: Option<i64>, out: &mut Rows) {
        let mut left = most.unwrap_or(i64::MAX);
        // SAFETY: begun by us, and ended here.
        unsafe {
            pg_sys::tuplesort_performsort(self.state);
            while left > 0
                && pg_sys::tuplesort_gettupleslot(
                    self.state,
                    true,
                    false,
                    self.slot,
                    std::ptr::null_mut(),
                )
            {
                pgrx::check_for_interrupts!();
                out.put_slot(self.slot);
                left -= 1;
            }
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::tuplesort_end(self.state);
            pg_sys::MemoryContextDelete(self.scratch);
        }
    }
}

extension_sql!(
    r#"
CREATE FUNCTION fork_diff(fork name)
    RETURNS TABLE (schema name, "table" name, change text, rows_inserted bigint, rows_updated bigint,
                   rows_deleted bigint, blocks_changed bigint, rewritten boolean)
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_diff_c';
COMMENT ON FUNCTION fork_diff(name) IS 'what a fork changed since its cut, by table';

CREATE FUNCTION fork_diff_rows(fork name, relation text, max_rows bigint DEFAULT NULL)
    RETURNS TABLE (change text, key jsonb, before jsonb, after jsonb)
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'fork_diff_rows_c';
COMMENT ON FUNCTION fork_diff_rows(name, text, bigint) IS 'the rows that a fork changed in a table since its cut';
"#,
    name = "fork_diffs"
);
