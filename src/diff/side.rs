//! One side of a table: turns its tuples into what is compared and what is shown.
#![allow(non_snake_case)] // C's names
#![allow(unsafe_code)] // builds and takes apart tuples

use super::columns::{Column, Compare};
use super::compare::{canonical, shorten, Digest, Digests};
use super::values::kinds::{descriptor, Kind};
use super::values::{Layout, Values};
use crate::pg::text;
use crate::reader::relation::{Catalogs, Relation};
use crate::reader::toast;
use pg_fork_core::json::quote;
use pg_fork_core::pages::heap::Tuple;
use pg_fork_core::types::Page;
use pgrx::pg_sys::{self, Datum};
use std::rc::Rc;

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// datum.c
    fn datumCopy(value: Datum, by_value: bool, len: i32) -> Datum;
}

/// A row of one side.
pub struct Row {
    /// Stands for what tells rows apart: the key, or without one all that both sides have.
    pub key: [u8; 16],
    /// Stands for all that is compared.
    pub image: [u8; 16],
    /// The key, and the whole row, as JSON; empty where nobody asked.
    pub shown: (String, String),
}

/// A column that is compared: its place among the table's columns.
struct Compared {
    column: usize,
    compare: Compare,
}

/// What is made of a side's rows.
pub struct Plan {
    /// The table's columns, as this side has them.
    pub columns: Vec<Column>,
    pub image: Vec<(usize, Compare)>,
    /// Of `image`.
    pub key: Option<Vec<usize>>,
    /// Names that the key's columns are shown by.
    pub key_names: Vec<Vec<u8>>,
    /// Columns that the fork added, and the texts that they began with.
    pub added: Vec<(usize, Option<Vec<u8>>)>,
    /// Whether rows are shown, or only counted.
    pub show: bool,
}

/// A relation with rows, and how they are to be read.
pub struct Side<'a> {
    pub relation: Relation,
    values: &'a Values<'a>,
    plan: Rc<Plan>,
    /// Where each of the plan's columns lies in the relation's tuples, from 0.
    places: Vec<Option<usize>>,
    image: Vec<Compared>,
    kinds: Vec<Rc<Kind>>,
    whole: pg_sys::TupleDesc,
    missing: Vec<Option<Datum>>,
    digests: Digests,
    /// Emptied after each row.
    scratch: pg_sys::MemoryContext,
}

/// The first values of columns that were added to rows that are older.
pub fn missing(catalogs: &Catalogs, relation: u32, count: usize) -> Vec<Option<Datum>> {
    let mut missing = vec![None; count];
    let (catalog, index) = (
        pg_sys::AttributeRelationId.to_u32(),
        pg_sys::AttributeRelidNumIndexId,
    );
    catalogs.each(catalog, index, relation, |row| {
        // SAFETY: pg_attribute; the array has one element, copied to the context that is current.
        unsafe {
            let form = row.fixed::<pg_sys::FormData_pg_attribute>();
            let value = row.column(pg_sys::Anum_pg_attribute_attmissingval as i32);
            let place = missing.get_mut((form.attnum as usize).wrapping_sub(1));
            if let (true, Some(value), Some(place)) = (form.atthasmissing, value, place) {
                let (mut at, mut null) = (1, false);
                let element = pg_sys::array_get_element(
                    value,
                    1,
                    &mut at,
                    -1,
                    form.attlen.into(),
                    form.attbyval,
                    form.attalign,
                    &mut null,
                );
                *place = (!null).then(|| datumCopy(element, form.attbyval, form.attlen.into()));
            }
        }
    });
    missing
}

impl<'a> Side<'a> {
    /// `numbers`: of the plan's columns in this relation, a leaf of the table. What it holds lives in the
    /// memory context that is current.
    pub fn new(
        relation: Relation,
        catalogs: &Catalogs,
        values: &'a Values<'a>,
        plan: &Rc<Plan>,
        numbers: &[Option<i16>],
        digests: &Digests,
    ) -> Self {
        let layouts: Vec<Layout> = relation
            .columns
            .iter()
            .map(|column| Layout {
                len: column.len,
                by_value: column.by_value,
                align: column.align,
            })
            .collect();
        let place = |number: &Option<i16>| {
            let at = (*number)? as usize;
            (1..=layouts.len()).contains(&at).then(|| at - 1)
        };
        let image = plan.image.iter();
        Side {
            values,
            places: numbers.iter().map(place).collect(),
            image: image
                .map(|(column, compare)| Compared {
                    column: *column,
                    compare: *compare,
                })
                .collect(),
            kinds: plan
                .columns
                .iter()
                .map(|column| values.kind(column.kind))
                .collect(),
            whole: descriptor(&layouts),
            missing: missing(catalogs, relation.oid, layouts.len()),
            digests: digests.clone(),
            plan: plan.clone(),
            relation,
            // Goes with the context that is current.
            // SAFETY: a name that lives as long as the server.
            scratch: unsafe {
                pg_sys::AllocSetContextCreateInternal(
                    pg_sys::CurrentMemoryContext,
                    c"pg_fork diff row".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                )
            },
        }
    }

