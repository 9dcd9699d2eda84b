//! Prepared transactions of a fork that is being dropped.
//!
//! They end where they were prepared: a session in that database has to say so. Nobody can log in to a fork that
//! is invalid, so there who drops it does that. Nothing of theirs could be committed: what they wrote is gone.
#![allow(non_snake_case)] // C's names
#![allow(unsafe_code)] // calls into twophase.c, and the variable that says which database a process works in

use crate::fork::drop::report;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use std::ffi::{c_char, CString};

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// twophase.c
    fn FinishPreparedTransaction(gid: *const c_char, commit: bool);
}

extern "C" {
    /// twophase.c
    static max_prepared_xacts: i32;
}

/// A prepared transaction: its name, in the server's bytes, and its owner.
type Prepared = (CString, Oid);

/// Acts as this role until it is dropped. An error's end of the transaction takes it back as well.
struct Acting(Oid, i32);

impl Acting {
    fn new(role: Oid) -> Self {
        let mut last = Acting(pg_sys::InvalidOid, 0);
        // SAFETY: variables of this process; with these flags nothing in it becomes another role.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut last.0, &mut last.1);
            let flags =
                pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
            pg_sys::SetUserIdAndSecContext(role, last.1 | flags as i32);
        }
        last
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        // SAFETY: what it was before.
        unsafe { pg_sys::SetUserIdAndSecContext(self.0, self.1) };
    }
}

/// The prepared transactions of a database.
fn of(database: u32) -> Vec<Prepared> {
    // SAFETY: a plain variable of the server.
    if unsafe { max_prepared_xacts } == 0 {
        return Vec::new();
    }
    // Whoever may drop the fork may know of them, also where the function was taken from PUBLIC.
    let acting = Acting::new(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID));
    // The name as bytes, because it may be text in any encoding.
    let found = Spi::connect(|client| {
        let rows = client.select(
            "SELECT pg_catalog.convert_to(gid, pg_catalog.getdatabaseencoding()), ownerid, dbid
             FROM pg_catalog.pg_prepared_xact()",
            None,
            &[],
        )?;
        rows.map(|row| {
            Ok((
                row.get::<Vec<u8>>(1)?,
                row.get::<Oid>(2)?,
                row.get::<Oid>(3)?,
            ))
        })
        .collect::<Result<Vec<_>, pgrx::spi::Error>>()
    });
    drop(acting);
    let found = found.unwrap_or_default().into_iter();
    found
        .filter_map(|(gid, owner, at)| {
            let here = at.is_some_and(|at| at.to_u32() == database);
            here.then(|| Some((CString::new(gid?).ok()?, owner?)))?
        })
        .collect()
}

fn names(prepared: &[Prepared]) -> String {
    let name = |(gid, _): &Prepared| format!("'{}'", gid.to_string_lossy());
    prepared.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Raises 55006 if a fork that works has prepared transactions: they may be committed yet.
pub fn refuse(fork: u32, name: &str) {
    let prepared = of(fork);
    if !prepared.is_empty() {
        report(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("fork \"{name}\" is being used by prepared transactions"),
            Some(format!("Prepared there: {}.", names(&prepared))),
            Some("Commit or roll back the prepared transactions first, in a session in the fork."),
        );
    }
}

/// The database that this process works in, another until it is dropped.
struct Elsewhere(Oid);

impl Elsewhere {
    /// # Safety
    /// No interrupt is served, and no catalog is read, while it lives.
    unsafe fn new(database: Oid) -> Self {
        // SAFETY: a variable of this process.
        unsafe {
            let here = pg_sys::MyDatabaseId;
            pg_sys::MyDatabaseId = database;
            Elsewhere(here)
        }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // SAFETY: what it was before.
        unsafe { pg_sys::MyDatabaseId = self.0 };
    }
}

/// Rolls back what was prepared in an invalid fork. At once and for good, also if the drop is rolled back.
///
/// Raises 25001 in a subtransaction, 55000 if someone else is ending one of them.
pub fn roll_back(fork: u32, name: &str) {
    let prepared = of(fork);
    if prepared.is_empty() {
        return;
    }
    // The end of a prepared transaction counts this one's statistics as if it had ended (twophase.c,
    // `AtEOXact_PgStat`), which knows of one level. Counters are all that is lost of it.
    // SAFETY: a plain question.
    if unsafe { pg_sys::GetCurrentTransactionNestLevel() } > 1 {
        report(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            format!(
                "cannot roll back the prepared transactions of fork \"{name}\" in a subtransaction"
            ),
            Some(format!("Prepared there: {}.", names(&prepared))),
            Some("Call fork_drop outside of savepoints, and of blocks with EXCEPTION."),
        );
    }
    for (gid, owner) in &prepared {
        // Its owner may end it (`LockGXact`), without a look at any catalog.
        let acting = Acting::new(*owner);
        // SAFETY: what ROLLBACK PREPARED calls. Of the database it looks at the number only, which has to be the
        // prepared transaction's (`LockGXact`, and statistics and WAL that name it); it reads no catalog and
        // runs nobody's code. Files of relations that it made are unlinked, which an invalid fork allows. An
        // error lets interrupts go by itself (elog.c).
        unsafe {
            pg_sys::InterruptHoldoffCount += 1;
            let elsewhere = Elsewhere::new(fork.into());
            FinishPreparedTransaction(gid.as_ptr(), false);
            drop(elsewhere);
            pg_sys::InterruptHoldoffCount -= 1;
        }
        drop(acting);
    }
    pgrx::log!(
        "rolled back the prepared transactions of invalid fork \"{name}\": {}",
        names(&prepared)
    );
}
