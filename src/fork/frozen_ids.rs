//! The fork's row says from where on its pages may name transactions: what its source's row said at the cut. The
//! commit log must reach back as far when others can see the row, and from then on the row itself keeps it.
//!
//! Until then another row has to. The server truncates the log as far as the oldest row that it sees says (vacuum.c,
//! `vac_truncate_clog`), and a row moves on under a lock on its database's frozen ids (`vac_update_datfrozenxid`), for
//! which every VACUUM in that database waits at its end. So the source's is held from before the cut until the row is
//! made, and not while the caller leaves his transaction open. Then, when it commits, some row that is as old is held
//! for that moment: rows only grow younger, so the log was not truncated meanwhile.
#![allow(unsafe_code)] // calls into lock.c

use crate::fork::catalog::DATABASE_RELATION;
use crate::pg::tuple::Catalog;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

fn tag(database: u32) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: database,
        locktag_field2: 0,
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_DATABASE_FROZEN_IDS as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}

/// Forks go together; who moves the row waits.
const MODE: i32 = pg_sys::ShareLock as i32;

/// Keeps the database's row where it is, until [`release`] or the transaction's end.
pub fn hold(database: u32) {
    // SAFETY: a whole tag.
    unsafe { pg_sys::LockAcquire(&tag(database), MODE, false, false) };
}

pub fn release(database: u32) {
    // SAFETY: taken in `hold`.
    unsafe { pg_sys::LockRelease(&tag(database), MODE, false) };
}

/// Takes the right to move the database's row on, until the transaction's end, if nobody keeps it where it is.
pub fn lock_to_move(database: u32) -> bool {
    // SAFETY: a whole tag, in the mode of `vac_update_datfrozenxid`.
    let taken =
        unsafe { pg_sys::LockAcquire(&tag(database), pg_sys::ExclusiveLock as i32, false, true) };
    taken != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// What a row says: the oldest transaction and the oldest multixact.
#[derive(Clone, Copy)]
struct Ids([u32; 2]);

impl Ids {
    /// Which of the two are as old as the other's.
    fn reach(self, other: Ids) -> [bool; 2] {
        // Both kinds of numbers go round (transam.c, multixact.c).
        [0, 1].map(|n| (self.0[n].wrapping_sub(other.0[n]) as i32) <= 0)
    }
}

/// The databases that the server counts, and what their rows say, in the order in which they are locked.
fn rows() -> Vec<(u32, Ids)> {
    let mut found = Vec::new();
    Catalog::read(DATABASE_RELATION).all(0, |row| {
        // SAFETY: pg_database.
        let form = unsafe { row.fixed::<pg_sys::FormData_pg_database>() };
        if form.datconnlimit != pg_sys::DATCONNLIMIT_INVALID_DB {
            let ids = [form.datfrozenxid.into_inner(), form.datminmxid.into_inner()];
            found.push((form.oid.to_u32(), Ids(ids)));
        }
    });
    found.sort_unstable_by_key(|(oid, _)| *oid);
    found
}

fn row(database: u32) -> Option<Ids> {
    let found = rows().into_iter().find(|(oid, _)| *oid == database);
    found.map(|(_, ids)| ids)
}

/// Before the transaction commits that has made these forks: for each, holds rows that are as old as the fork's until
/// it has.
///
/// Raises 40001 if there is none any more, because VACUUM has moved all of them on since.
pub fn hold_until_commit(forks: &[u32]) {
    for fork in forks {
        hold_as_old_as(*fork, forks);
    }
}

fn hold_as_old_as(fork: u32, unseen: &[u32]) {
    let Some(wanted) = row(fork) else {
        return;
    };
    let mut reached = [false; 2];
    for (database, ids) in rows() {
        if unseen.contains(&database) || !ids.reach(wanted).contains(&true) {
            continue;
        }
        hold(database);
        // What counts is what it says now.
        let now = row(database).map_or([false; 2], |ids| ids.reach(wanted));
        if now.contains(&true) {
            reached = [reached[0] || now[0], reached[1] || now[1]];
        } else {
            release(database);
        }
        if reached == [true; 2] {
            return;
        }
    }
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        "could not commit the fork",
        "fork_create",
    )
    .set_detail("Its transaction was open for so long that VACUUM has removed from the commit log what the fork would need.")
    .set_hint("Make the fork again, and commit at once.")
    .report(PgLogLevel::ERROR);
}
