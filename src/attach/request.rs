//! What the session was asked for, from the call of the function until its transaction is over.
#![allow(unsafe_code)] // callbacks that C calls, and memory contexts

use crate::attach::target::{self, Target};
use crate::attach::{comm, libraries, nailed, refuse, roles, session, settings, statement, switch};
use crate::fork::{catalog, heirs};
use crate::pg::raw;
use crate::shmem::view::{self, Role};
use crate::stop_point;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;

/// Where to.
pub enum Where<'a> {
    Named(&'a str),
    Home,
}

struct Pending {
    target: Target,
    committed: bool,
    /// Raised by DISCARD ALL: a session that cannot go home must not be used by anyone else.
    or_end: bool,
}

thread_local! {
    static PENDING: RefCell<Option<Pending>> = const { RefCell::new(None) };
    static WAITING: Cell<bool> = const { Cell::new(false) };
    static LOCKED: Cell<u32> = const { Cell::new(0) };
    static HOME: Cell<u32> = const { Cell::new(0) };
}

/// From `_PG_init`.
pub fn register() {
    // SAFETY: a function of the right type that lives as long as the process.
    unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
}

fn here() -> u32 {
    // SAFETY: a plain variable of this process.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// The database that the session logged in to.
pub fn home() -> u32 {
    if HOME.get() == 0 {
        HOME.set(here());
    }
    HOME.get()
}

/// Whether the session has moved, and is not back.
pub fn away() -> bool {
    HOME.get() != 0 && HOME.get() != here()
}

/// Whether the database is a fork. One look at this process's view of the registry.
pub fn is_fork(oid: u32) -> bool {
    match view::role(oid) {
        Role::Node(node) => node.origin.is_some(),
        Role::Invalid(_) | Role::Tombstone => true,
        Role::Plain => false,
    }
}

/// The name of the fork that the session is in.
pub fn current_fork() -> Option<String> {
    let here = here();
    is_fork(here)
        .then(|| catalog::database_name(here))
        .flatten()
}

/// Asks for a move. Returns the names of where the session is and of where it will be.
///
/// # Safety
/// `call` is the call data of the running function.
pub unsafe fn ask(call: pg_sys::FunctionCallInfo, to: Where, function: &str) -> (String, String) {
    // SAFETY: by the caller's promise.
    unsafe { statement::must_stand_alone(call, function) };
    ask_here(to, false)
}

/// After DISCARD ALL, the statement being all of its transaction: back to where the session logged in.
/// If that cannot be, the session ends.
pub fn ask_home_or_end() {
    if !away() {
        return;
    }
    PgTryBuilder::new(|| drop(ask_here(Where::Home, true)))
        .catch_others(|error| end_session(error))
        .execute();
}

fn ask_here(to: Where, or_end: bool) -> (String, String) {
    refuse_while_waiting();
    let from = catalog::database_name(here()).unwrap_or_default();
    let home = home();
    let stays = match to {
        Where::Named(name) => catalog::database_oid(name) == Some(here()),
        Where::Home => home == here(),
    };
    if stays {
        let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
        raw::notice(
            code,
            &format!("the session is in database \"{from}\" already"),
        );
        return (from.clone(), from);
    }
    session::refuse_what_stays(or_end);
    let target = match to {
        Where::Named(name) => target::find(name),
        Where::Home => target::find_by_oid(home),
    };
    libraries::refuse_those_that_stay(target.oid);
    nailed::find();
    roles::watch();
    stop_point::at("attach-checked");
    let name = target.name.to_string_lossy().into_owned();
    PENDING.with(|pending| {
        *pending.borrow_mut() = Some(Pending {
            target,
            committed: false,
            or_end,
        });
    });
    WAITING.set(true);
    comm::install();
    (from, name)
}

/// The database is locked for this session: given back when the request is over.
pub fn locked(oid: u32) {
    LOCKED.set(oid);
}

/// Whether the session is about to move.
#[inline]
pub fn is_waiting() -> bool {
    WAITING.get()
}

/// Raises 25001 for a statement that the client has sent after the call, but that would still run in
/// the old database.
#[inline]
pub fn refuse_while_waiting() {
    if WAITING.get() {
        refuse(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "the session is about to move to another database",
            "Fetch all of the result of fork_attach before you send the next statement.",
        );
    }
}

/// Forgets the request. Raises no error.
pub fn cancel() {
    if WAITING.replace(false) {
        comm::settle();
    }
    PENDING.with(|pending| drop(pending.borrow_mut().take()));
    let locked = LOCKED.take();
    if locked != 0 {
        target::unlock(locked);
    }
}

/// The end of each transaction.
#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    if !WAITING.get() && LOCKED.get() == 0 {
        return;
    }
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => PENDING.with(|pending| {
            if let Some(pending) = pending.borrow_mut().as_mut() {
                pending.committed = true;
            }
        }),
        pg_sys::XactEvent::XACT_EVENT_ABORT => cancel(),
        _ => {}
    }
}

fn end_session(error: CaughtError) -> ! {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic {
        ereport: report, ..
    }) = error;
    ErrorReport::new(
        report.sql_error_code(),
        "terminating connection because it cannot change its database",
        "fork_attach",
    )
    .set_detail(report.message().to_string())
    .report(PgLogLevel::FATAL);
    unreachable!()
}

/// Moves the session if its transaction has committed. Raises an error if it stays where it is.
pub fn carry_out() {
    // SAFETY: plain state of this process.
    if unsafe { pg_sys::IsTransactionOrTransactionBlock() } {
        return;
    }
    let pending = PENDING.with(|pending| pending.borrow_mut().take());
    let Some(pending) = pending.filter(|pending| pending.committed) else {
        return cancel();
    };
    WAITING.set(false);
    // SAFETY: after a commit allocations go to a context that lives as long as the process; this one
    // is emptied before the next statement is read (postgres.c).
    let context = unsafe { pg_sys::MemoryContextSwitchTo(pg_sys::MessageContext) };
    PgTryBuilder::new(|| switch::prepare(&pending.target))
        .catch_others(|error| {
            comm::settle();
            cancel();
            if pending.or_end {
                end_session(error);
            }
            error.rethrow()
        })
        .execute();
    // Past this point there is no way back: what fails now ends the session.
    PgTryBuilder::new(|| {
        switch::cross(&pending.target);
        cancel();
        // SAFETY: a counter of this process. A cancel request comes too late, the statement is done.
        unsafe { pg_sys::QueryCancelHoldoffCount += 1 };
        settings::apply(&pending.target.settings);
        stop_point::at("attach-settled");
        // SAFETY: as above.
        unsafe { pg_sys::QueryCancelHoldoffCount -= 1 };
        heirs::enter();
    })
    .catch_others(|error| end_session(error))
    .execute();
    comm::settle();
    // SAFETY: the context of before.
    unsafe { pg_sys::MemoryContextSwitchTo(context) };
}
