//! `fork_mount` and `fork_unmount`: a schema with a table of the access method `fork` for each table.
#![allow(unsafe_code)] // calls into the server's DDL helpers

use super::change;
use super::label::{self, Label};
use super::members;
use crate::fork::catalog;
use crate::reader::kinds;
use crate::reader::relation::{text, Catalogs, Column};
use crate::reader::rights::{self, Reader};
use crate::reader::{self, At};
use crate::shmem::registry;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use pgrx::spi;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

const PG_CLASS: u32 = 1259;
const PG_NAMESPACE: u32 = 2615;
const PG_ATTRIBUTE: (u32, u32) = (1249, 2659);
const FIRST_NORMAL: u32 = 16384;

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
}

/// A column of it, and what rows have that were written before it was added.
struct Shown {
    column: Column,
    readable: bool,
    missing: Option<String>,
    collation: u32,
}

fn refuse(code: PgSqlErrorCode, message: String, hint: &str) -> ! {
    reader::refuse(code, message, hint)
}

/// Mounts tables of the fork, or of the source, of that name. Returns the schema's name.
///
/// Raises 3D000 (no such database), 42809 (neither a fork nor a source), 42501 (no CONNECT, or no right
/// to read a table that was named), 42P06 (the schema exists), 42P01 (no such table), 42704 (a type that
/// does not exist here), 0A000 (this session's own database), 22023 (`at`).
pub fn mount(name: &str, at: &str, schema: Option<&str>, tables: Option<Vec<String>>) -> String {
    // SAFETY: raises an error in a read-only transaction.
    unsafe { pg_sys::PreventCommandIfReadOnly(c"fork_mount()".as_ptr()) };
    let at = match at {
        "now" => At::Now,
        "cut" => At::Cut,
        other => refuse(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("unrecognized state to mount: \"{other}\""),
            "Use 'now', or 'cut' for the fork as it was made.",
        ),
    };
    let db = find(name, at);
    // SAFETY: plain variables of this process.
    let (role, home) = unsafe { (pg_sys::GetUserId(), pg_sys::MyDatabaseId.to_u32()) };
    if db == home && at == At::Now {
        refuse(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("database \"{name}\" is the one that this session is in"),
            "Its tables can be read as they are.",
        );
    }
    let place = reader::hold(db, at);
    let (there, here) = (Catalogs::open(place), Catalogs::open(home));
    let all = user_tables(&there, role);
    let named = tables.is_some();
    let wanted = match tables {
        None => all.iter().collect(),
        Some(names) => choose(&all, &names),
    };
    let schema = schema.map_or_else(|| default_schema(name, at), str::to_string);
    run(&format!("CREATE SCHEMA {}", quote(&schema)));
    members::add_schema(&schema);
    let mut taken: HashMap<&str, u32> = HashMap::new();
    for table in &wanted {
        *taken.entry(table.name.as_str()).or_default() += 1;
    }
    for table in wanted {
        let columns = shown(&there, table, role);
        if let Err((code, message, hint)) = check(&there, &here, table, &columns) {
            if named {
                refuse(code, message, hint);
            }
            ereport!(WARNING, code, format!("{message}: not mounted"), hint);
            continue;
        }
        // Two tables of one name: the second word of each is its schema's.
        let title = match taken[table.name.as_str()] {
            1 => table.name.clone(),
            _ => format!("{}.{}", table.schema_name, table.name),
        };
        make(
            &schema,
            &title,
            &columns,
            &Label {
                db,
                at,
                relation: table.oid,
            },
        );
    }
    schema
}

/// The database of that name, if it can be mounted by the caller.
fn find(name: &str, at: At) -> u32 {
    let Some(db) = catalog::database_oid(name) else {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            format!("database \"{name}\" does not exist")
        );
    };
    let known = match at {
        At::Now => registry::fork(db).is_some() || !registry::forks_of(db).is_empty(),
        At::Cut => registry::fork(db).is_some(),
    };
    if !known {
        refuse(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("database \"{name}\" is not a fork"),
            "Mount a fork, or a database that has forks as it is now.",
        );
    }
    // SAFETY: a plain variable of this process.
    rights::may_look_into(db, unsafe { pg_sys::GetUserId() });
    db
}

fn default_schema(name: &str, at: At) -> String {
    let suffix = if at == At::Cut { "_cut" } else { "" };
    let mut stem = name;
    while stem.len() + suffix.len() > 63 {
        stem = &stem[..stem.char_indices().last().map_or(0, |(at, _)| at)];
    }
    format!("{stem}{suffix}")
}

