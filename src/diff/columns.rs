//! Which columns of the two sides are the same column, which tell rows apart, and what an added column began with.
#![allow(unsafe_code)] // rows of catalogs

use super::heads::Head;
use super::values::kinds::name_bytes;
use super::values::{bytes_of, Values};
use crate::reader::relation::{self, Catalogs};
use crate::reader::toast;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use std::ffi::CStr;

/// A column of a table, as one side has it.
#[derive(Clone, Debug)]
pub struct Column {
    pub number: i16,
    pub name: Vec<u8>,
    pub kind: u32,
    pub modifier: i32,
    /// Made from the others: it tells nothing of its own.
    pub generated: bool,
    pub not_null: bool,
    pub has_default: bool,
    pub has_missing: bool,
}

/// The columns of a table that were not dropped.
pub fn of(catalogs: &Catalogs, table: u32) -> Vec<Column> {
    let mut columns = Vec::new();
    let (catalog, index) = (
        pg_sys::AttributeRelationId.to_u32(),
        pg_sys::AttributeRelidNumIndexId,
    );
    catalogs.each(catalog, index, table, |row| {
        // SAFETY: pg_attribute.
        let form = unsafe { row.fixed::<pg_sys::FormData_pg_attribute>() };
        if form.attrelid.to_u32() != table || form.attnum <= 0 || form.attisdropped {
            return;
        }
        columns.push(Column {
            number: form.attnum,
            name: name_bytes(&form.attname),
            kind: form.atttypid.to_u32(),
            modifier: form.atttypmod,
            generated: form.attgenerated != 0,
            not_null: form.attnotnull,
            has_default: form.atthasdef,
            has_missing: form.atthasmissing,
        });
    });
    columns.sort_by_key(|column| column.number);
    columns
}

/// How two columns of different types are compared, where their texts differ though they say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Text,
    /// Of exact numbers: without zeros at the end of the fraction.
    Number,
    /// Of which one is padded with blanks.
    Trimmed,
    /// Of which one is json, the other jsonb.
    Json,
}

fn compare(now: &Column, base: &Column) -> Compare {
    let number = |kind: u32| {
        matches!(
            Oid::from(kind),
            pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID | pg_sys::NUMERICOID
        )
    };
    let is = |kind: u32, oid: Oid| Oid::from(kind) == oid;
    let either = |oid: Oid| is(now.kind, oid) || is(base.kind, oid);
    let padded = |column: &Column| is(column.kind, pg_sys::BPCHAROID);
    if (now.kind, now.modifier) == (base.kind, base.modifier) {
        Compare::Text
    } else if number(now.kind) && number(base.kind) {
        Compare::Number
    } else if padded(now) || padded(base) {
        Compare::Trimmed
    } else if now.kind != base.kind && either(pg_sys::JSONOID) && either(pg_sys::JSONBOID) {
        Compare::Json
    } else {
        Compare::Text
    }
}

/// What is compared of a table's rows.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// The columns that both sides have: places in the lists of either, and how they are compared.
    pub same: Vec<(usize, usize, Compare)>,
    /// Of these, those that tell rows apart.
    pub key: Option<Vec<usize>>,
    /// Those that the fork added: places in its list.
    pub added: Vec<usize>,
}

/// The columns of both sides. `same_table`: it was not made anew, so that columns keep their numbers.
pub fn shape(now: &[Column], base: &[Column], same_table: bool) -> Shape {
    let mut found = Shape::default();
    let mut pairs: Vec<Option<usize>> = vec![None; now.len()];
    if same_table {
        for (n, column) in now.iter().enumerate() {
            pairs[n] = base.iter().position(|other| other.number == column.number);
        }
    }
    // A column that was made anew under its name is told as the column that it was.
    for n in 0..now.len() {
        if pairs[n].is_none() {
            let fits = |m: &usize| base[*m].name == now[n].name && !pairs.contains(&Some(*m));
            pairs[n] = (0..base.len()).find(fits);
        }
    }
    for (n, pair) in pairs.into_iter().enumerate() {
        match pair {
            Some(m) => found.same.push((n, m, compare(&now[n], &base[m]))),
            None if now[n].generated => {}
            None => found.added.push(n),
        }
    }
    found
}

