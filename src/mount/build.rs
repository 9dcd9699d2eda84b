//! Makes a mounted table, by the server's own functions: no statement is run, so no event trigger either, no
//! name is looked up, and no default privilege opens the table.
#![allow(unsafe_code)] // calls into heap.c

use super::columns::Shown;
use super::label::{self, Label};
use super::names::Names;
use super::{change, members};
use crate::pg::text;
use crate::reader::relation::Catalogs;
use crate::reader::toast;
use pgrx::pg_sys::{self, Datum, Oid};
use std::collections::HashMap;
use std::ffi::{CStr, CString};

/// Where tables are made, and by whom.
pub struct Place {
    pub schema: Oid,
    pub owner: Oid,
    /// The access method `fork`.
    pub method: Oid,
}

/// A column's name here, type, modifier, number of dimensions and collation.
pub type Form<'a> = (&'a CStr, Oid, i32, i32, Oid);

/// A table that was made, and the columns of the fork's that it shows, by their names there.
pub struct Made {
    pub relation: Oid,
    pub columns: HashMap<String, MadeColumn>,
}

pub struct MadeColumn {
    pub number: i16,
    pub kind: u32,
    pub modifier: i32,
    pub collation: u32,
}

/// Makes one table whose tuples lie on pages as the fork's do: columns that are not to be seen take their
/// places and are dropped. A column whose name this database's encoding does not have is told to `unnamed`.
pub fn table(
    place: &Place,
    name: &CStr,
    columns: &[Shown],
    (there, here): (&Catalogs, &Catalogs),
    label: &Label,
    mut unnamed: impl FnMut(&Shown),
) -> Made {
    let mut names = Names::default();
    let titles: Vec<Option<CString>> = columns
        .iter()
        .map(|shown| {
            let title = (!shown.is_hidden()).then(|| names.take(&shown.column.name));
            if let Some(None) = title {
                unnamed(shown);
            }
            title.flatten()
        })
        .collect();
    let count = columns.len();
    // SAFETY: a new descriptor of that many columns; types that exist.
    let relation = unsafe {
        let form = pg_sys::CreateTemplateTupleDesc(count as i32);
        for (n, (shown, title)) in columns.iter().zip(&titles).enumerate() {
            match title {
                Some(title) => {
                    let column = &shown.column;
                    let collation = collation(there, here, column.kind.into(), shown.collation);
                    let of = (
                        title.as_c_str(),
                        column.kind.into(),
                        column.modifier,
                        shown.dimensions,
                        collation,
                    );
                    enter(form, n, of);
                }
                None => hide(form, n, shown),
            }
        }
        change::making(|| create(place, name, form, pg_sys::RELKIND_RELATION))
    };
    // SAFETY: columns of the relation that was made just now.
    unsafe {
        for (n, (shown, title)) in columns.iter().zip(&titles).enumerate() {
            let number = n as i16 + 1;
            match (title, shown.missing) {
                (None, _) => pg_sys::RemoveAttributeById(relation, number),
                (Some(_), Some(value)) => set_missing(relation, number, value, shown),
                _ => {}
            }
        }
    }
    label::set(relation.to_u32(), label);
    members::add(pg_sys::RelationRelationId, relation);
    // SAFETY: makes it seen by the rest of this transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
    let shown = columns.iter().zip(&titles).enumerate();
    let columns = shown
        .filter(|(_, (_, title))| title.is_some())
        .map(|(n, (shown, _))| {
            let made = MadeColumn {
                number: n as i16 + 1,
                kind: shown.column.kind,
                modifier: shown.column.modifier,
                collation: shown.collation,
            };
            (shown.column.name.clone(), made)
        });
    Made {
        relation,
        columns: columns.collect(),
    }
}

/// Puts a column into a descriptor.
///
/// # Safety
/// A descriptor with more than `n` columns; a type that exists.
pub unsafe fn enter(
    form: pg_sys::TupleDesc,
    n: usize,
    (name, kind, modifier, dimensions, collation): Form,
) {
    let number = n as i16 + 1;
    // SAFETY: by the caller's promise; the name is copied.
    unsafe {
        pg_sys::TupleDescInitEntry(form, number, name.as_ptr(), kind, modifier, dimensions);
        pg_sys::TupleDescInitEntryCollation(form, number, collation);
    }
}

/// Puts a column there whose values take as much room as those of the hidden one. Its type is any of the server's
/// own: the column is dropped before anyone can look at it.
unsafe fn hide(form: pg_sys::TupleDesc, n: usize, shown: &Shown) {
    let name = CString::new(format!("pg_fork hidden {}", n + 1)).unwrap_or_default();
    // SAFETY: by the caller's promise.
    unsafe {
        enter(form, n, (&name, pg_sys::INT4OID, -1, 0, pg_sys::InvalidOid));
        let count = (*form).natts as usize;
        let column = &mut (*form).attrs.as_mut_slice(count)[n];
        column.attlen = shown.column.len;
        column.attalign = shown.column.align as _;
        column.attbyval = shown.column.by_value;
        column.attstorage = pg_sys::TYPSTORAGE_PLAIN as _;
    }
}

