//! A session in a fork cannot reach out of it (D16): databases share roles, tablespaces, settings and
//! the outside world. What would change those raises an error, for sessions that attached and for
//! those that logged in to the fork alike. Reading stays allowed.
//!
//! What is not known to stay in is refused: a function or a statement of a new version has to be looked at
//! first. It keeps in honest mistakes, and roles with ordinary rights whatever they try; a superuser can
//! always get out (`pg_fork.isolation`).

mod arguments;
mod classes;
mod functions;
mod programs;
mod reindex;
mod shared;
mod statements;
mod tags;
mod workers;
mod writes;

pub use functions::check as check_function;
pub use reindex::without_shared as reindexed_without_shared;
pub use shared::without_shared;
pub use statements::check as check_statement;
pub use writes::check as check_query;

use crate::attach::request::is_fork;
use crate::pg::process;
use crate::shmem;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::cell::Cell;

static ISOLATION: GucSetting<bool> = GucSetting::<bool>::new(true);

/// From `_PG_init`.
pub fn register() {
    GucRegistry::define_bool_guc(
        c"pg_fork.isolation",
        c"Sessions in a fork cannot change what databases share, nor the outside world.",
        c"A superuser can set it off for a session or for a fork's database.",
        &ISOLATION,
        GucContext::Suset,
        GucFlags::default(),
    );
    workers::register();
    functions::install();
    let missing = arguments::install();
    if !missing.is_empty() {
        warning!(
            "pg_fork: sessions of a fork can call these functions on others: {}",
            missing.join(", ")
        );
    }
}

thread_local! {
    /// The database that the session was in when it was asked for last, and whether that is a fork.
    static KNOWN: Cell<(u32, bool)> = const { Cell::new((0, false)) };
}

/// Whether this session is in a fork, and kept there.
#[inline]
pub fn in_force() -> bool {
    shmem::any_live() && ISOLATION.get() && in_fork()
}

/// Whether [`in_force`] has to be asked. Cannot fail: hooks ask it for each call of a function and each
/// query, in all databases.
#[inline]
pub fn may_be_in_force() -> bool {
    shmem::any_live() && ISOLATION.get() && KNOWN.get() != (process::my_database(), false)
}

/// Whether this session is in a fork. A database that someone works in does not change its kind.
fn in_fork() -> bool {
    let here = process::my_database();
    let (known, fork) = KNOWN.get();
    if known == here {
        return fork;
    }
    let fork = here != 0 && is_fork(here);
    KNOWN.set((here, fork));
    fork
}

/// Raises 42501.
fn refuse(what: &str) -> ! {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("cannot {what} in a fork"),
        "pg_fork",
    )
    .set_detail("It would reach out of the fork.")
    .set_hint("Do it in a session outside of the fork. A superuser can set pg_fork.isolation = off for the fork's database.")
    .report(PgLogLevel::ERROR);
    unreachable!()
}