/// The tables of users with rows of their own: partitions, but not what they are partitions of.
pub fn user_tables(there: &Catalogs, role: Oid) -> Vec<Table> {
    let reader = Reader::new(there, role);
    let mut schemas = HashMap::new();
    there.all(PG_NAMESPACE, |row| {
        // SAFETY: pg_namespace.
        let row = unsafe { row.fixed::<pg_sys::FormData_pg_namespace>() };
        schemas.insert(row.oid.to_u32(), text(&row.nspname));
    });
    let mut tables = Vec::new();
    there.all(PG_CLASS, |row| {
        // SAFETY: pg_class.
        let class = unsafe { row.fixed::<pg_sys::FormData_pg_class>() };
        let schema = class.relnamespace.to_u32();
        let Some(schema_name) = schemas.get(&schema) else {
            return;
        };
        let system = schema_name.starts_with("pg_") || schema_name == "information_schema";
        let kind = class.relkind as u8;
        // Heap tables only: a mounted table has no pages of its own.
        let heap = class.relam.to_u32() == 2;
        if system || !matches!(kind, b'r' | b'm') || !heap || class.relpersistence as u8 == b't' {
            return;
        }
        tables.push(Table {
            oid: class.oid.to_u32(),
            schema,
            schema_name: schema_name.clone(),
            name: text(&class.relname),
            natts: class.relnatts,
            filtered: reader.is_filtered(class),
            whole: reader.reads_table(row),
        });
    });
    let mut usable = HashMap::new();
    tables.retain(|table| {
        let uses = || reader.uses_schema(there, table.schema);
        table.oid >= FIRST_NORMAL && *usable.entry(table.schema).or_insert_with(uses)
    });
    tables.sort_by(|a, b| (&a.schema_name, &a.name).cmp(&(&b.schema_name, &b.name)));
    tables
}

/// The tables of those names; without a schema, the one in `public`, or the only one.
fn choose<'a>(all: &'a [Table], names: &[String]) -> Vec<&'a Table> {
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
                "Only tables with rows of their own can be mounted, in schemas that the role may use.",
            ),
        }
    }
    chosen
}

/// The parts of a name that may be qualified and quoted.
pub fn parse(name: &str) -> Vec<String> {
    let text = CString::new(name).unwrap_or_default();
    // SAFETY: raises an error if that is no name; a list of palloc'd strings.
    unsafe {
        let list = pg_sys::stringToQualifiedNameList(text.as_ptr());
        let list = pgrx::PgList::<pg_sys::Node>::from_pg(list);
        list.iter_ptr()
            .map(|node| {
                let value = (*node.cast::<pg_sys::String>()).sval;
                CStr::from_ptr(value).to_string_lossy().into_owned()
            })
            .collect()
    }
}

fn shown(there: &Catalogs, table: &Table, role: Oid) -> Vec<Shown> {
    let reader = Reader::new(there, role);
    let mut shown: Vec<Option<Shown>> = (0..table.natts).map(|_| None).collect();
    there.each(PG_ATTRIBUTE.0, PG_ATTRIBUTE.1, table.oid, |row| {
        // SAFETY: pg_attribute.
        let form = unsafe { row.fixed::<pg_sys::FormData_pg_attribute>() };
        if form.attrelid.to_u32() != table.oid || !(1..=table.natts).contains(&form.attnum) {
            return;
        }
        let missing = row
            .column(pg_sys::Anum_pg_attribute_attmissingval as i32)
            .filter(|_| form.atthasmissing)
            .map(array_text);
        shown[form.attnum as usize - 1] = Some(Shown {
            column: Column::of(form),
            readable: table.whole || reader.reads_column(row),
            missing,
            collation: form.attcollation.to_u32(),
        });
    });
    shown.into_iter().flatten().collect()
}

/// An array as array_in reads it.
fn array_text(value: pg_sys::Datum) -> String {
    // SAFETY: an array in a catalog's row; array_out is strict and returns a C string.
    unsafe {
        let text = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(751), value);
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

type Problem = (PgSqlErrorCode, String, &'static str);

fn check(
    there: &Catalogs,
    here: &Catalogs,
    table: &Table,
    columns: &[Shown],
) -> Result<(), Problem> {
    let denied = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    let name = format!("\"{}.{}\"", table.schema_name, table.name);
    if table.filtered {
        return Err((
            denied,
            format!("row security is active for table {name}"),
            "Connect to the fork, where its policies are applied.",
        ));
    }
    let live = || columns.iter().filter(|shown| !shown.column.dropped);
    if live().count() > 0 && !live().any(|shown| shown.readable)
        || (!table.whole && live().count() == 0)
    {
        return Err((
            denied,
            format!("permission denied for table {name}"),
            "Mounting a table needs SELECT on it, or on columns of it, in the fork.",
        ));
    }
    for shown in live().filter(|shown| shown.readable) {
        if !kinds::same(here, there, shown.column.kind) {
            return Err((
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!(
                    "the type of column \"{}\" of table {name} is not a type of this database",
                    shown.column.name
                ),
                "Mount it in a database where the type is the same: the fork's source, or a fork of it.",
            ));
        }
    }
    Ok(())
}

fn quote(name: &str) -> String {
    spi::quote_identifier(name)
}

fn run(sql: &str) {
    if let Err(error) = Spi::run(sql) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("could not mount: {error}")
        );
    }
}

