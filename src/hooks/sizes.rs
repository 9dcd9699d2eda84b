//! Sizes of forks: the functions of `dbsize.c` look at files, past the storage manager.
//!
//! Their entries in `fmgr_builtins[]` are replaced by functions that answer for a fork, and call
//! the originals for everything else.
#![allow(unsafe_code)] // replaces function pointers, and C calls ours

use crate::pg::builtins::{self, Function};
use crate::shmem::view::{self, Role};
use crate::smgr::sizes;
use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use std::ffi::CStr;
use std::sync::OnceLock;

/// pg_relation_size, pg_table_size, pg_indexes_size, pg_total_relation_size, pg_database_size by
/// number and by name.
const REPLACED: [(&CStr, Function); 6] = [
    (c"pg_relation_size", relation_size),
    (c"pg_table_size", table_size),
    (c"pg_indexes_size", indexes_size),
    (c"pg_total_relation_size", total_relation_size),
    (c"pg_database_size_oid", database_size_oid),
    (c"pg_database_size_name", database_size_name),
];
static ORIGINALS: [OnceLock<Function>; 6] = [const { OnceLock::new() }; 6];

/// From `_PG_init`, in the postmaster. Returns the functions that were not found.
pub fn install() -> Vec<String> {
    let replaced = REPLACED.iter().zip(&ORIGINALS);
    // SAFETY: while the postmaster preloads; functions of the right type.
    let missing =
        replaced.filter(|((name, ours), was)| unsafe { !builtins::replace(name, *ours, was) });
    missing
        .map(|((name, _), _)| name.to_string_lossy().into_owned())
        .collect()
}

unsafe fn original(n: usize, fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: set before ours was put in place.
    unsafe { builtins::original(&ORIGINALS[n], fcinfo) }
}

fn in_fork() -> bool {
    // SAFETY: a plain variable of this process.
    let db = unsafe { pg_sys::MyDatabaseId }.to_u32();
    matches!(view::role(db), Role::Node(node) if node.origin.is_some())
}

/// Bytes of one relation: the relation fork asked for, or all of them.
unsafe fn bytes(relation: pg_sys::Relation, fork: Option<i32>) -> i64 {
    // SAFETY: an open relation.
    unsafe {
        if pg_sys::InvalidOid == (*relation).rd_node.relNode {
            return 0;
        }
        let reln = pg_sys::smgropen((*relation).rd_node, (*relation).rd_backend);
        let forks = fork.map_or(0..4, |fork| fork..fork + 1);
        forks
            .filter(|fork| pg_sys::smgrexists(reln, *fork))
            .map(|fork| i64::from(pg_sys::smgrnblocks(reln, fork)) * 8192)
            .sum()
    }
}

unsafe fn indexes(relation: pg_sys::Relation) -> i64 {
    // SAFETY: an open relation; each index is opened and closed.
    unsafe {
        if !(*(*relation).rd_rel).relhasindex {
            return 0;
        }
        let list =
            pgrx::PgList::<std::ffi::c_void>::from_pg(pg_sys::RelationGetIndexList(relation));
        let sizes = list
            .iter_oid()
            .map(|oid| sized(oid, |index| bytes(index, None)).unwrap_or(0));
        sizes.sum()
    }
}

/// The table with its TOAST table and that one's indexes (dbsize.c, `calculate_table_size`).
unsafe fn table(relation: pg_sys::Relation) -> i64 {
    // SAFETY: an open relation.
    unsafe {
        let toast = (*(*relation).rd_rel).reltoastrelid;
        let toasted = if toast == pg_sys::InvalidOid {
            None
        } else {
            sized(toast, |toast| bytes(toast, None) + indexes(toast))
        };
        bytes(relation, None) + toasted.unwrap_or(0)
    }
}

unsafe fn sized(oid: pg_sys::Oid, size: impl FnOnce(pg_sys::Relation) -> i64) -> Option<i64> {
    // SAFETY: opened and closed here. Null if it is gone, as dbsize.c has it.
    unsafe {
        let relation = pg_sys::try_relation_open(oid, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return None;
        }
        let size = size(relation);
        pg_sys::relation_close(relation, pg_sys::AccessShareLock as i32);
        Some(size)
    }
}

unsafe fn answer(fcinfo: FunctionCallInfo, size: Option<i64>) -> Datum {
    // SAFETY: the caller's call data.
    unsafe { (*fcinfo).isnull = size.is_none() };
    Datum::from(size.unwrap_or(0))
}

unsafe fn first(fcinfo: FunctionCallInfo, n: usize) -> Datum {
    // SAFETY: these functions are strict and have more than n arguments.
    unsafe { (*fcinfo).args.as_slice((*fcinfo).nargs as usize)[n].value }
}

unsafe fn relation(fcinfo: FunctionCallInfo) -> pg_sys::Oid {
    // SAFETY: the first argument is a regclass.
    pg_sys::Oid::from(unsafe { first(fcinfo, 0) }.value() as u32)
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_size(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: called as pg_relation_size(regclass, text), here and below as their names say.
    unsafe {
        if !in_fork() {
            return original(0, fcinfo);
        }
        let name = pg_sys::text_to_cstring(first(fcinfo, 1).cast_mut_ptr());
        let fork = pg_sys::forkname_to_number(name);
        answer(
            fcinfo,
            sized(relation(fcinfo), |relation| bytes(relation, Some(fork))),
        )
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn table_size(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see relation_size.
    unsafe {
        if !in_fork() {
            return original(1, fcinfo);
        }
        answer(fcinfo, sized(relation(fcinfo), |relation| table(relation)))
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn indexes_size(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see relation_size.
    unsafe {
        if !in_fork() {
            return original(2, fcinfo);
        }
        answer(
            fcinfo,
            sized(relation(fcinfo), |relation| indexes(relation)),
        )
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn total_relation_size(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see relation_size.
    unsafe {
        if !in_fork() {
            return original(3, fcinfo);
        }
        answer(
            fcinfo,
            sized(relation(fcinfo), |relation| {
                table(relation) + indexes(relation)
            }),
        )
    }
}

/// What the fork's relations take logically. The original runs first, for its checks of rights.
unsafe fn database_size(n: usize, fcinfo: FunctionCallInfo, db: pg_sys::Oid) -> Datum {
    // SAFETY: as above.
    unsafe {
        let stock = original(n, fcinfo);
        match sizes::logical_size(db.to_u32()) {
            Some(size) if !(*fcinfo).isnull => Datum::from(size),
            _ => stock,
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn database_size_oid(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see relation_size.
    unsafe { database_size(4, fcinfo, relation(fcinfo)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn database_size_name(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see relation_size; the argument is a name.
    unsafe {
        let db = pg_sys::get_database_oid(first(fcinfo, 0).cast_mut_ptr(), true);
        database_size(5, fcinfo, db)
    }
}
