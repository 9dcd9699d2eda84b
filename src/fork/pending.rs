//! What this transaction's end decides: forks made and dropped in it.
#![allow(unsafe_code)] // registers callbacks that C calls

use crate::fork::frozen_ids;
use crate::shmem;
use crate::shmem::registry::{self, ForkState};
use crate::stop_point;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::c_void;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Create,
    Drop,
}

struct Pending {
    oid: u32,
    action: Action,
    subxact: u32,
}

thread_local! {
    static PENDING: RefCell<Vec<Pending>> = const { RefCell::new(Vec::new()) };
}

/// From `_PG_init`: every process inherits the callbacks.
pub fn register() {
    // SAFETY: functions of the right type that live as long as the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_sub_end), std::ptr::null_mut());
    }
}

fn push(oid: u32, action: Action) {
    // SAFETY: a plain read of this transaction's state.
    let subxact = unsafe { pg_sys::GetCurrentSubTransactionId() };
    PENDING.with(|pending| {
        pending.borrow_mut().push(Pending {
            oid,
            action,
            subxact,
        })
    });
}

/// The fork is ready when this transaction commits, and gone when it does not.
pub fn on_commit_create(oid: u32) {
    push(oid, Action::Create);
}

/// The fork is gone when this transaction commits.
pub fn on_commit_drop(oid: u32) {
    push(oid, Action::Drop);
}

/// Whether this transaction has made the fork.
pub fn created_here(oid: u32) -> bool {
    PENDING.with(|pending| {
        let made = |one: &Pending| one.oid == oid && one.action == Action::Create;
        pending.borrow().iter().any(made)
    })
}

/// Whether this transaction has dropped the fork already.
pub fn dropped_here(oid: u32) -> bool {
    PENDING.with(|pending| {
        pending
            .borrow()
            .iter()
            .any(|p| p.oid == oid && p.action == Action::Drop)
    })
}

/// Leaves the fork to the worker.
pub fn abandon(oid: u32) {
    registry::change(|table| {
        table.update(oid, |slot| {
            if slot.is_fork() {
                slot.state = ForkState::Dropping;
            }
        })
    });
    if let Some(shared) = shmem::shared() {
        crate::worker::wake(shared);
    }
}

fn settle(pending: Vec<Pending>, committed: bool) {
    stop_point::at(if committed { "committed" } else { "aborted" });
    for Pending { oid, action, .. } in pending {
        match (action, committed) {
            (Action::Create, true) => {
                registry::touch(|table| {
                    table.update(oid, |slot| {
                        if slot.state == ForkState::Creating {
                            slot.state = ForkState::Ready;
                        }
                    })
                });
            }
            (Action::Create, false) | (Action::Drop, true) => abandon(oid),
            (Action::Drop, false) => {
                registry::touch(|table| table.update(oid, |slot| slot.ending = 0));
            }
        }
    }
}

/// Runs in the backend. After the commit record is written no error may be raised.
#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    if PENDING.with(|pending| pending.borrow().is_empty()) {
        return;
    }
    match event {
        XACT_EVENT_PRE_PREPARE => {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "cannot PREPARE a transaction that has created or dropped a fork"
            );
        }
        XACT_EVENT_PRE_COMMIT => {
            let forks = PENDING.with(|pending| {
                let made = |one: &Pending| (one.action == Action::Create).then_some(one.oid);
                pending.borrow().iter().filter_map(made).collect::<Vec<_>>()
            });
            stop_point::at("commit-begins");
            frozen_ids::hold_until_commit(&forks);
        }
        XACT_EVENT_COMMIT => settle(PENDING.take(), true),
        XACT_EVENT_ABORT => settle(PENDING.take(), false),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_sub_end(
    event: pg_sys::SubXactEvent::Type,
    my: u32,
    parent: u32,
    _arg: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    match event {
        SUBXACT_EVENT_COMMIT_SUB => PENDING.with(|pending| {
            pending
                .borrow_mut()
                .iter_mut()
                .filter(|p| p.subxact == my)
                .for_each(|p| p.subxact = parent);
        }),
        SUBXACT_EVENT_ABORT_SUB => {
            let undone = PENDING.with(|pending| {
                let (undone, kept) = pending.take().into_iter().partition(|p| p.subxact == my);
                *pending.borrow_mut() = kept;
                undone
            });
            settle(undone, false);
        }
        _ => {}
    }
}