/// A type of the server's own whose values take the same room.
fn placeholder(column: &Column) -> String {
    let sql = format!(
        "SELECT pg_catalog.format_type(oid, NULL) FROM pg_catalog.pg_type
         WHERE typlen = {} AND typalign = '{}' AND typbyval = {} AND typtype = 'b' AND oid < {FIRST_NORMAL}
         ORDER BY typcategory = 'A', oid LIMIT 1",
        column.len, column.align as u8 as char, column.by_value
    );
    match Spi::get_one::<String>(&sql) {
        Ok(Some(name)) => name,
        _ => refuse(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("no type takes as much room as column \"{}\"", column.name),
            "Name the tables to mount without this one.",
        ),
    }
}

fn type_name(column: &Column, collation: u32) -> String {
    // SAFETY: palloc'd strings; the type was found to be one of this database.
    unsafe {
        let flags = (pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_FORCE_QUALIFY) as u16;
        let name = pg_sys::format_type_extended(column.kind.into(), column.modifier, flags);
        let mut name = CStr::from_ptr(name).to_string_lossy().into_owned();
        let usual = pg_sys::get_typcollation(column.kind.into()).to_u32();
        // One that this database does not have leaves the type's own.
        if collation != usual && (1..FIRST_NORMAL).contains(&collation) {
            let collation = pg_sys::get_collation_name(collation.into());
            if !collation.is_null() {
                let collation = quote(&CStr::from_ptr(collation).to_string_lossy());
                name.push_str(&format!(" COLLATE pg_catalog.{collation}"));
            }
        }
        name
    }
}

/// Makes one table whose tuples lie on pages as the fork's do: columns that are not to be seen take their
/// places and are dropped.
fn make(schema: &str, title: &str, columns: &[Shown], label: &Label) {
    let table = format!("{}.{}", quote(schema), quote(title));
    let hidden = |shown: &Shown| shown.column.dropped || !shown.readable;
    let list: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(n, shown)| match hidden(shown) {
            true => format!("\"pg_fork hidden {n}\" {}", placeholder(&shown.column)),
            false => format!(
                "{} {}",
                quote(&shown.column.name),
                type_name(&shown.column, shown.collation)
            ),
        })
        .collect();
    change::making(|| {
        run(&format!(
            "CREATE TABLE {table} ({}) USING fork",
            list.join(", ")
        ))
    });
    for n in (0..columns.len()).filter(|n| hidden(&columns[*n])) {
        let sql = format!("ALTER TABLE {table} DROP COLUMN \"pg_fork hidden {n}\"");
        change::making(|| run(&sql));
    }
    let oid = relation_oid(schema, title);
    label::set(oid, label);
    members::add_table(oid);
    for shown in columns.iter().filter(|shown| !hidden(shown)) {
        if let Some(missing) = &shown.missing {
            let name = CString::new(shown.column.name.as_str()).unwrap_or_default();
            let value = CString::new(missing.as_str()).unwrap_or_default();
            // SAFETY: C strings, which the function copies what it needs of (heap.c).
            unsafe {
                pg_sys::SetAttrMissing(
                    oid.into(),
                    name.as_ptr().cast_mut(),
                    value.as_ptr().cast_mut(),
                );
            }
        }
    }
    // SAFETY: makes it seen by the rest of this transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

fn relation_oid(schema: &str, name: &str) -> u32 {
    let [schema, name] = [schema, name].map(|text| CString::new(text).unwrap_or_default());
    // SAFETY: look-ups of what was made just now.
    unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), false);
        pg_sys::get_relname_relid(name.as_ptr(), schema).to_u32()
    }
}

/// Removes a schema that fork_mount made, with its tables.
///
/// Raises 3F000 (no such schema), 42809 (not made by fork_mount), and what DROP SCHEMA raises.
pub fn unmount(schema: &str) {
    let name = CString::new(schema).unwrap_or_default();
    // SAFETY: a look-up that raises an error.
    let oid = unsafe { pg_sys::get_namespace_oid(name.as_ptr(), false) }.to_u32();
    if !members::is_schema(oid) {
        refuse(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("schema \"{schema}\" was not made by fork_mount"),
            "Use DROP SCHEMA for a schema of its own.",
        );
    }
    members::let_go_of_schema(oid);
    run(&format!("DROP SCHEMA {} CASCADE", quote(schema)));
}
