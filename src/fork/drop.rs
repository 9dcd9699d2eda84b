//! `fork_drop`, and `DROP DATABASE` of a fork: rows now, files later, no checkpoint (D12).
#![allow(non_snake_case)] // C's names
#![allow(unsafe_code)] // calls into procarray.c

use crate::fork::{base, catalog, pending, prepared, readers, rows};
use crate::pg::raw;
use crate::shmem::registry::{self, ForkState, Slot};
use crate::stop_point;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// pg_subscription.c
    fn CountDBSubscriptions(database: pg_sys::Oid) -> i32;
}

pub(super) fn report(
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<&str>,
) -> ! {
    let mut error = ErrorReport::new(code, message, "fork_drop");
    if let Some(detail) = detail {
        error = error.set_detail(detail);
    }
    if let Some(hint) = hint {
        error = error.set_hint(hint);
    }
    error.report(PgLogLevel::ERROR);
    unreachable!()
}

/// The names of forks, for a message.
pub fn names_of(forks: &[Slot]) -> String {
    let name = |fork: &Slot| catalog::database_name(fork.oid).unwrap_or_else(|| fork.name());
    forks.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Drops the fork of that name when the transaction commits.
///
/// Raises 3D000 (no such database, unless `missing_ok`), 42809 (not a fork), 42501 (neither owner
/// nor superuser), 55006 (in use by sessions, prepared transactions or logical replication, or this
/// session is in it), 2BP01 (it has forks of its own), 25001 (an invalid fork has prepared transactions, and
/// this is a subtransaction).
pub fn drop_fork(name: &str, force: bool, missing_ok: bool) -> bool {
    let Some(oid) = catalog::database_oid(name) else {
        let message = format!("database \"{name}\" does not exist");
        if missing_ok {
            let code = PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME;
            raw::notice(code, &format!("{message}, skipping"));
            return false;
        }
        report(
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            message,
            None,
            None,
        );
    };
    if registry::fork(oid).is_none() || pending::dropped_here(oid) {
        report(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("database \"{name}\" is not a fork"),
            None,
            Some("Use DROP DATABASE for a database of its own."),
        );
    }
    if !catalog::owns(oid) {
        let message = format!("must be owner of database {name}");
        report(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            message,
            None,
            None,
        );
    }
    // SAFETY: plain reads of this process's state.
    if unsafe { pg_sys::MyDatabaseId }.to_u32() == oid {
        let message = "cannot drop the fork that this session is in".to_string();
        let hint =
            Some("Leave it first: SELECT fork_detach(), if the session came by fork_attach.");
        report(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, message, None, hint);
    }
    catalog::lock_for_drop(oid);
    if catalog::database_oid(name) != Some(oid) {
        let message = format!("database \"{name}\" was dropped or renamed meanwhile");
        report(
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            message,
            None,
            None,
        );
    }
    let own: Vec<Slot> = registry::forks_of(oid)
        .into_iter()
        .filter(|fork| !pending::dropped_here(fork.oid))
        .collect();
    if !own.is_empty() {
        report(
            PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
            format!("cannot drop fork \"{name}\" because it has forks of its own"),
            Some(format!("Its forks: {}.", names_of(&own))),
            Some("Drop them first."),
        );
    }
    // SAFETY: another extension's hook may raise an error (as InvokeObjectDropHook).
    unsafe {
        if (&raw const pg_sys::object_access_hook).read().is_some() {
            pg_sys::RunObjectDropHook(catalog::DATABASE_RELATION.into(), oid.into(), 0, 0);
        }
    }
    refuse_replication(oid, name);
    end_prepared(oid, name, force);
    // From here on the transaction's end decides, however it comes.
    pending::on_commit_drop(oid);
    if force {
        // First the mark, because who is ended looks at it.
        registry::touch(|table| table.update(oid, |slot| slot.ending = 1));
    }
    refuse_readers(oid, name, force);
    end_sessions(oid, name, force);
    stop_point::at("drop-sessions");
    rows::remove(oid);
    stop_point::at("drop-row");
    // The worker removes files once this is committed: the commit must be on disk first, whatever
    // synchronous_commit says (as dropdb has it, dbcommands.c).
    // SAFETY: sets a flag of this transaction.
    unsafe { pg_sys::ForceSyncCommit() };
    true
}

/// Raises 55006 if an active logical slot or a subscription uses the fork, as dropdb does. The worker
/// drops slots that are not active.
fn refuse_replication(oid: u32, name: &str) {
    let (mut slots, mut active) = (0, 0);
    // SAFETY: look-ups; nobody can begin to use the fork under our lock.
    let subscriptions = unsafe {
        pg_sys::ReplicationSlotsCountDBSlots(oid.into(), &mut slots, &mut active);
        CountDBSubscriptions(oid.into())
    };
    let in_use = |message: String, detail: String| -> ! {
        report(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            message,
            Some(detail),
            None,
        )
    };
    if active > 0 {
        in_use(
            format!("fork \"{name}\" is used by an active logical replication slot"),
            format!("There are {active} active slots."),
        );
    }
    if subscriptions > 0 {
        in_use(
            format!("fork \"{name}\" is being used by logical replication subscription"),
            format!("There are {subscriptions} subscriptions."),
        );
    }
}

/// Rolls back what was prepared in an invalid fork, if nothing else keeps it; raises 55006 for another.
fn end_prepared(oid: u32, name: &str, force: bool) {
    let invalid = registry::fork(oid).is_some_and(|fork| fork.state == ForkState::Invalid);
    if !invalid {
        return prepared::refuse(oid, name);
    }
    // SAFETY: a count under ProcArrayLock.
    if force || unsafe { pg_sys::CountDBBackends(oid.into()) } == 0 {
        prepared::roll_back(oid, name);
    }
}

/// Ends the fork's sessions if `force`, else raises 55006 if there are any.
fn end_sessions(oid: u32, name: &str, force: bool) {
    let (mut sessions, mut prepared) = (0, 0);
    // SAFETY: raises an error where the caller may not end a session, or where there is a prepared
    // transaction; then waits up to 5 s for sessions to go (procarray.c, TerminateOtherDBBackends and
    // CountOtherDBBackends, which looks every 100 ms only).
    let used = unsafe {
        if force {
            pg_sys::TerminateOtherDBBackends(oid.into());
            let asked = Instant::now();
            while pg_sys::CountDBBackends(oid.into()) > 0 && asked.elapsed().as_secs() < 5 {
                pgrx::check_for_interrupts!();
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        pg_sys::CountOtherDBBackends(oid.into(), &mut sessions, &mut prepared)
    };
    if used {
        let hint = match (force, prepared) {
            (false, 0) => "Call fork_drop with force => true to end them.",
            (true, 0) => "Try again.",
            _ => "Commit or roll back the prepared transactions first.",
        };
        report(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("fork \"{name}\" is being accessed by other users"),
            Some(format!(
                "{sessions} session(s) and {prepared} prepared transaction(s) are using it."
            )),
            Some(hint),
        );
    }
}

/// Ends the sessions elsewhere that read the fork if `force`, else raises 55006 if there are any.
fn refuse_readers(oid: u32, name: &str, force: bool) {
    let left = readers::lock_out(oid, force);
    if left > 0 {
        let hint = match force {
            false => "Call fork_drop with force => true to end them.",
            true => "Try again.",
        };
        report(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("fork \"{name}\" is being read by other sessions"),
            Some(format!(
                "{left} session(s) read it from outside, in transactions that have not ended."
            )),
            Some(hint),
        );
    }
    // Processes that have moved to the base; new ones cannot come, for they hold that lock too.
    if let Some(base) = base::of(oid) {
        end_sessions(base, name, force);
    }
}
