//! `fork_mount`: a schema with a table of the access method `fork` for each table, and a view for each
//! partitioned one.
//!
//! All is made by the server's own functions for its catalogs, with the checks of CREATE SCHEMA: no statement is
//! run, nothing is found by a search path, and what cannot be shown is left out with a WARNING.
#![allow(unsafe_code)] // calls into the server's DDL helpers

use super::build::{self, Made, Place};
use super::columns::{self, Problem, Shown};
use super::label::Label;
use super::names::{self, Names};
use super::tables::{all_tables, choose, Partitions, Table};
use super::{members, view};
use crate::fork::catalog;
use crate::pg::text;
use crate::reader::relation::Catalogs;
use crate::reader::{self, refuse, rights, At};
use crate::shmem::registry;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString};

/// Mounts tables of the fork, or of the source, of that name. Returns the schema's name.
///
/// Raises 3D000 (no such database), 42809 (neither a fork nor a source), 42501 (no CONNECT, no CREATE here, or no
/// right to read a table that was named), 55000 (it accepts no connections), 42P06 (the schema exists), 42939 (its
/// name is reserved), 42P01 (no such table), 42704 (no column of a table that was named can be shown here), 0A000
/// (this session's own database), 22023 (`at`), 25006 (a read-only transaction).
pub fn mount(name: &str, at: &str, schema: Option<&str>, tables: Option<Vec<String>>) -> String {
    // SAFETY: raises an error where nothing may be written.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(c"fork_mount()".as_ptr());
        pg_sys::PreventCommandIfParallelMode(c"fork_mount()".as_ptr());
    }
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
    let all = all_tables(&there, role);
    let schema = schema_name(name, at, schema);
    let mut mount = Mount {
        place: Place {
            schema: make_schema(&schema),
            owner: role,
            // SAFETY: a look-up that raises an error.
            method: unsafe { pg_sys::get_am_oid(c"fork".as_ptr(), false) },
        },
        there: &there,
        here: &here,
        db,
        at,
        named: BTreeSet::new(),
        made: HashMap::new(),
        partitions: Partitions::new(&there),
    };
    match tables {
        None => mount.make(&all.iter().collect::<Vec<_>>()),
        Some(names) => {
            let mut wanted = choose(&all, &names);
            mount.named = wanted.iter().map(|table| table.oid).collect();
            let parents = wanted.iter().filter(|table| table.partitioned);
            let below = parents.flat_map(|table| mount.leaves(table));
            let below: BTreeSet<u32> = below.filter(|oid| !mount.named.contains(oid)).collect();
            wanted.extend(all.iter().filter(|table| below.contains(&table.oid)));
            mount.make(&wanted);
        }
    }
    text::server(schema.to_bytes())
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

fn schema_name(fork: &str, at: At, wanted: Option<&str>) -> CString {
    let (name, suffix) = match (wanted, at) {
        (Some(name), _) => (name, ""),
        (None, At::Now) => (fork, ""),
        (None, At::Cut) => (fork, "_cut"),
    };
    if name.is_empty() {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_NAME,
            "the schema's name must not be empty"
        );
    }
    names::cut(&text::to(name, text::server_encoding()), suffix)
}

/// What CREATE SCHEMA does (schemacmds.c, `CreateSchemaCommand`), without default privileges.
fn make_schema(name: &CStr) -> Oid {
    let shown = text::server(name.to_bytes());
    // SAFETY: look-ups, then a row for the schema, which is seen by the rest of this transaction.
    unsafe {
        let role = pg_sys::GetUserId();
        let right = pg_sys::ACL_CREATE as pg_sys::AclMode;
        let here = pg_sys::MyDatabaseId;
        if pg_sys::pg_database_aclcheck(here, role, right) != pg_sys::AclResult::ACLCHECK_OK {
            let here = catalog::database_name(here.to_u32()).unwrap_or_default();
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied for database {here}")
            );
        }
        if !pg_sys::allowSystemTableMods && pg_sys::IsReservedName(name.as_ptr()) {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_RESERVED_NAME,
                format!("unacceptable schema name \"{shown}\""),
                "The prefix \"pg_\" is reserved for system schemas."
            );
        }
        // As one for temporary tables it gets no default privileges (pg_namespace.c), and is like any otherwise.
        let schema = pg_sys::NamespaceCreate(name.as_ptr(), role, true);
        members::add(pg_sys::NamespaceRelationId, schema);
        pg_sys::CommandCounterIncrement();
        schema
    }
}

