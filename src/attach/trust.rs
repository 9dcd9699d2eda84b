//! Whose settings a session takes on when it attaches.
//!
//! Who logs in to a database has chosen its owner's settings. Who attaches to a fork has not: its owner may be
//! anyone who was let to make it, and his `search_path` would lead the session's next call to his functions.
#![allow(unsafe_code)] // rows of the catalog cache

use crate::attach::request;
use crate::shmem::registry;
use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;

/// The owner of a database that has a row.
fn owner(database: u32) -> Option<Oid> {
    // SAFETY: a row of the catalog cache, held while it is looked at.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
        let row = pg_sys::SearchSysCache1(cache, Oid::from(database).into());
        if row.is_null() {
            return None;
        }
        let owner = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(row)).datdba;
        pg_sys::ReleaseSysCache(row);
        Some(owner)
    }
}

/// The owners of the database, and of those that it was forked from, whom the session has no reason to trust: a
/// fork's settings began as its source's. Trusted are the session's user, superusers, and who owns the database
/// that the session logged in to.
pub fn strangers(database: u32) -> Vec<Oid> {
    let home = request::home();
    if database == home {
        return Vec::new();
    }
    // SAFETY: look-ups. A superuser who has become someone else gets himself back by a statement.
    let trusted = |role: Oid| unsafe {
        let himself =
            role == pg_sys::GetSessionUserId() && role == pg_sys::GetAuthenticatedUserId();
        himself || owner(home) == Some(role) || pg_sys::superuser_arg(role)
    };
    let mut strangers = Vec::new();
    let mut at = Some(database);
    while let Some(database) = at {
        // One without a row cannot be asked: nobody's role.
        let role = owner(database).unwrap_or(pg_sys::InvalidOid);
        if !trusted(role) {
            strangers.push(role);
        }
        at = registry::fork(database).map(|fork| fork.source);
    }
    strangers
}

/// Whether none of them can have set the parameter: it is a superuser's, and not granted.
///
/// # Safety
/// An entry of guc.c.
pub unsafe fn out_of_reach(entry: *const pg_sys::config_generic, strangers: &[Oid]) -> bool {
    // SAFETY: by the caller's promise; a look-up.
    unsafe {
        let granted = |role: &Oid| {
            let set = pg_sys::ACL_SET as pg_sys::AclMode;
            pg_sys::pg_parameter_aclcheck((*entry).name, *role, set)
                == pg_sys::AclResult::ACLCHECK_OK
        };
        (*entry).context == pg_sys::GucContext::PGC_SUSET && !strangers.iter().any(granted)
    }
}

/// Whether `name` is the entry's.
///
/// # Safety
/// An entry of guc.c.
pub unsafe fn is_named(entry: *const pg_sys::config_generic, name: &CStr) -> bool {
    // SAFETY: by the caller's promise.
    let known = unsafe { CStr::from_ptr((*entry).name) };
    known.to_bytes().eq_ignore_ascii_case(name.to_bytes())
}
