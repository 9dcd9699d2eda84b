//! Forks do not age (D18): what pg_database says of them holds nothing of the server back.

//!
//! A fork's row begins with what the source's row says, because its pages are the source's. Once outcomes are kept for
//! the fork's cut ([`crate::fork::kept`]) nothing that it inherits needs the server's commit log any more, and
//! inherited pages are read settled for good: then a fork in which nothing was written is as young as one that
//! is made now, and its row is moved on again and again. Autovacuum never finds it old, and the commit log is cut off
//! as if it were not there. One that was written to stays at the age that it had before, and is vacuumed as any
//! database: what it inherits is frozen as it is read.
#![allow(unsafe_code)] // settings that are not bound

use crate::fork::{files, frozen_ids, kept, pool};
use crate::pg::inplace::{self, Changed};
use crate::shmem::registry::{self, ForkState};
use crate::smgr::outcomes;
use pgrx::bgworkers::BackgroundWorker;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::{Duration, Instant};

extern "C" {
    /// autovacuum.c
    static autovacuum_freeze_max_age: i32;
    static autovacuum_multixact_freeze_max_age: i32;
}

/// A row is moved on when it is so much older than it need be: this part of the age that autovacuum acts at.
const PART: i32 = 20;
/// Between two looks for such rows.
const PAUSE: Duration = Duration::from_millis(900);

thread_local! {
    /// Invalid forks whose rows say so.
    static COUNTED_OUT: RefCell<HashSet<u32>> = RefCell::default();
    /// When [`move_on`] looked last.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The worker, now and then.
pub fn tend() {
    count_out();
    kept::tend();
    move_on();
}

fn is_before(a: u32, b: u32, by: i32) -> bool {
    b.wrapping_sub(a) as i32 > by
}

/// Moves on the rows of forks that nothing was written in.
fn move_on() {
    // Ready forks whose outcomes are kept, and what is known of their rows.
    let mut forks: Vec<(u32, (u32, u32))> = registry::read(|table| {
        let kept = |layer: u32| table.get(layer).is_some_and(|layer| layer.kept != 0);
        let forks = table.iter().filter(|slot| slot.is_fork());
        let ready = forks.filter(|slot| slot.state == ForkState::Ready && kept(slot.layer));
        ready
            .map(|slot| (slot.oid, (slot.row_xid, slot.row_multi)))
            .collect()
    });
    // SAFETY: plain variables.
    let (xids, multis) = unsafe {
        (
            autovacuum_freeze_max_age,
            autovacuum_multixact_freeze_max_age,
        )
    };
    // First these, because whoever has written by then has an older number at most; then what was written.
    let (xid, multi) = (outcomes::oldest_active(), outcomes::oldest_multi());
    forks.retain(|(_, (row_xid, row_multi))| {
        *row_xid == 0
            || is_before(*row_xid, xid, xids / PART)
            || is_before(*row_multi, multi, multis / PART)
    });
    let last = LOOKED.get().map_or(PAUSE, |last| last.elapsed());
    if forks.is_empty() || last < PAUSE {
        return;
    }
    LOOKED.set(Some(Instant::now()));
    let moved = BackgroundWorker::transaction(|| {
        let rows = kept::frozen_ids();
        // As `idle::is_untouched` looks, but once for all.
        let dirty = pool::dirty_databases();
        let mut moved = Vec::new();
        for (fork, _) in forks {
            let Some((row_xid, row_multi)) = rows.get(&fork).copied() else {
                continue;
            };
            let late =
                is_before(row_xid, xid, xids / PART) || is_before(row_multi, multi, multis / PART);
            // Nobody forks it, nor vacuums it, at this moment.
            let moves = late
                && !dirty.contains(&fork)
                && !files::has_main_blocks(fork)
                && frozen_ids::lock_to_move(fork);
            let mut now = (row_xid, row_multi);
            if moves {
                inplace::change(fork, |row| {
                    if is_before(row.datfrozenxid.into_inner(), xid, 0) {
                        row.datfrozenxid = xid.into();
                    }
                    if is_before(row.datminmxid.into_inner(), multi, 0) {
                        row.datminmxid = multi.into();
                    }
                    now = (row.datfrozenxid.into_inner(), row.datminmxid.into_inner());
                    true
                });
            }
            moved.push((fork, now));
        }
        moved
    });
    registry::touch(|table| {
        for (fork, (xid, multi)) in moved {
            table.update(fork, |slot| (slot.row_xid, slot.row_multi) = (xid, multi));
        }
    });
}

/// Takes the rows of invalid forks out of the server's count: nobody can vacuum them, so autovacuum would choose
/// them again and again once they are old, and the commit log would wait for them (autovacuum.c,
/// `get_database_list`; vacuum.c, `vac_truncate_clog`).
fn count_out() {
    let mut invalid: HashSet<u32> = registry::read(|table| {
        let forks = table.iter().filter(|slot| slot.is_fork());
        let forks = forks.filter(|slot| slot.state == ForkState::Invalid);
        forks.map(|slot| slot.oid).collect()
    });
    COUNTED_OUT.with_borrow_mut(|done| {
        // A number may come again, for another fork.
        done.retain(|oid| invalid.contains(oid));
        invalid.retain(|oid| !done.contains(oid));
        if invalid.is_empty() {
            return;
        }
        done.extend(BackgroundWorker::transaction(|| {
            // Where its owner is at it, or drops it: later.
            let said = |oid: &u32| {
                let changed = inplace::change(*oid, |row| {
                    let counts = row.datconnlimit != pg_sys::DATCONNLIMIT_INVALID_DB;
                    row.datconnlimit = pg_sys::DATCONNLIMIT_INVALID_DB;
                    counts
                });
                matches!(changed, Changed::Yes | Changed::No)
            };
            invalid.into_iter().filter(said).collect::<Vec<_>>()
        }));
    });
}