/// What is being mounted.
struct Mount<'a> {
    place: Place,
    there: &'a Catalogs,
    here: &'a Catalogs,
    db: u32,
    at: At,
    /// The tables that the caller named: what cannot be mounted of them is an error.
    named: BTreeSet<u32>,
    made: HashMap<u32, Made>,
    partitions: Partitions,
}

impl Mount<'_> {
    /// The partitions of a table that have rows of their own.
    fn leaves(&self, parent: &Table) -> BTreeSet<u32> {
        view::leaves(self.there, &self.partitions, parent.oid)
    }

    fn make(&mut self, wanted: &[&Table]) {
        let mut names = self.names(wanted);
        let (parents, tables): (Vec<&Table>, Vec<&Table>) =
            wanted.iter().partition(|table| table.partitioned);
        for table in tables {
            let name = names.remove(&table.oid).flatten();
            if let Err(problem) = self.table(table, name) {
                self.leave_out(table, &problem);
            }
        }
        for parent in parents {
            let name = names.remove(&parent.oid).flatten();
            if let Err(problem) = self.view(parent, name) {
                self.leave_out(parent, &problem);
            }
        }
    }

    fn leave_out(&self, table: &Table, problem: &Problem) {
        if self.named.contains(&table.oid) {
            problem.raise();
        }
        problem.warn("not mounted");
    }

    /// A name for each. Of tables of one name the second word of each is its schema's.
    fn names(&self, wanted: &[&Table]) -> HashMap<u32, Option<CString>> {
        let mut count: HashMap<&str, u32> = HashMap::new();
        for table in wanted {
            *count.entry(table.name.as_str()).or_default() += 1;
        }
        let mut names = Names::default();
        let (alone, together): (Vec<&Table>, Vec<&Table>) = wanted
            .iter()
            .partition(|table| count[table.name.as_str()] == 1);
        let mut found = HashMap::new();
        for table in alone {
            found.insert(table.oid, names.take(&table.name));
        }
        for table in together {
            let title = format!("{}.{}", table.schema_name, table.name);
            found.insert(table.oid, names.take(&title));
        }
        found
    }

    fn label(&self, table: &Table) -> Label {
        Label {
            db: self.db,
            at: self.at,
            relation: table.oid,
        }
    }

    /// The columns of a table that can be shown.
    fn columns(&self, table: &Table) -> Result<Vec<Shown>, Problem> {
        let label = self.label(table);
        let Some((on, now)) = view::on_both(&label, self.there, self.place.owner) else {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("table {} does not exist any more", table.title()),
                "Mount again.",
            ));
        };
        columns::of(self.there, self.here, table, &on, now.as_ref())
    }

    fn table(&mut self, table: &Table, name: Option<CString>) -> Result<(), Problem> {
        let columns = self.columns(table)?;
        let name = name.ok_or_else(|| unnamed("table", &table.title()))?;
        let made = build::table(
            &self.place,
            &name,
            &columns,
            (self.there, self.here),
            &self.label(table),
            |shown| unnamed("column", &shown.column.name).warn("column not shown"),
        );
        self.made.insert(table.oid, made);
        Ok(())
    }

    fn view(&self, parent: &Table, name: Option<CString>) -> Result<(), Problem> {
        let columns = self.columns(parent)?;
        let name = name.ok_or_else(|| unnamed("table", &parent.title()))?;
        let leaves = self.leaves(parent);
        let made: Option<Vec<&Made>> = leaves.iter().map(|leaf| self.made.get(leaf)).collect();
        let Some(made) = made else {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("a partition of table {} cannot be mounted", parent.title()),
                "Mount the partitions that can be, by their names.",
            ));
        };
        view::make(
            &self.place,
            &name,
            &columns,
            &made,
            (self.there, self.here),
            &self.label(parent),
            |shown| not_in_all(&shown.column.name, parent).warn("column not shown"),
        );
        Ok(())
    }
}

fn unnamed(what: &str, name: &str) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
        format!("the encoding of this database does not have all characters of the name of {what} {name}"),
        "Mount it in a database of the same encoding.",
    )
}

fn not_in_all(column: &str, parent: &Table) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!(
            "not all partitions of table {} show column \"{column}\"",
            parent.title()
        ),
        "Its partitions can be read by themselves.",
    )
}
