//! Whether a fork's WAL goes to a server that may not know of forks (D13).
#![allow(unsafe_code)] // reads the state of slots and of other processes

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Raises 55000 while a standby, a base backup, a physical slot or the WAL archive could carry the
/// fork's WAL to a server that cannot replay it, unless `pg_fork.standbys_ready` is on.
pub fn refuse_unready() {
    if crate::guc::STANDBYS_READY.get() {
        return;
    }
    // SAFETY: a plain variable.
    let detail =
        if unsafe { pg_sys::XLogArchiveMode } != pg_sys::ArchiveMode::ARCHIVE_MODE_OFF as i32 {
            "WAL is being archived."
        } else if has_physical_slot() {
            "There is a physical replication slot."
        } else if has_walsender() {
            "A standby or a base backup is connected."
        } else {
            return;
        };
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "cannot fork a database while its WAL goes to servers that may not know of forks",
        "fork_create",
    )
    .set_detail(detail)
    .set_hint("Load pg_fork on them too, then set pg_fork.standbys_ready = on.")
    .report(PgLogLevel::ERROR);
}

/// A physical slot is one of no database (slot.h, `SlotIsPhysical`).
fn has_physical_slot() -> bool {
    // SAFETY: an array of this many slots in shared memory; single words are read, as
    // ReplicationSlotsComputeRequiredLSN (slot.c) does, which at worst sees a slot being made.
    unsafe {
        let slots = (&raw mut (*pg_sys::ReplicationSlotCtl).replication_slots)
            .cast::<pg_sys::ReplicationSlot>();
        (0..pg_sys::max_replication_slots as usize).any(|n| {
            let slot = slots.add(n);
            (*slot).in_use && (*slot).data.database == pg_sys::InvalidOid
        })
    }
}

/// Whether any process has a walsender's place, of whichever kind.
fn has_any_walsender() -> bool {
    // SAFETY: an array of this many places in shared memory; single words are read, as
    // WalSndInitStopping (walsender.c) does, but for the spinlock: at worst one just comes or goes.
    unsafe {
        let places = (&raw mut (*pg_sys::WalSndCtl).walsnds).cast::<pg_sys::WalSnd>();
        (0..pg_sys::max_wal_senders as usize)
            .any(|n| (&raw const (*places.add(n)).pid).read_volatile() != 0)
    }
}

/// A physical walsender works in no database. Only then are all processes looked at: the copy of their
/// status is large.
fn has_walsender() -> bool {
    if !has_any_walsender() {
        return false;
    }
    // SAFETY: looks at a copy of the processes' status that is made once for a transaction; a fresh one
    // is asked for.
    unsafe {
        pg_sys::pgstat_clear_backend_activity_snapshot();
        (1..=pg_sys::pgstat_fetch_stat_numbackends()).any(|n| {
            let entry = pg_sys::pgstat_fetch_stat_local_beentry(n);
            !entry.is_null() && {
                let status = &(*entry).backendStatus;
                status.st_backendType == pg_sys::BackendType::B_WAL_SENDER
                    && status.st_databaseid == pg_sys::InvalidOid
            }
        })
    }
}
