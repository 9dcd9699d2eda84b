//! The server's statistics of forks (pgstat). The autovacuum launcher takes turns between all databases that have an
//! entry there (autovacuum.c, `rebuild_database_list`), and every connection makes one: so a fork keeps its entry only
//! while it has sessions, or something that was written in it to be vacuumed for.
#![allow(unsafe_code)] // calls into pgstat.c

use crate::pg::process;
use crate::shmem::registry::{self, ForkState};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::pg_sys;

/// `PGSTAT_KIND_DATABASE` (pgstat.h).
const DATABASE: pg_sys::PgStat_Kind::Type = pg_sys::PgStat_Kind::PGSTAT_KIND_DATABASE;

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// pgstat_shmem.c
    fn pgstat_drop_entry(
        kind: pg_sys::PgStat_Kind::Type,
        db: pg_sys::Oid,
        object: pg_sys::Oid,
    ) -> bool;
    fn pgstat_request_entry_refs_gc();
}

/// Forgets what is known of a database and all that is in it. In a transaction.
pub fn forget(database: u32) {
    let database = pg_sys::Oid::from(database);
    // SAFETY: looks the entry up first, because one that is dropped already must not be dropped again.
    unsafe {
        if !pg_sys::pgstat_fetch_stat_dbentry(database).is_null()
            && !pgstat_drop_entry(DATABASE, database, pg_sys::InvalidOid)
        {
            pgstat_request_entry_refs_gc();
        }
    }
}

/// The worker, now and then: forgets the forks that nobody is in and that nothing was written in.
pub fn tend() {
    let ready: Vec<u32> = registry::read(|table| {
        let forks = table.iter().filter(|slot| slot.is_fork());
        let ready = forks.filter(|slot| slot.state == ForkState::Ready);
        ready.map(|slot| slot.oid).collect()
    });
    if ready.is_empty() {
        return;
    }
    BackgroundWorker::transaction(|| {
        let read: Vec<u32> = ready
            .into_iter()
            .filter(|fork| is_only_read(*fork))
            .collect();
        if read.is_empty() {
            return;
        }
        // Looked at anew for each, because who has left meanwhile may have written.
        let in_use = process::databases_in_use();
        for fork in read.into_iter().filter(|fork| !in_use.contains(fork)) {
            // SAFETY: forgets this process's copies.
            unsafe { pg_sys::pgstat_clear_snapshot() };
            if is_only_read(fork) {
                forget(fork);
            }
        }
    });
}

/// Whether there is an entry, of a database in which no row was written.
fn is_only_read(database: u32) -> bool {
    // SAFETY: a copy that lives as long as the transaction does, or null.
    unsafe {
        let entry = pg_sys::pgstat_fetch_stat_dbentry(database.into()).as_ref();
        entry.is_some_and(|entry| {
            entry.n_tuples_inserted == 0
                && entry.n_tuples_updated == 0
                && entry.n_tuples_deleted == 0
        })
    }
}