    /// Runs `what` with the row's values: one for each of the plan's columns.
    pub fn with_row<R>(
        &self,
        page: &Page,
        tuple: &Tuple,
        what: impl FnOnce(&Self, &[Option<Datum>]) -> R,
    ) -> R {
        // SAFETY: what is made on the way goes with the scratch context.
        unsafe {
            let last = pg_sys::MemoryContextSwitchTo(self.scratch);
            let values = self.take_apart(page, tuple);
            let chosen: Vec<Option<Datum>> = self
                .places
                .iter()
                .map(|at| at.and_then(|at| values[at]))
                .collect();
            let result = what(self, &chosen);
            pg_sys::MemoryContextSwitchTo(last);
            pg_sys::MemoryContextReset(self.scratch);
            result
        }
    }

    unsafe fn take_apart(&self, page: &Page, tuple: &Tuple) -> Vec<Option<Datum>> {
        let count = self.relation.columns.len();
        let (mut values, mut nulls) = (vec![Datum::from(0usize); count], vec![true; count]);
        let mut header = pg_sys::HeapTupleData {
            t_len: tuple.len as u32,
            ..Default::default()
        };
        // SAFETY: a whole tuple of that form.
        unsafe {
            // Aligned as a tuple in memory is.
            let copy = pg_sys::palloc(tuple.len).cast::<u8>();
            std::ptr::copy_nonoverlapping(page.as_ptr().add(tuple.at), copy, tuple.len);
            header.t_data = copy.cast();
            pg_sys::heap_deform_tuple(
                &mut header,
                self.whole,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            (0..count)
                .map(|n| {
                    if n >= usize::from(tuple.natts()) {
                        return self.missing[n];
                    }
                    if nulls[n] {
                        return None;
                    }
                    if self.relation.columns[n].len == -1 && !self.relation.columns[n].dropped {
                        if let Some(pointer) = toast::pointer(values[n].cast_mut_ptr()) {
                            return Some(Datum::from(toast::fetch(&self.relation, &pointer)));
                        }
                    }
                    Some(values[n])
                })
                .collect()
        }
    }

    /// What is compared of a row, and what is shown.
    pub fn row(&self, page: &Page, tuple: &Tuple) -> Row {
        self.with_row(page, tuple, |side, values| {
            let mut image = side.digests.begin();
            side.image
                .iter()
                .for_each(|it| side.feed(it, values[it.column], &mut image));
            let key = match &side.plan.key {
                None => image.clone().end(),
                Some(key) => {
                    let mut digest = side.digests.begin();
                    for at in key {
                        side.feed(
                            &side.image[*at],
                            values[side.image[*at].column],
                            &mut digest,
                        );
                    }
                    digest.end()
                }
            };
            for (column, first) in &side.plan.added {
                let text = values[*column]
                    .map(|value| side.values.text(side.plan.columns[*column].kind, value));
                // As if there were no such column, where it is as it began.
                if text != *first {
                    image.add(&[2]);
                    image.add(&(*column as u32).to_le_bytes());
                    image.add(&text.unwrap_or_default());
                    image.add(&[3]);
                }
            }
            let shown = match side.plan.show {
                true => side.show(values),
                false => (String::new(), String::new()),
            };
            Row {
                key,
                image: image.end(),
                shown,
            }
        })
    }

    /// Adds a column's value: a null, or its text and the text's length.
    fn feed(&self, compared: &Compared, value: Option<Datum>, digest: &mut Digest) {
        let Some(value) = value else {
            return digest.add(&[0]);
        };
        digest.add(&[1]);
        let kind = &self.kinds[compared.column];
        let mut length = 0u64;
        match compared.compare {
            Compare::Text => self.values.print(kind, value, &mut |piece| {
                length += piece.len() as u64;
                digest.add(piece);
            }),
            compare => {
                let text = self
                    .values
                    .text(self.plan.columns[compared.column].kind, value);
                let text = canonical(compare, &text);
                length = text.len() as u64;
                digest.add(&text);
            }
        }
        digest.add(&length.to_le_bytes());
    }

    /// The key and the whole row as JSON.
    fn show(&self, values: &[Option<Datum>]) -> (String, String) {
        let columns = &self.plan.columns;
        let all = columns
            .iter()
            .enumerate()
            .map(|(n, column)| (&column.name, n));
        let key = self.plan.key.as_ref().map_or(String::new(), |key| {
            let names = self.plan.key_names.iter();
            self.object(
                names.zip(key.iter().map(|at| self.image[*at].column)),
                values,
            )
        });
        (key, self.object(all, values))
    }

    fn object<'b>(
        &self,
        columns: impl Iterator<Item = (&'b Vec<u8>, usize)>,
        values: &[Option<Datum>],
    ) -> String {
        let mut parts: Vec<(String, String)> = columns
            .map(|(name, column)| {
                let mut shown = String::new();
                match values[column] {
                    None => shown.push_str("null"),
                    Some(value) => {
                        self.values
                            .json(self.plan.columns[column].kind, value, &mut shown)
                    }
                }
                let mut title = String::new();
                quote(&text::shown(&self.values.decode(name)), &mut title);
                (title, shown)
            })
            .collect();
        shorten(&mut parts);
        let parts: Vec<String> = parts
            .into_iter()
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        format!("{{{}}}", parts.join(","))
    }
}
