//! The tables of one side: those with rows of their own, and partitioned ones with the leaves that their rows
//! lie in.

#![allow(unsafe_code)] // rows of catalogs, as C structs

use super::values::kinds::name_bytes;
use crate::pg::text;
use crate::reader::relation::Catalogs;
use crate::reader::rights::Reader;
use pgrx::pg_sys::{self, Oid};
use std::collections::HashMap;

/// pg_inherits and its index on inhrelid, inhseqno, which pgrx does not bind (pg_inherits.h).
const INHERITS: u32 = 2611;
const RELATION: u32 = pg_sys::RelationRelationId.to_u32();
const NAMESPACE: u32 = pg_sys::NamespaceRelationId.to_u32();

/// A table as a user sees it.
#[derive(Clone, Debug)]
pub struct Head {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub natts: i16,
    pub partitioned: bool,
    /// Where its rows lie: the table itself, or its leaves.
    pub leaves: Vec<Leaf>,
    /// The role sees all its rows and columns.
    pub readable: bool,
}

/// A table with rows of its own.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    pub oid: u32,
    /// Tablespace and number of the file.
    pub file: (u32, u32),
}

struct Class {
    head: Head,
    schema: u32,
    leaf: Option<Leaf>,
}

/// All tables of users in schemas that the role may use, by schema and name.
pub fn of(catalogs: &Catalogs, encoding: i32, role: Oid) -> Vec<Head> {
    let reader = Reader::new(catalogs, role);
    let mut schemas = HashMap::new();
    catalogs.all(NAMESPACE, |row| {
        // SAFETY: pg_namespace.
        let row = unsafe { row.fixed::<pg_sys::FormData_pg_namespace>() };
        schemas.insert(
            row.oid.to_u32(),
            text::from(&name_bytes(&row.nspname), encoding),
        );
    });
    let mut classes: HashMap<u32, Class> = HashMap::new();
    catalogs.all(RELATION, |row| {
        // SAFETY: pg_class.
        let form = unsafe { row.fixed::<pg_sys::FormData_pg_class>() };
        let (oid, schema) = (form.oid.to_u32(), form.relnamespace.to_u32());
        let Some(schema_name) = schemas.get(&schema) else {
            return;
        };
        let system = schema_name.starts_with("pg_") || schema_name == "information_schema";
        let temporary = form.relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP;
        if system || temporary || oid < pg_sys::FirstNormalObjectId {
            return;
        }
        let partitioned = match form.relkind as u8 {
            pg_sys::RELKIND_PARTITIONED_TABLE => true,
            // Heap tables only: a mounted table has no pages of its own.
            pg_sys::RELKIND_RELATION | pg_sys::RELKIND_MATVIEW
                if form.relam == pg_sys::HEAP_TABLE_AM_OID =>
            {
                false
            }
            _ => return,
        };
        let leaf = (!partitioned).then(|| Leaf {
            oid,
            file: (form.reltablespace.to_u32(), form.relfilenode.to_u32()),
        });
        let head = Head {
            oid,
            schema: schema_name.clone(),
            name: text::from(&name_bytes(&form.relname), encoding),
            natts: form.relnatts,
            partitioned,
            leaves: leaf.into_iter().collect(),
            readable: reader.reads_table(row) && !reader.is_filtered(form),
        };
        classes.insert(oid, Class { head, schema, leaf });
    });
    let parents = parents(catalogs, &classes);
    let leaves: Vec<Leaf> = classes.values().filter_map(|class| class.leaf).collect();
    for leaf in leaves {
        // Who may read a partitioned table reads its rows, whatever rights there are on the leaf.
        let mut readable = false;
        for ancestor in ancestors(&parents, leaf.oid) {
            if let Some(class) = classes.get_mut(&ancestor) {
                class.head.leaves.push(leaf);
                readable |= class.head.readable;
            }
        }
        if let Some(class) = classes.get_mut(&leaf.oid) {
            class.head.readable |= readable;
        }
    }
    let mut uses: HashMap<u32, bool> = HashMap::new();
    let mut heads: Vec<Head> = classes
        .into_values()
        .filter(|class| {
            let schema = class.schema;
            *uses
                .entry(schema)
                .or_insert_with(|| reader.uses_schema(catalogs, schema))
        })
        .map(|class| class.head)
        .collect();
    for head in &mut heads {
        head.leaves.sort_by_key(|leaf| leaf.oid);
    }
    heads.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    heads
}

/// The partitioned table of each partition.
fn parents(catalogs: &Catalogs, classes: &HashMap<u32, Class>) -> HashMap<u32, u32> {
    let mut parents = HashMap::new();
    if !classes.values().any(|class| class.head.partitioned) {
        return parents;
    }
    catalogs.all(INHERITS, |row| {
        // SAFETY: pg_inherits: inhrelid, inhparent.
        let [child, parent] = *unsafe { row.fixed::<[u32; 2]>() };
        if classes
            .get(&parent)
            .is_some_and(|class| class.head.partitioned)
        {
            parents.insert(child, parent);
        }
    });
    parents
}

fn ancestors(parents: &HashMap<u32, u32>, of: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut at = of;
    while let Some(parent) = parents.get(&at) {
        if found.contains(parent) {
            break; // no catalog that is whole has a circle
        }
        found.push(*parent);
        at = *parent;
    }
    found
}
