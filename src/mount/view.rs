//! A partitioned table is mounted as a view of its mounted partitions.
//!
//! It is made of the numbers of what was made: nothing is looked up by its name.
#![allow(unsafe_code)] // calls into view.c
#![allow(non_snake_case)] // a function of the server's

use super::build::{self, Made, Place};
use super::columns::Shown;
use super::label::{self, Label};
use super::names::Names;
use super::query::{self, Column};
use super::tables::Partitions;
use super::{change, members};
use crate::pg::catalogs::{self, Depend, Rewrite};
use crate::pg::text;
use crate::pg::tuple::Catalog;
use crate::reader::relation::Catalogs;
use crate::reader::rights::{self, OnTable, Reader};
use crate::reader::{self, At};
use pgrx::pg_sys::{self, Oid, Query};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::ffi::CStr;

#[pg_guard]
unsafe extern "C-unwind" {
    fn StoreViewQuery(view: Oid, query: *mut Query, replace: bool);
}

/// Makes a view of the partitions, with those of the columns that all of them show. `left_out` is told the others.
pub fn make(
    place: &Place,
    name: &CStr,
    columns: &[Shown],
    partitions: &[&Made],
    (there, here): (&Catalogs, &Catalogs),
    label: &Label,
    mut left_out: impl FnMut(&Shown),
) {
    let mut names = Names::default();
    let mut shown = Vec::new();
    for of in columns.iter().filter(|it| !it.is_hidden()) {
        let numbers: Option<Vec<i16>> = partitions
            .iter()
            .map(|made| {
                let made = made.columns.get(&of.column.name)?;
                let form = (of.column.kind, of.column.modifier, of.collation);
                ((made.kind, made.modifier, made.collation) == form).then_some(made.number)
            })
            .collect();
        let (Some(numbers), Some(name)) = (numbers, names.take(&of.column.name)) else {
            left_out(of);
            continue;
        };
        let kind = Oid::from(of.column.kind);
        shown.push((
            Column {
                name,
                kind,
                modifier: of.column.modifier,
                collation: build::collation(there, here, kind, of.collation),
                numbers,
            },
            of.dimensions,
        ));
    }
    // SAFETY: a new descriptor of that many columns, of types that exist; a query of tables that exist.
    let view = unsafe {
        let form = pg_sys::CreateTemplateTupleDesc(shown.len() as i32);
        for (n, (column, dimensions)) in shown.iter().enumerate() {
            let of = (
                column.name.as_c_str(),
                column.kind,
                column.modifier,
                *dimensions,
                column.collation,
            );
            build::enter(form, n, of);
        }
        let view = build::create(place, name, form, pg_sys::RELKIND_VIEW);
        let columns: Vec<Column> = shown.into_iter().map(|(column, _)| column).collect();
        StoreViewQuery(view, query::of(&columns, partitions), false);
        pg_sys::CommandCounterIncrement();
        view
    };
    depend_on(view, partitions);
    label::set(view.to_u32(), label);
    members::add(pg_sys::RelationRelationId, view);
    // SAFETY: makes it seen by the rest of this transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// The view goes with a partition, but not with a type of a column: that takes the column of each mounted table,
/// and must not take a member of the extension with it.
fn depend_on(view: Oid, partitions: &[&Made]) {
    let mut rule = pg_sys::InvalidOid;
    let rewrite = Catalog::read(catalogs::REWRITE);
    rewrite.each(
        catalogs::REWRITE_BY_RELATION,
        catalogs::REWRITE_RELATION,
        view.to_u32(),
        |row| {
            // SAFETY: pg_rewrite.
            rule = unsafe { row.fixed::<Rewrite>() }.oid;
        },
    );
    let address = |class: Oid, object: Oid| pg_sys::ObjectAddress {
        classId: class,
        objectId: object,
        objectSubId: 0,
    };
    let relation = |object: Oid| address(pg_sys::RelationRelationId, object);
    let myself = address(catalogs::REWRITE.into(), rule);
    use pg_sys::DependencyType::*;
    // SAFETY: addresses of objects that exist.
    unsafe {
        pg_sys::deleteDependencyRecordsFor(catalogs::REWRITE.into(), rule, false);
        // As the server has it for the rule that makes a view (rewriteDefine.c, `InsertRule`).
        pg_sys::recordDependencyOn(&myself, &relation(view), DEPENDENCY_INTERNAL);
        for made in partitions {
            pg_sys::recordDependencyOn(&myself, &relation(made.relation), DEPENDENCY_NORMAL);
        }
    }
}

thread_local! {
    /// The views that this transaction may read.
    static CHECKED: RefCell<HashSet<Oid>> = RefCell::default();
}

/// At the end of a transaction, or one that it was nested in.
pub fn forget() {
    CHECKED.with_borrow_mut(HashSet::clear);
}

/// Before a statement reads a mounted view: its owner must be allowed to read the partitioned table now, whatever
/// he may read of the partitions; these must be the same.
///
/// Raises 25006 if rows are to be written or locked, 42501, 42P01 if the table is gone, 42804 if partitions came or went, and what [`reader::hold`] raises.
pub fn check(view: Oid, writes: bool) {
    if !writes && CHECKED.with_borrow(|checked| checked.contains(&view)) {
        return;
    }
    let Some(label) = label::of(view.to_u32()) else {
        return;
    };
    // SAFETY: a view that the statement has locked.
    let (owner, columns) = unsafe { told(view) };
    if writes {
        // SAFETY: the view exists; a palloc'd string.
        change::read_only_named(&unsafe { text::server_string(pg_sys::get_rel_name(view)) });
    }
    let place = reader::hold(label.db, label.at);
    rights::may_look_into(label.db, owner);
    let there = Catalogs::open(place);
    let both = on_both(&label, &there, owner);
    let (Some((on, now)), Some(class)) = (both, there.class(label.relation)) else {
        reader::refuse(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            "the partitioned table that a mounted view shows does not exist in the fork any more",
            "DROP VIEW removes the mounted view; fork_mount with at => 'cut' shows it as it was.",
        );
    };
    let name = there.text(&class.relname);
    let may = |n: i16| on.reads(n) && now.as_ref().is_none_or(|now| now.reads(n));
    let known = there.columns(label.relation, class.relnatts);
    let allowed = columns.iter().all(|column| {
        let at = known
            .iter()
            .position(|it| !it.dropped && it.name == *column);
        at.map_or(on.whole && may(0), |n| may(n as i16 + 1))
    });
    if !allowed {
        reader::refuse(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for table {name} of the fork"),
            "The owner of the mounted view must be allowed to read the table there.",
        );
    }
    if leaves(&there, &Partitions::new(&there), label.relation) != shown(view) {
        reader::refuse(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("partitions of table \"{name}\" were attached or detached in the fork"),
            "Mount it again: fork_unmount, then fork_mount.",
        );
    }
    CHECKED.with_borrow_mut(|checked| checked.insert(view));
}

/// The rights on a table there, and on the same one now in the fork where its cut is shown and the table is still
/// there.
pub fn on_both(label: &Label, there: &Catalogs, role: Oid) -> Option<(OnTable, Option<OnTable>)> {
    let on = Reader::new(there, role).on_table(there, label.relation)?;
    if label.at == At::Now {
        return Some((on, None));
    }
    let now = Catalogs::open(reader::hold(label.db, At::Now));
    let now = Reader::new(&now, role).on_table(&now, label.relation);
    Some((on, now))
}

/// A view's owner, and the names of its columns.
unsafe fn told(view: Oid) -> (Oid, Vec<String>) {
    // SAFETY: a view that the statement has locked.
    unsafe {
        let relation = pg_sys::relation_open(view, pg_sys::NoLock as i32);
        let form = (*relation).rd_att;
        let columns = (*form).attrs.as_slice((*form).natts as usize);
        let live = columns.iter().filter(|column| !column.attisdropped);
        let names = live.map(|column| text::server_string(column.attname.data.as_ptr()));
        let told = ((*(*relation).rd_rel).relowner, names.collect());
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        told
    }
}

/// The partitions with rows of their own below a table.
pub fn leaves(there: &Catalogs, partitions: &Partitions, parent: u32) -> BTreeSet<u32> {
    let below = partitions.below(parent);
    let partitioned = |oid: u32| {
        there
            .class(oid)
            .is_some_and(|class| class.relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE)
    };
    below.into_iter().filter(|oid| !partitioned(*oid)).collect()
}

/// The tables of the fork whose mounted ones the view shows.
fn shown(view: Oid) -> BTreeSet<u32> {
    let mut shown = BTreeSet::new();
    let mut rules = Vec::new();
    let rewrite = Catalog::read(catalogs::REWRITE);
    rewrite.each(
        catalogs::REWRITE_BY_RELATION,
        catalogs::REWRITE_RELATION,
        view.to_u32(),
        |row| {
            // SAFETY: pg_rewrite.
            rules.push(unsafe { row.fixed::<Rewrite>() }.oid);
        },
    );
    for rule in rules {
        let from = [
            (catalogs::DEPEND_CLASS, catalogs::REWRITE),
            (catalogs::DEPEND_OBJECT, rule.to_u32()),
        ];
        Catalog::read(catalogs::DEPEND).find(catalogs::DEPEND_BY_DEPENDER, &from, |row| {
            // SAFETY: pg_depend.
            let row = unsafe { row.fixed::<Depend>() };
            if row.on_class == pg_sys::RelationRelationId && row.on_object != view {
                shown.extend(label::of(row.on_object.to_u32()).map(|label| label.relation));
            }
        });
    }
    shown
}
