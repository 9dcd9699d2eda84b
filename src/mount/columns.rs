//! Which columns of a table can be shown here, and which cannot, and why.
#![allow(unsafe_code)] // rows of catalogs, as C structs, and look-ups

use super::tables::Table;
use crate::pg::tuple::Row;
use crate::reader::encoding::{self, Conversion};
use crate::reader::kinds;
use crate::reader::relation::{Catalogs, Column};
use crate::reader::rights::OnTable;
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;

/// A column, and what rows have that were written before it was added.
pub struct Shown {
    pub column: Column,
    pub dimensions: i32,
    pub collation: u32,
    /// Read by the caller there; else it is hidden.
    pub readable: bool,
    /// A value of the column's type, in this database's encoding.
    pub missing: Option<Datum>,
    /// That cannot be read.
    damaged: bool,
}

impl Shown {
    pub fn is_hidden(&self) -> bool {
        self.column.dropped || !self.readable
    }
}

/// What is told of a column, or a table, that is left out.
pub struct Problem {
    pub code: PgSqlErrorCode,
    pub message: String,
    pub hint: &'static str,
}

impl Problem {
    pub fn new(code: PgSqlErrorCode, message: String, hint: &'static str) -> Self {
        Problem {
            code,
            message,
            hint,
        }
    }

    /// Tells that something is left out for it.
    pub fn warn(&self, left_out: &str) {
        pgrx::pg_sys::panic::ErrorReport::new(
            self.code,
            format!("{}: {left_out}", self.message),
            "pg_fork",
        )
        .set_hint(self.hint)
        .report(PgLogLevel::WARNING);
    }

    pub fn raise(&self) -> ! {
        crate::reader::refuse(self.code, self.message.clone(), self.hint)
    }
}

/// The columns of a table as far as the role may read them: there, and now in the fork if its cut is looked at.
pub fn of(
    there: &Catalogs,
    here: &Catalogs,
    table: &Table,
    on: &OnTable,
    now: Option<&OnTable>,
) -> Result<Vec<Shown>, Problem> {
    let denied = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    let title = table.title();
    if on.filtered || now.is_some_and(|now| now.filtered) {
        return Err(Problem::new(
            denied,
            format!("row security is active for table {title}"),
            "Connect to the fork, where its policies are applied.",
        ));
    }
    let may = |n: i16| on.reads(n) && now.is_none_or(|now| now.reads(n));
    let mut columns = all(there, table, &may)?;
    let live = || columns.iter().filter(|shown| !shown.column.dropped);
    let whole = on.whole && on.uses && now.is_none_or(|now| now.whole && now.uses);
    if !whole && !live().any(|shown| shown.readable) {
        return Err(Problem::new(
            denied,
            format!("permission denied for table {title}"),
            "Mounting a table needs SELECT on it, or on columns of it, in the fork.",
        ));
    }
    let mut last = None;
    for shown in columns.iter_mut().filter(|shown| !shown.is_hidden()) {
        if let Err(problem) = check(there, here, table, shown) {
            shown.readable = false;
            if let Some(earlier) = last.replace(problem) {
                warn_of_column(&earlier);
            }
        }
    }
    let any = columns.iter().any(|shown| !shown.is_hidden());
    match last {
        Some(problem) if !any => return Err(problem),
        Some(problem) => warn_of_column(&problem),
        None => {}
    }
    Ok(columns)
}

fn warn_of_column(problem: &Problem) {
    problem.warn("column not shown");
}

/// All columns, in their order, dropped ones too.
fn all(there: &Catalogs, table: &Table, may: &dyn Fn(i16) -> bool) -> Result<Vec<Shown>, Problem> {
    let damaged = |what: &str| {
        let message = format!(
            "the catalogs of the fork are damaged: {what} of table {}",
            table.title()
        );
        Problem::new(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            message,
            "Look at the table in the fork.",
        )
    };
    let most = pg_sys::MaxHeapAttributeNumber as i16;
    if !(0..=most).contains(&table.natts) {
        return Err(damaged("the number of columns"));
    }
    let mut found: Vec<Option<Shown>> = (0..table.natts).map(|_| None).collect();
    let place = (
        pg_sys::AttributeRelationId.to_u32(),
        pg_sys::AttributeRelidNumIndexId,
    );
    there.each(place.0, place.1, table.oid, |row| {
        // SAFETY: pg_attribute.
        let form = unsafe { row.fixed::<pg_sys::FormData_pg_attribute>() };
        if form.attrelid.to_u32() == table.oid && (1..=table.natts).contains(&form.attnum) {
            found[form.attnum as usize - 1] = Some(one(there, form, row, may));
        }
    });
    let found: Option<Vec<Shown>> = found.into_iter().collect();
    let found = found.ok_or_else(|| damaged("a column"))?;
    match found.iter().all(|shown| has_form(&shown.column)) {
        true => Ok(found),
        false => Err(damaged("the form of a column")),
    }
}

fn one(
    there: &Catalogs,
    form: &pg_sys::FormData_pg_attribute,
    row: &Row,
    may: &dyn Fn(i16) -> bool,
) -> Shown {
    let number = pg_sys::Anum_pg_attribute_attmissingval as i32;
    let has = form.atthasmissing && row.column(number).is_some();
    let missing = row.whole(number).filter(|_| has);
    Shown {
        column: Column::of(form, there.encoding),
        dimensions: form.attndims,
        collation: form.attcollation.to_u32(),
        readable: !form.attisdropped && may(form.attnum),
        // SAFETY: a copy of an array of a catalog's row, which goes with the row.
        missing: missing.map(|array| unsafe {
            Datum::from(pg_sys::pg_detoast_datum_copy(array.cast_mut_ptr()))
        }),
        damaged: has && missing.is_none(),
    }
}

