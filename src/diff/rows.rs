//! The rows of a pair of tables that are not the same on both sides, as JSON.
#![allow(non_snake_case)] // C's names
#![allow(unsafe_code)] // builds tuples

use super::tables::{Both, Opened, Pair};
use crate::reader::kinds;
use crate::reader::relation::{Catalogs, Column, Relation};
use crate::reader::{damaged, refuse, toast, visible, At};
use pg_fork_core::pages::heap::Tuple;
use pg_fork_core::types::{Block, Page, PAGE_SIZE};
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// datum.c
    fn datumCopy(value: Datum, by_value: bool, len: i32) -> Datum;
}

const PG_ATTRIBUTE: (u32, u32) = (1249, 2659);
const PG_INDEX: (u32, u32) = (2610, 2678);
/// row_to_json(record)
const ROW_TO_JSON: u32 = 3155;

/// A row of one side.
pub struct Row {
    pub at: At,
    /// The columns of the primary key or replica identity; `None` if there is none.
    pub key: Option<String>,
    /// What tells whether two rows are the same: the columns that both sides have, by the fork's names,
    /// and what a column that the fork added has beyond its first value.
    pub image: String,
    /// The whole row.
    pub row: String,
}

/// Turns tuples of one side into JSON.
struct Side {
    at: At,
    relation: Relation,
    whole: pg_sys::TupleDesc,
    key: Option<Shape>,
    /// The columns that both sides have.
    image: Shape,
    /// Those that the fork added, and their first values.
    added: Option<(Shape, String)>,
    row: Shape,
    missing: Vec<Option<Datum>>,
    /// Emptied after each row.
    scratch: pg_sys::MemoryContext,
}

/// Columns to show (from 0) under these names.
struct Shape {
    columns: Vec<usize>,
    form: pg_sys::TupleDesc,
}

impl Shape {
    fn new(all: &[Column], chosen: &[(usize, String)]) -> Shape {
        // SAFETY: a descriptor of as many columns; lives in the context that is current.
        let form = unsafe {
            let form = pg_sys::CreateTemplateTupleDesc(chosen.len() as i32);
            for (n, (column, name)) in chosen.iter().enumerate() {
                let name = std::ffi::CString::new(name.as_str()).unwrap_or_default();
                let column = &all[*column];
                let number = (n + 1) as i16;
                pg_sys::TupleDescInitEntry(
                    form,
                    number,
                    name.as_ptr(),
                    column.kind.into(),
                    column.modifier,
                    0,
                );
            }
            pg_sys::BlessTupleDesc(form)
        };
        Shape {
            columns: chosen.iter().map(|(column, _)| *column).collect(),
            form,
        }
    }

    /// The row as JSON text.
    unsafe fn json(&self, values: &[Datum], nulls: &[bool]) -> String {
        let mut chosen: Vec<Datum> = self.columns.iter().map(|n| values[*n]).collect();
        let mut none: Vec<bool> = self.columns.iter().map(|n| nulls[*n]).collect();
        // SAFETY: as many values as the descriptor has columns, of their types.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(self.form, chosen.as_mut_ptr(), none.as_mut_ptr());
            let record = pg_sys::heap_copy_tuple_as_datum(tuple, self.form);
            let json = pg_sys::OidFunctionCall1Coll(ROW_TO_JSON.into(), pg_sys::InvalidOid, record);
            <String as FromDatum>::from_datum(json, false).unwrap_or_default()
        }
    }
}

/// The columns of the index that tells rows apart, from 0.
fn key_columns(catalogs: &Catalogs, table: u32) -> Option<Vec<usize>> {
    let (mut primary, mut identity) = (None, None);
    catalogs.each(PG_INDEX.0, PG_INDEX.1, table, |row| {
        let flag = |column: i32| {
            row.column(column)
                .is_some_and(|value| value.value() & 1 != 0)
        };
        let of_this = row.column(2).is_some_and(|oid| oid.value() as u32 == table);
        // indkey (16), of which indnkeyatts (4) tell rows apart.
        let keys = row.column(16).zip(row.column(4)).map(|(keys, count)| {
            // SAFETY: an int2vector: 24 bytes before its values (c.h).
            let keys: &[i16] = unsafe {
                let at = keys.cast_mut_ptr::<u8>().add(24).cast::<i16>();
                std::slice::from_raw_parts(at, count.value() as i16 as usize)
            };
            keys.iter()
                .map(|n| (*n as usize).wrapping_sub(1))
                .collect::<Vec<usize>>()
        });
        if of_this && flag(11) {
            if flag(7) {
                primary = keys;
            } else if flag(15) {
                identity = keys;
            }
        }
    });
    primary.or(identity)
}