/// Chooses what tells rows apart, by what did on either side: columns by their numbers.
///
/// First what does on both sides. Then what did at the cut: a key that was changed or dropped is still what
/// the rows were known by. Then what does now: a key that was added; rows may share it at the cut.
pub fn choose_key(
    shape: &mut Shape,
    (now, base): (&[Column], &[Column]),
    (now_key, base_key): (Option<Vec<i16>>, Option<Vec<i16>>),
) {
    let places = |key: Option<Vec<i16>>, number: &dyn Fn(usize) -> i16| -> Option<Vec<usize>> {
        let place = |wanted: &i16| (0..shape.same.len()).find(|at| number(*at) == *wanted);
        key?.iter().map(place).collect()
    };
    let now_key = places(now_key, &|at| now[shape.same[at].0].number);
    let base_key = places(base_key, &|at| base[shape.same[at].1].number);
    shape.key = base_key.or(now_key).filter(|key| !key.is_empty());
}

/// The columns of the index that tells rows apart: of the primary key, or of the replica identity.
pub fn key(catalogs: &Catalogs, table: u32) -> Option<Vec<i16>> {
    let (mut primary, mut identity) = (None, None);
    let (catalog, index) = (
        pg_sys::IndexRelationId.to_u32(),
        pg_sys::IndexIndrelidIndexId,
    );
    catalogs.each(catalog, index, table, |row| {
        // SAFETY: pg_index up to indkey, whose values lie behind the struct (c.h, `int2vector`).
        let form = unsafe { row.fixed::<pg_sys::FormData_pg_index>() };
        if form.indrelid.to_u32() != table || !form.indisvalid {
            return;
        }
        let count = form.indnkeyatts.max(0) as usize;
        let indkey = row.column(pg_sys::Anum_pg_index_indkey as i32);
        let numbers = indkey.map(|value| {
            // SAFETY: an int2vector in the row: 20 bytes behind its own header, then its values.
            let bytes = unsafe { bytes_of(value) };
            let numbers = bytes.get(20..).unwrap_or_default().chunks_exact(2);
            let numbers = numbers.map(|it| i16::from_ne_bytes([it[0], it[1]]));
            numbers.take(count).collect::<Vec<i16>>()
        });
        let place = match (form.indisprimary, form.indisreplident) {
            (true, _) => &mut primary,
            (false, true) => &mut identity,
            _ => return,
        };
        *place =
            numbers.filter(|numbers| numbers.len() == count && numbers.iter().all(|it| *it > 0));
    });
    primary.or(identity)
}

/// What an added column began with.
#[derive(Clone, Copy, Debug)]
pub enum First {
    Value(Option<Datum>),
    /// Each row began with a value of its own, or nobody knows any more.
    Unknown,
}

/// pg_attrdef, whose rows may lie in its TOAST table (pg_attrdef.h).
const DEFAULTS: (u32, u32) = (2604, 2656);
const ADNUM: i32 = 3;
const ADBIN: i32 = 4;

/// The value of a column's default, if it is one that no code has to be run for.
pub fn constant_default(catalogs: &Catalogs, table: u32, column: &Column) -> First {
    if !column.has_default {
        return First::Value(None);
    }
    let mut told = None;
    catalogs.each(DEFAULTS.0, DEFAULTS.1, table, |row| {
        if row.column(ADNUM).map(|number| number.value() as i16) == Some(column.number) {
            if let Some(value) = row.column(ADBIN) {
                // SAFETY: a pg_node_tree, in the row or in the catalog's TOAST table.
                let value = match unsafe { toast::pointer(value.cast_mut_ptr()) } {
                    None => Some(value),
                    Some(pointer) => relation::open(catalogs.db, DEFAULTS.0)
                        .map(|catalog| Datum::from(toast::fetch(&catalog, &pointer))),
                };
                // SAFETY: as above.
                told = value.map(|value| unsafe { bytes_of(value) }.to_vec());
            }
        }
    });
    match told {
        Some(tree) => constant(&tree),
        None => First::Unknown,
    }
}