/// Whether a tuple can be taken apart by it (tupmacs.h).
fn has_form(column: &Column) -> bool {
    let align = matches!(
        column.align as u8,
        pg_sys::TYPALIGN_CHAR
            | pg_sys::TYPALIGN_SHORT
            | pg_sys::TYPALIGN_INT
            | pg_sys::TYPALIGN_DOUBLE
    );
    let by_value = !column.by_value || matches!(column.len, 1 | 2 | 4 | 8);
    align && by_value && (column.len > 0 || matches!(column.len, -1 | -2))
}

/// Whether the column can be shown, and what its missing value is here.
fn check(
    there: &Catalogs,
    here: &Catalogs,
    table: &Table,
    shown: &mut Shown,
) -> Result<(), Problem> {
    let column = &shown.column;
    let kind = column.kind;
    let what = format!(
        "the type of column \"{}\" of table {}",
        column.name,
        table.title()
    );
    let undefined = PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT;
    let not_here = |message: String| {
        const HINT: &str =
            "Mount it in a database where the type is the same: the fork's source, or a fork of it.";
        Err(Problem::new(undefined, message, HINT))
    };
    if !kinds::same(here, there, kind) || !is_usable(column) {
        return not_here(format!("{what} is not a type of this database"));
    }
    // SAFETY: a look-up of a type that exists.
    let right = unsafe {
        let mode = pg_sys::ACL_USAGE as pg_sys::AclMode;
        pg_sys::pg_type_aclcheck(kind.into(), pg_sys::GetUserId(), mode)
    };
    if right != pg_sys::AclResult::ACLCHECK_OK {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for {what}"),
            "A table with such a column needs USAGE on the type in this database.",
        ));
    }
    let mut conversion = Some(Conversion::Plain);
    if encoding::is_foreign(there.encoding) {
        conversion = Conversion::of(kind.into());
    }
    let Some(conversion) = conversion else {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("{what} cannot be converted from the encoding of the other database"),
            "Mount it in a database of the same encoding.",
        ));
    };
    let value = shown.missing.map(|array| missing(array, column));
    if shown.damaged || matches!(value, Some(None)) {
        let message = format!("{what} has a damaged default for rows that were there before");
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            message,
            "Look at the column in the fork.",
        ));
    }
    if let Some(value) = value.flatten() {
        // SAFETY: a whole value of the type.
        unsafe {
            if !conversion.fits(value, there.encoding) {
                return Err(Problem::new(
                    PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
                    format!(
                        "the encoding of this database does not have all characters of the default of column \"{}\" of table {}",
                        column.name,
                        table.title()
                    ),
                    "Mount it in a database of the same encoding.",
                ));
            }
            shown.missing = Some(conversion.convert(value, there.encoding));
        }
    }
    Ok(())
}

/// Whether a column of this database can have the type, and lies in tuples as the other database's does.
fn is_usable(column: &Column) -> bool {
    // SAFETY: look-ups of a type that exists, and places for the results.
    unsafe {
        let kind = pg_sys::Oid::from(column.kind);
        if pg_sys::get_typtype(kind) as u8 == pg_sys::TYPTYPE_PSEUDO
            || !pg_sys::get_typisdefined(kind)
        {
            return false;
        }
        let (mut len, mut by_value, mut align) = (0, false, 0);
        pg_sys::get_typlenbyvalalign(kind, &mut len, &mut by_value, &mut align);
        (len, by_value, align) == (column.len, column.by_value, column.align)
    }
}

/// The element of a `attmissingval`, an array of one; `None` if it is none of the column's type.
fn missing(array: Datum, column: &Column) -> Option<Datum> {
    // SAFETY: a whole varlena, of which the header is looked at first.
    unsafe {
        let array = array.cast_mut_ptr::<pg_sys::ArrayType>();
        let size = ((*array).vl_len_ as u32 >> 2) as usize;
        // One dimension: its length, its lower bound.
        let header = std::mem::size_of::<pg_sys::ArrayType>() + 2 * std::mem::size_of::<i32>();
        let one = size > header
            && (*array).ndim == 1
            && (*array).dataoffset == 0
            && (*array).elemtype.to_u32() == column.kind
            && array.add(1).cast::<i32>().read() == 1;
        let data = header.next_multiple_of(pg_sys::MAXIMUM_ALIGNOF as usize);
        let at = array.cast::<u8>().add(data);
        let rest = size.saturating_sub(data);
        let need = match column.len {
            -1 if rest > 0 => pgrx::varlena::varsize_any(at.cast()),
            -1 => 1,
            -2 => {
                std::slice::from_raw_parts(at, rest)
                    .iter()
                    .position(|byte| *byte == 0)?
                    + 1
            }
            len => len as usize,
        };
        if !one || need == 0 || need > rest {
            return None;
        }
        let (mut null, mut first) = (false, 1);
        let value = pg_sys::array_get_element(
            Datum::from(array),
            1,
            &mut first,
            -1,
            column.len.into(),
            column.by_value,
            column.align as std::ffi::c_char,
            &mut null,
        );
        (!null).then_some(value)
    }
}