/// The first values of columns that were added to rows that are older.
fn missing(catalogs: &Catalogs, relation: &Relation) -> Vec<Option<Datum>> {
    let mut missing = vec![None; relation.columns.len()];
    catalogs.each(PG_ATTRIBUTE.0, PG_ATTRIBUTE.1, relation.oid, |row| {
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

impl Side {
    unsafe fn new(at: At, catalogs: &Catalogs, relation: &Relation, shape: &SideShape) -> Side {
        let columns = &relation.columns;
        let live = columns.iter().enumerate().filter(|(_, it)| !it.dropped);
        let row: Vec<(usize, String)> = live.map(|(n, it)| (n, it.name.clone())).collect();
        // SAFETY: a descriptor of as many columns. It only has to tell where each value lies.
        let whole = unsafe {
            let whole = pg_sys::CreateTemplateTupleDesc(columns.len() as i32);
            for (n, column) in columns.iter().enumerate() {
                let number = (n + 1) as i16;
                pg_sys::TupleDescInitEntry(whole, number, c"".as_ptr(), pg_sys::INT4OID, -1, 0);
                let place = &mut (*whole).attrs.as_mut_slice(columns.len())[n];
                place.attlen = column.len;
                place.attalign = column.align as _;
                place.attbyval = column.by_value;
                place.attcacheoff = -1;
            }
            whole
        };
        let missing = missing(catalogs, relation);
        let added = (!shape.added.is_empty()).then(|| {
            let added = Shape::new(columns, &shape.added);
            let values: Vec<Datum> = missing
                .iter()
                .map(|it| it.unwrap_or(Datum::from(0usize)))
                .collect();
            let nulls: Vec<bool> = missing.iter().map(Option::is_none).collect();
            // SAFETY: a value or a null for each column.
            let first = unsafe { added.json(&values, &nulls) };
            (added, first)
        });
        Side {
            at,
            added,
            whole,
            key: shape.key.as_ref().map(|key| Shape::new(columns, key)),
            image: Shape::new(columns, &shape.image),
            row: Shape::new(columns, &row),
            missing,
            relation: relation.clone(),
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

    fn show(&mut self, page: &Page, tuple: &Tuple) -> Row {
        let count = self.relation.columns.len();
        let (mut values, mut nulls) = (vec![Datum::from(0usize); count], vec![true; count]);
        let mut header = pg_sys::HeapTupleData {
            t_len: tuple.len as u32,
            ..Default::default()
        };
        // SAFETY: a whole tuple of that form; what is made on the way goes with the scratch context.
        unsafe {
            let last = pg_sys::MemoryContextSwitchTo(self.scratch);
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
            for n in 0..count {
                if n >= usize::from(tuple.natts()) {
                    nulls[n] = self.missing[n].is_none();
                    values[n] = self.missing[n].unwrap_or(Datum::from(0usize));
                } else if !nulls[n] && self.relation.columns[n].len == -1 {
                    if let Some(pointer) = toast::pointer(values[n].cast_mut_ptr()) {
                        values[n] = Datum::from(toast::fetch(&self.relation, &pointer));
                    }
                }
            }
            let mut image = self.image.json(&values, &nulls);
            if let Some((shape, first)) = &self.added {
                let added = shape.json(&values, &nulls);
                if added != *first {
                    image.push_str(&added);
                }
            }
            let row = Row {
                at: self.at,
                key: self.key.as_ref().map(|key| key.json(&values, &nulls)),
                image,
                row: self.row.json(&values, &nulls),
            };
            pg_sys::MemoryContextSwitchTo(last);
            pg_sys::MemoryContextReset(self.scratch);
            row
        }
    }
}

/// The rows of both sides that are not the very same tuple, block by block.
pub struct Rows {
    both: Rc<Both>,
    now: Option<Side>,
    base: Option<Side>,
    blocks: Box<dyn Iterator<Item = Block>>,
    lengths: (Block, Block),
    /// The same file on both sides: tuples can be told by their places.
    by_place: bool,
    pages: [Box<Page>; 2],
    tuples: [Vec<Tuple>; 2],
    waiting: VecDeque<Row>,
}

impl Rows {
    /// The types of all columns are ones of this database ([`foreign_column`]).
    pub fn new(both: &Rc<Both>, pair: &Pair, opened: &Opened) -> Rows {
        both.kept(|| Rows::begin(both, pair, opened))
    }

    fn begin(both: &Rc<Both>, pair: &Pair, opened: &Opened) -> Rows {
        let shapes = Shapes::of(both, pair, opened);
        // SAFETY: in memory that outlives the rows.
        let side = |at, catalogs: &Catalogs, relation: &Option<Relation>, shape: &SideShape| unsafe {
            let relation = relation.as_ref()?;
            Some(Side::new(at, catalogs, relation, shape))
        };
        let now = side(At::Now, &both.now, &opened.now, &shapes.now);
        let base = side(At::Cut, &both.base, &opened.base, &shapes.base);
        let length = |side: &Option<Side>| side.as_ref().map_or(0, |it| it.relation.pages.count());
        let lengths = (length(&now), length(&base));
        let blocks: Box<dyn Iterator<Item = Block>> = match &opened.blocks {
            Some(blocks) => Box::new(blocks.clone().into_iter()),
            None => Box::new(0..lengths.0.max(lengths.1)),
        };
        Rows {
            both: both.clone(),
            now,
            base,
            blocks,
            lengths,
            by_place: opened.blocks.is_some(),
            pages: [Box::new([0; PAGE_SIZE]), Box::new([0; PAGE_SIZE])],
            tuples: [Vec::new(), Vec::new()],
            waiting: VecDeque::new(),
        }
    }

    fn read(&mut self, block: Block) {
        pgrx::check_for_interrupts!();
        let snapshot = self.both.snapshot;
        let sides = [(&self.now, self.lengths.0), (&self.base, self.lengths.1)];
        for (n, (side, length)) in sides.into_iter().enumerate() {
            self.tuples[n].clear();
            let Some(side) = side.as_ref().filter(|_| block < length) else {
                continue;
            };
            let relation = &side.relation;
            relation
                .pages
                .read(block, std::ptr::null_mut(), &mut self.pages[n]);
            if let Err(error) = visible::on_page(&self.pages[n], snapshot, &mut self.tuples[n]) {
                damaged(relation.db, relation.oid, error);
            }
        }
        if self.by_place {
            self.leave_out_same();
        }
        let [now, base] = &self.tuples;
        for (side, page, tuples) in [
            (&mut self.now, &self.pages[0], now),
            (&mut self.base, &self.pages[1], base),
        ] {
            if let Some(side) = side {
                let shown = tuples.iter().map(|tuple| side.show(page, tuple));
                self.waiting.extend(shown);
            }
        }
    }

    /// A tuple in its place with the bytes it had is the row that it was: TOAST values are never changed
    /// while a row has them.
    fn leave_out_same(&mut self) {
        let bytes = |page: &Page, tuple: &Tuple| {
            // Behind t_hoff lie the null bitmap and the data; what is before is about visibility.
            let null = tuple.infomask & 1;
            let from = tuple.at + if null != 0 { 23 } else { tuple.hoff };
            (
                tuple.natts(),
                null,
                page[from..tuple.at + tuple.len].to_vec(),
            )
        };
        let base: HashMap<u16, _> = self.tuples[1]
            .iter()
            .map(|tuple| (tuple.number, bytes(&self.pages[1], tuple)))
            .collect();
        let same: Vec<u16> = self.tuples[0]
            .iter()
            .filter(|tuple| base.get(&tuple.number) == Some(&bytes(&self.pages[0], tuple)))
            .map(|tuple| tuple.number)
            .collect();
        for tuples in &mut self.tuples {
            tuples.retain(|tuple| same.binary_search(&tuple.number).is_err());
        }
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        loop {
            if let Some(row) = self.waiting.pop_front() {
                return Some(row);
            }
            let block = self.blocks.next()?;
            self.read(block);
        }
    }
}

#[derive(Default)]
struct SideShape {
    key: Option<Vec<(usize, String)>>,
    image: Vec<(usize, String)>,
    added: Vec<(usize, String)>,
}

/// Which columns of each side are the same column, and which make the key.
#[derive(Default)]
struct Shapes {
    now: SideShape,
    base: SideShape,
}

impl Shapes {
    fn of(both: &Both, pair: &Pair, opened: &Opened) -> Shapes {
        let (now, base) = (opened.now.as_ref(), opened.base.as_ref());
        let named = |relation: &Relation| -> Vec<(usize, String)> {
            let live = relation
                .columns
                .iter()
                .enumerate()
                .filter(|(_, it)| !it.dropped);
            live.map(|(n, it)| (n, it.name.clone())).collect()
        };
        let key_of = |catalogs: &Catalogs, relation: Option<&Relation>| {
            relation.and_then(|it| key_columns(catalogs, it.oid))
        };
        let mut shapes = Shapes::default();
        let (Some(now), Some(base)) = (now, base) else {
            for (shape, catalogs, relation) in [
                (&mut shapes.now, &both.now, now),
                (&mut shapes.base, &both.base, base),
            ] {
                if let Some(relation) = relation {
                    shape.image = named(relation);
                    let key = key_of(catalogs, Some(relation));
                    shape.key = key.and_then(|key| pick(&shape.image, &key));
                }
            }
            return shapes;
        };
        // The same table: by number. Made anew: by name.
        let same_table = matches!((&pair.now, &pair.base), (Some(a), Some(b)) if a.oid == b.oid);
        let all_base = named(base);
        for (n, name) in named(now) {
            let there = all_base.iter().find(|(m, other)| match same_table {
                true => *m == n,
                false => *other == name,
            });
            match there {
                Some((m, _)) => {
                    shapes.now.image.push((n, name.clone()));
                    shapes.base.image.push((*m, name));
                }
                None => shapes.now.added.push((n, name)),
            }
        }
        let key = key_of(&both.now, Some(now)).and_then(|key| {
            let mine = pick(&shapes.now.image, &key)?;
            let theirs = mine.iter().map(|(_, name)| {
                shapes
                    .base
                    .image
                    .iter()
                    .find(|(_, other)| other == name)
                    .cloned()
            });
            Some((mine.clone(), theirs.collect::<Option<Vec<_>>>()?))
        });
        if let Some((mine, theirs)) = key {
            (shapes.now.key, shapes.base.key) = (Some(mine), Some(theirs));
        }
        shapes
    }
}

fn pick(columns: &[(usize, String)], key: &[usize]) -> Option<Vec<(usize, String)>> {
    let one = |n: &usize| columns.iter().find(|(column, _)| column == n).cloned();
    key.iter().map(one).collect()
}

/// The first column whose type is not one of the database that this session is in.
pub fn foreign_column(both: &Both, opened: &Opened) -> Option<String> {
    // SAFETY: a plain variable.
    let here = Catalogs::open(unsafe { pg_sys::MyDatabaseId }.to_u32());
    let sides = [(&both.now, &opened.now), (&both.base, &opened.base)];
    let mut columns = sides.into_iter().flat_map(|(there, relation)| {
        let columns = relation.iter().flat_map(|it| &it.columns);
        columns.filter(|it| !it.dropped).map(move |it| (there, it))
    });
    let foreign = columns.find(|(there, column)| !kinds::same(&here, there, column.kind));
    foreign.map(|(_, column)| column.name.clone())
}

/// Raises 42704 if a type is not one of the database that this session is in.
pub fn check_types(both: &Both, opened: &Opened) {
    if let Some(column) = foreign_column(both, opened) {
        refuse(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("the type of column \"{column}\" does not exist in the fork any more"),
            "Mount the fork's cut in its source with fork_mount(..., at => 'cut') to see the rows.",
        );
    }
}
