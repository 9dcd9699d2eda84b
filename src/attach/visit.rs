//! A background worker's move from a fork to the fork's base, and back.
#![allow(unsafe_code)] // locks, and the variables that say which database a process works in

use crate::attach::target::{self, Target};
use crate::attach::{idle, nailed, switch};
use crate::fork::base;
use crate::fork::catalog::DATABASE_RELATION;
use crate::shmem::registry::{self, ForkState, Slot};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CStr;

const LOCK: i32 = pg_sys::RowExclusiveLock as i32;

fn gone() -> ! {
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
        "the fork was dropped, or became invalid, meanwhile"
    );
}

/// In a transaction of the fork: finds what the move needs, makes the base if there is none, and takes
/// the lock on the fork that keeps its base. [`go`] gives it back.
///
/// Raises 3D000 if the fork is being dropped or is invalid, 53400 or 58030 if there can be no base.
pub fn prepare(fork: u32, to_base: bool) -> Target {
    // SAFETY: a database's tag. Who drops the fork holds the lock, and ends us while we wait for it.
    unsafe {
        pg_sys::LockSharedObjectForSession(DATABASE_RELATION.into(), fork.into(), 0, LOCK);
    }
    nailed::find();
    // An invalid fork's base can be made no more: its layer may be gone.
    let live = |slot: &Slot| !matches!(slot.state, ForkState::Dropping | ForkState::Invalid);
    let Some(slot) = registry::fork(fork).filter(live) else {
        gone()
    };
    let oid = if to_base { base::ensure(&slot) } else { fork };
    // SAFETY: a palloc'd string.
    let path = unsafe {
        CStr::from_ptr(pg_sys::GetDatabasePath(oid.into(), slot.tablespace.into())).to_owned()
    };
    Target {
        oid,
        tablespace: slot.tablespace,
        name: c"".to_owned(),
        path,
        settings: Vec::new(),
    }
}

/// Moves, between two transactions. An error in here must end the process.
pub fn go(fork: u32, to: &Target) {
    if let Some(what) = idle::obstacle(fork) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("cannot leave the database: {what}")
        );
    }
    // SAFETY: no transaction is open (as `switch::prepare`).
    unsafe { pg_sys::pgstat_report_stat(true) };
    switch::cross(to);
    target::unlock(fork);
}

/// pg_database, pg_authid, pg_auth_members, and for each the index that its look-ups go through.
const SHARED: [u32; 6] = [1262, 2672, 1260, 2677, 1261, 2695];

/// In the first transaction in the base: finds out of which roles `user` is a member. That looks up the
/// row of the database (acl.c, `roles_is_member_of`), for its owner's rights; the base has none, so the
/// fork's is taken. acl.c remembers the answer.
pub fn know_roles(fork: u32, user: u32) {
    let someone = pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID);
    let share = pg_sys::AccessShareLock as i32;
    // SAFETY: catalogs and look-ups, in a transaction; an error ends the process.
    unsafe {
        // 1. First what reads catalogs of this database, because an entry of the relation cache that
        // is made while `MyDatabaseId` is another's is locked under one tag and released under another.
        // Catalogs that are open and locked already are not read anew: no message is looked at then
        // (lmgr.c, `LockRelationOid`).
        let open = SHARED.map(|oid| pg_sys::relation_open(oid.into(), share));
        let database = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
        let row = pg_sys::SearchSysCache1(database, pg_sys::Oid::from(fork).into());
        if row.is_null() {
            gone();
        }
        pg_sys::ReleaseSysCache(row);
        pg_sys::superuser_arg(user.into());
        let members = pg_sys::SysCacheIdentifier::AUTHMEMMEMROLE as i32;
        let none = pg_sys::Datum::from(0);
        let key = pg_sys::Oid::from(user).into();
        let list = pg_sys::SearchSysCacheList(members, 1, key, none, none);
        pg_sys::ReleaseCatCacheList(list);
        // 2. Then the look-ups, which nothing may interrupt.
        pg_sys::InterruptHoldoffCount += 1;
        let here = pg_sys::MyDatabaseId;
        pg_sys::MyDatabaseId = fork.into();
        pg_sys::has_privs_of_role(user.into(), someone);
        pg_sys::is_member_of_role(user.into(), someone);
        pg_sys::MyDatabaseId = here;
        pg_sys::InterruptHoldoffCount -= 1;
        for relation in open {
            pg_sys::relation_close(relation, share);
        }
    }
}
