//! Foreign tables whose rows a program of the server makes: `file_fdw` with OPTIONS (program '…').
#![allow(unsafe_code)] // catalogs and parse nodes

use crate::isolation::{refuse, shared, writes};
use pgrx::pg_sys::{self, Oid};
use pgrx::PgList;
use std::ffi::CStr;

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// pg_inherits.c; pgrx does not bind it.
    fn has_superclass(relation: Oid) -> bool;
}

/// Raises 42501 if reading the foreign table would run a program.
pub fn check(foreign: Oid) {
    if runs(foreign) {
        refuse("run programs with foreign tables");
    }
}

/// By the option, whatever the wrapper is called.
fn runs(foreign: Oid) -> bool {
    // SAFETY: the relation is a foreign table; a list of DefElem nodes.
    unsafe {
        let options = (*pg_sys::GetForeignTable(foreign)).options;
        let options = PgList::<pg_sys::DefElem>::from_pg(options);
        let mut names = options.iter_ptr();
        names.any(|option| CStr::from_ptr((*option).defname) == c"program")
    }
}

/// Raises 42501 if ANALYZE would read such a table: by its name, or as a child of a table that it takes
/// samples of.
///
/// # Safety
/// A parse node.
pub unsafe fn check_analyze(statement: &pg_sys::VacuumStmt) {
    let foreign = writes::foreign_tables();
    // SAFETY: by the caller's promise; lists of nodes.
    unsafe {
        if foreign.is_empty() || (statement.is_vacuumcmd && !analyzes(statement)) {
            return;
        }
        if statement.rels.is_null() {
            // By itself a foreign table is passed over then.
            foreign
                .into_iter()
                .filter(|table| has_superclass(*table))
                .for_each(check);
            return;
        }
        for relation in PgList::<pg_sys::VacuumRelation>::from_pg(statement.rels).iter_ptr() {
            if let Some(oid) = shared::named((*relation).relation) {
                let mut members = writes::members(oid).into_iter();
                members
                    .by_ref()
                    .filter(|member| foreign.contains(member))
                    .for_each(check);
            }
        }
    }
}

unsafe fn analyzes(vacuum: &pg_sys::VacuumStmt) -> bool {
    // SAFETY: a parse node's list of DefElem nodes.
    unsafe {
        let options = PgList::<pg_sys::DefElem>::from_pg(vacuum.options);
        let mut options = options.iter_ptr();
        options.any(|option| {
            CStr::from_ptr((*option).defname) == c"analyze" && pg_sys::defGetBoolean(option)
        })
    }
}
