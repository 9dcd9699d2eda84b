//! The commit log and the multixacts, where the server has them: asked for what it does not have any more, they tell
//! that instead of raising an error.
#![allow(unsafe_code)] // calls into clog.c, multixact.c, procarray.c

use crate::shmem;
use pg_fork_core::outcomes;
use pgrx::pg_sys;
use std::cell::Cell;

/// Whether the transaction, which has ended, has committed; `None`: the commit log does not reach to it.
pub fn committed(xid: u32) -> Option<bool> {
    let full = in_commit_log(xid)?;
    let known = shmem::outcomes();
    if let Some(outcome) = known.get(full) {
        return Some(outcome);
    }
    let mut lsn = 0;
    // SAFETY: reads the commit log, where it is. A subtransaction has a mark of its own once all is over.
    let status = unsafe { pg_sys::TransactionIdGetStatus(xid.into(), &mut lsn) };
    let outcome = status == pg_sys::TRANSACTION_STATUS_COMMITTED as i32;
    known.put(full, outcome);
    Some(outcome)
}

/// The transaction's full number, if the commit log reaches to it.
fn in_commit_log(xid: u32) -> Option<u64> {
    thread_local! {
        /// The oldest in the commit log, and the next to come: not less than when they were seen, while the
        /// oldest is the same. So all numbers between them are on the same side of each other.
        static SEEN: Cell<(u32, u64)> = const { Cell::new((0, 0)) };
    }
    // SAFETY: one load of shared memory.
    let oldest =
        unsafe { (&raw const (*pg_sys::ShmemVariableCache).oldestClogXid).read_volatile() };
    let oldest = oldest.into_inner();
    // Without a lock for what is older: that stays so.
    if (xid.wrapping_sub(oldest) as i32) < 0 {
        return None;
    }
    let (of, next) = SEEN.get();
    let known = (of == oldest).then(|| outcomes::full(xid, oldest, next));
    known.flatten().or_else(|| {
        // SAFETY: the function takes the lock that it needs.
        let next = unsafe { pg_sys::ReadNextFullTransactionId().value };
        SEEN.set((oldest, next));
        outcomes::full(xid, oldest, next)
    })
}

/// The member of the multixact that updates, if one does; `None`: there is no such multixact any more.
pub fn updater(multi: u32) -> Option<Option<u32>> {
    // SAFETY: look-ups. Between the two the multixact stays: the row of the fork, or of the source, holds it.
    unsafe {
        let (mut oldest, mut next) = (pg_sys::InvalidTransactionId, pg_sys::InvalidTransactionId);
        pg_sys::ReadMultiXactIdRange(&mut oldest, &mut next);
        let (oldest, next) = (oldest.into_inner(), next.into_inner());
        let before = |a: u32, b: u32| (a.wrapping_sub(b) as i32) < 0;
        if before(multi, oldest) || !before(multi, next) {
            return None;
        }
        let mut members = std::ptr::null_mut();
        // An out pointer to a palloc'd array of as many members as returned.
        let count = pg_sys::GetMultiXactIdMembers(multi.into(), &mut members, false, false);
        let found = (0..count.max(0) as usize)
            .map(|n| *members.add(n))
            .find(|member| member.status >= pg_sys::MultiXactStatus::MultiXactStatusNoKeyUpdate);
        if count > 0 {
            pg_sys::pfree(members.cast());
        }
        Some(found.map(|member| member.xid.into_inner()))
    }
}

/// The multixact that comes next, and where its members will begin.
pub fn next_multi() -> (u32, u32) {
    let mut multi = pg_sys::InvalidTransactionId;
    let mut oldest = pg_sys::InvalidTransactionId;
    let mut member = 0;
    let mut database = pg_sys::InvalidOid;
    // SAFETY: reads shared state under its lock.
    unsafe {
        pg_sys::MultiXactGetCheckptMulti(
            false,
            &mut multi,
            &mut member,
            &mut oldest,
            &mut database,
        );
    }
    (multi.into_inner(), member)
}

/// The oldest transaction that has not ended, or the next one if all have.
pub fn oldest_active() -> u32 {
    // SAFETY: reads shared state under its locks.
    unsafe { pg_sys::GetOldestActiveTransactionId().into_inner() }
}

/// The oldest multixact with a member that may not have ended.
pub fn oldest_multi() -> u32 {
    // SAFETY: as above.
    unsafe { pg_sys::GetOldestMultiXactId().into_inner() }
}

/// Writes all that the server has of both in memory to their files, as a checkpoint does.
pub fn write_out() {
    // SAFETY: any process may, between two transactions.
    unsafe {
        pg_sys::CheckPointCLOG();
        pg_sys::CheckPointMultiXact();
    }
}