/// The value of an expression that is a constant, or a constant cast by functions of the server's own.
fn constant(tree: &[u8]) -> First {
    if !runs_only_the_servers(tree) {
        return First::Unknown;
    }
    let tree = crate::pg::text::c_string(tree.to_vec());
    // A cast that fails says nothing of what rows began with.
    PgTryBuilder::new(|| fold(&tree))
        .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |error| {
            error.rethrow()
        })
        .catch_others(|_| First::Unknown)
        .execute()
}

fn fold(tree: &CStr) -> First {
    // SAFETY: an expression of a catalog's; what is left of it after folding is looked at by its tag.
    unsafe {
        let mut node = pg_sys::stringToNode(tree.as_ptr()).cast::<pg_sys::Node>();
        node = pg_sys::eval_const_expressions(std::ptr::null_mut(), node);
        loop {
            match (*node).type_ {
                pg_sys::NodeTag::T_RelabelType => {
                    node = (*node.cast::<pg_sys::RelabelType>()).arg.cast();
                }
                pg_sys::NodeTag::T_CoerceToDomain => {
                    node = (*node.cast::<pg_sys::CoerceToDomain>()).arg.cast();
                }
                pg_sys::NodeTag::T_Const => {
                    let value = &*node.cast::<pg_sys::Const>();
                    return First::Value((!value.constisnull).then_some(value.constvalue));
                }
                _ => return First::Unknown,
            }
        }
    }
}

/// Whether folding the expression can call no function but the server's own casts: it is made of constants and
/// changes of type, by functions below `FirstNormalObjectId` if by any. Nodes are told by the words behind `{`
/// (outfuncs.c).
fn runs_only_the_servers(tree: &[u8]) -> bool {
    let text = String::from_utf8_lossy(tree);
    let nodes = text.split('{').skip(1);
    let mut kinds = nodes.map(|node| node.split([' ', '}']).next().unwrap_or_default());
    let known = kinds.all(|kind| {
        matches!(
            kind,
            "CONST" | "FUNCEXPR" | "RELABELTYPE" | "COERCETODOMAIN"
        )
    });
    let mut words = text.split_ascii_whitespace();
    let mut own = true;
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|number| number.parse::<u32>().ok());
        match word {
            ":funcid" => own &= number().is_some_and(|number| number < pg_sys::FirstNormalObjectId),
            ":funcformat" => {
                let cast = [
                    pg_sys::CoercionForm::COERCE_EXPLICIT_CAST,
                    pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
                ];
                own &= number().is_some_and(|form| cast.contains(&form));
            }
            _ => {}
        }
    }
    known && own
}

/// Whether the table's columns are not as they were: a name, a type, an order, one more or less.
pub fn is_altered(now: &[Column], base: &[Column]) -> bool {
    let form = |columns: &[Column]| -> Vec<(i16, Vec<u8>, u32, i32)> {
        let told = columns.iter();
        told.map(|it| (it.number, it.name.clone(), it.kind, it.modifier))
            .collect()
    };
    form(now) != form(base)
}

/// The values by which an added column's rows are told: the text of what it began with.
pub fn first_text(values: &Values, column: &Column, first: First) -> Option<Option<Vec<u8>>> {
    match first {
        First::Unknown => None,
        First::Value(value) => Some(value.map(|value| values.text(column.kind, value))),
    }
}

/// A leaf's columns in the order of its table's: the number of each, by name.
pub fn of_leaf(
    catalogs: &Catalogs,
    head: &Head,
    leaf: u32,
    columns: &[Column],
) -> Vec<Option<i16>> {
    if leaf == head.oid {
        return columns.iter().map(|column| Some(column.number)).collect();
    }
    let own = of(catalogs, leaf);
    let number = |column: &Column| {
        own.iter()
            .find(|it| it.name == column.name)
            .map(|it| it.number)
    };
    columns.iter().map(number).collect()
}