/// Makes a relation of that form, which nobody but its owner has rights on.
///
/// # Safety
/// A whole descriptor; the name is free in the schema.
pub unsafe fn create(place: &Place, name: &CStr, form: pg_sys::TupleDesc, kind: u8) -> Oid {
    let method = match kind {
        pg_sys::RELKIND_VIEW => pg_sys::InvalidOid,
        _ => place.method,
    };
    // SAFETY: by the caller's promise; then makes it seen by the rest of this transaction.
    unsafe {
        let relation = pg_sys::heap_create_with_catalog(
            name.as_ptr(),
            place.schema,
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            place.owner,
            method,
            form,
            std::ptr::null_mut(),
            kind as _,
            pg_sys::RELPERSISTENCE_PERMANENT as _,
            false,
            false,
            pg_sys::OnCommitAction::ONCOMMIT_NOOP,
            Datum::from(0usize),
            // No default privileges.
            false,
            false,
            false,
            pg_sys::InvalidOid,
            std::ptr::null_mut(),
        );
        pg_sys::CommandCounterIncrement();
        relation
    }
}

/// What rows show that are older than the column (heap.c, `SetAttrMissing`, which takes text and calls the type's
/// input function).
unsafe fn set_missing(relation: Oid, number: i16, mut value: Datum, shown: &Shown) {
    const COLUMNS: usize = pg_sys::Natts_pg_attribute as usize;
    let column = &shown.column;
    // SAFETY: by the caller's promise: a value of the column's type; arrays as long as pg_attribute has columns.
    unsafe {
        let array = pg_sys::construct_array(
            &mut value,
            1,
            column.kind.into(),
            column.len.into(),
            column.by_value,
            column.align as _,
        );
        let catalog =
            pg_sys::table_open(pg_sys::AttributeRelationId, pg_sys::RowExclusiveLock as i32);
        let cache = pg_sys::SysCacheIdentifier::ATTNUM as i32;
        let row = pg_sys::SearchSysCacheCopy(
            cache,
            relation.into(),
            number.into(),
            Datum::from(0usize),
            Datum::from(0usize),
        );
        let (mut values, mut nulls, mut replace) = (
            [Datum::from(0usize); COLUMNS],
            [false; COLUMNS],
            [false; COLUMNS],
        );
        for (column, value) in [
            (pg_sys::Anum_pg_attribute_atthasmissing, Datum::from(true)),
            (pg_sys::Anum_pg_attribute_attmissingval, Datum::from(array)),
        ] {
            values[column as usize - 1] = value;
            replace[column as usize - 1] = true;
        }
        let new = pg_sys::heap_modify_tuple(
            row,
            (*catalog).rd_att,
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            replace.as_mut_ptr(),
        );
        pg_sys::CatalogTupleUpdate(catalog, &mut (*new).t_self, new);
        pg_sys::table_close(catalog, pg_sys::NoLock as i32);
    }
}

/// The column's collation, if it is the same here and can be used here; else the type's own.
pub fn collation(there: &Catalogs, here: &Catalogs, kind: Oid, collation: u32) -> Oid {
    // SAFETY: a look-up of a type that exists.
    let usual = unsafe { pg_sys::get_typcollation(kind) };
    if collation == usual.to_u32() || collation == 0 || usual == pg_sys::InvalidOid {
        return usual;
    }
    match same_collation(there, here, collation) {
        true => collation.into(),
        false => usual,
    }
}

fn same_collation(there: &Catalogs, here: &Catalogs, collation: u32) -> bool {
    let told = |catalogs: &Catalogs| {
        let mut told = None;
        let table = pg_sys::CollationRelationId.to_u32();
        catalogs.each(table, pg_sys::CollationOidIndexId, collation, |row| {
            // SAFETY: pg_collation, and its columns of type text.
            unsafe {
                let form = row.fixed::<pg_sys::FormData_pg_collation>();
                let text = |column: u32| {
                    let value = row.whole(column as i32)?;
                    // One that lies in a TOAST table is never met.
                    let near = toast::pointer(value.cast_mut_ptr()).is_none();
                    near.then(|| text::datum_bytes(value).into_owned())
                };
                if form.oid.to_u32() == collation {
                    told = Some((
                        catalogs.text(&form.collname),
                        (
                            form.collprovider,
                            form.collisdeterministic,
                            form.collencoding,
                        ),
                        text(pg_sys::Anum_pg_collation_collcollate),
                        text(pg_sys::Anum_pg_collation_collctype),
                        text(pg_sys::Anum_pg_collation_colliculocale),
                    ));
                }
            }
        });
        told
    };
    let (there, here) = (told(there), told(here));
    let server = text::server_encoding();
    there == here && here.is_some_and(|it| matches!(it.1 .2, -1) || it.1 .2 == server)
}
