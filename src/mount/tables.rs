//! The tables of another database, as its catalogs list them.
#![allow(unsafe_code)] // rows of catalogs, as C structs

use crate::pg::catalogs::{self, Inherits};
use crate::pg::text;
use crate::reader::refuse;
use crate::reader::relation::Catalogs;
use crate::reader::rights::Reader;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CStr;

/// A table of the fork.
pub struct Table {
    pub oid: u32,
    pub schema: u32,
    pub schema_name: String,
    pub name: String,
    pub natts: i16,
    /// Row security hides rows from the role.
    pub filtered: bool,
    /// The role may read all columns.
    pub whole: bool,
    /// It has no rows of its own, but partitions.
    pub partitioned: bool,
    partition: bool,
}

impl Table {
    /// How messages name it.
    pub fn title(&self) -> String {
        format!("\"{}.{}\"", self.schema_name, self.name)
    }
}

/// The tables of users, partitioned ones too, in schemas that the role may use, in the order of their names.
pub fn all_tables(there: &Catalogs, role: Oid) -> Vec<Table> {
    let reader = Reader::new(there, role);
    let mut schemas = HashMap::new();
    there.all(pg_sys::NamespaceRelationId.to_u32(), |row| {
        // SAFETY: pg_namespace.
        let row = unsafe { row.fixed::<pg_sys::FormData_pg_namespace>() };
        schemas.insert(row.oid.to_u32(), there.text(&row.nspname));
    });
    let mut tables = Vec::new();
    there.all(pg_sys::RelationRelationId.to_u32(), |row| {
        // SAFETY: pg_class.
        let class = unsafe { row.fixed::<pg_sys::FormData_pg_class>() };
        let schema = class.relnamespace.to_u32();
        let Some(schema_name) = schemas.get(&schema) else {
            return;
        };
        let system = schema_name.starts_with("pg_") || schema_name == "information_schema";
        let partitioned = class.relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
        let rows = matches!(
            class.relkind as u8,
            pg_sys::RELKIND_RELATION | pg_sys::RELKIND_MATVIEW
        );
        // Heap tables only: a mounted table has no pages of its own.
        let kept = partitioned || (rows && class.relam == pg_sys::HEAP_TABLE_AM_OID);
        let temporary = class.relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP;
        if system || !kept || temporary || class.oid.to_u32() < pg_sys::FirstNormalObjectId {
            return;
        }
        tables.push(Table {
            oid: class.oid.to_u32(),
            schema,
            schema_name: schema_name.clone(),
            name: there.text(&class.relname),
            natts: class.relnatts,
            filtered: reader.is_filtered(class),
            whole: reader.reads_table(row),
            partitioned,
            partition: class.relispartition,
        });
    });
    let mut usable = HashMap::new();
    tables.retain_mut(|table| {
        let uses = || reader.uses_schema(there, table.schema);
        let uses = *usable.entry(table.schema).or_insert_with(uses);
        let open = uses && table.whole && !table.filtered;
        if !open && table.partition && reader.reads_through_parent(there, table.oid) {
            (table.whole, table.filtered) = (true, false);
            return true;
        }
        uses
    });
    tables.sort_by(|a, b| (&a.schema_name, &a.name).cmp(&(&b.schema_name, &b.name)));
    tables
}

/// What each partitioned table has as partitions, by their numbers.
pub struct Partitions(BTreeMap<u32, Vec<u32>>);

impl Partitions {
    pub fn new(there: &Catalogs) -> Self {
        let mut partitions = BTreeMap::<u32, Vec<u32>>::new();
        there.all(catalogs::INHERITS, |row| {
            // SAFETY: pg_inherits.
            let row = unsafe { row.fixed::<Inherits>() };
            if !row.detaching {
                let parent = row.parent.to_u32();
                partitions
                    .entry(parent)
                    .or_default()
                    .push(row.child.to_u32());
            }
        });
        Partitions(partitions)
    }

    /// All below a partitioned table, itself not.
    pub fn below(&self, parent: u32) -> Vec<u32> {
        let (mut found, mut seen) = (vec![parent], HashSet::from([parent]));
        let mut at = 0;
        while at < found.len() {
            let children = self.0.get(&found[at]).into_iter().flatten();
            // One that is met again is a catalog's damage.
            let new = children.filter(|it| seen.insert(**it)).copied();
            found.extend(new.collect::<Vec<u32>>());
            at += 1;
        }
        found.remove(0);
        found
    }
}

/// The tables of those names; without a schema, the one in `public`, or the only one. Raises 42P01, 42602.
pub fn choose<'a>(all: &'a [Table], names: &[String]) -> Vec<&'a Table> {
    let mut chosen: Vec<&Table> = Vec::new();
    for name in names {
        let parts = parse(name);
        let (schema, table) = match parts.as_slice() {
            [table] => (None, table),
            [schema, table] => (Some(schema), table),
            _ => refuse(
                PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
                format!("improper table name: \"{name}\""),
                "Name a table as table or schema.table.",
            ),
        };
        let mut found: Vec<&Table> = all
            .iter()
            .filter(|it| it.name == *table && schema.is_none_or(|schema| it.schema_name == *schema))
            .collect();
        if found.len() > 1 {
            found.retain(|it| it.schema_name == "public");
        }
        match found.as_slice() {
            [one] if chosen.iter().any(|it| it.oid == one.oid) => {}
            [one] => chosen.push(one),
            _ => refuse(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("table \"{name}\" does not exist in the fork"),
                "Only tables with rows of their own, and partitioned ones, can be mounted, in schemas that the role may use.",
            ),
        }
    }
    chosen
}

/// The parts of a name that may be qualified and quoted. Raises 42602 for what is none, 22P05.
fn parse(name: &str) -> Vec<String> {
    let bytes = text::to_server(name);
    // SAFETY: raises an error if that is no name; a list of palloc'd strings.
    unsafe {
        let list = pg_sys::stringToQualifiedNameList(bytes.as_ptr());
        let list = pgrx::PgList::<pg_sys::Node>::from_pg(list);
        list.iter_ptr()
            .map(|node| {
                let value = (*node.cast::<pg_sys::String>()).sval;
                text::server(CStr::from_ptr(value).to_bytes())
            })
            .collect()
    }
}
