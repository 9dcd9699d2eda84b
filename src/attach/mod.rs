//! Attaching (D15): a session moves into a fork, and back, without a reconnect.
//!
//! `fork_attach` itself only checks and notes what is asked for ([`request`]). The session moves once
//! its transaction has committed, before the client is told that the statement is done ([`comm`]):
//! then it holds no lock, no snapshot and no reference to a cached relation, so nothing of the one
//! database can be left in the other. An error until then leaves it where it was.
//!
//! Everything here runs in a client's backend, but [`visit`].

mod caches;
pub mod comm;
mod idle;
mod libraries;
mod messages;
mod nailed;
mod plpgsql;
mod postgis;
pub mod request;
mod roles;
mod session;
pub mod settings;
mod statement;
mod status;
mod switch;
mod target;
mod temp;
mod trust;
pub mod visit;
mod way_out;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// From `_PG_init`.
pub fn register() {
    request::register();
    comm::register();
    way_out::register();
    messages::register();
}

/// Raises an error with a hint.
fn refuse(code: PgSqlErrorCode, message: impl Into<String>, hint: &str) -> ! {
    ErrorReport::new(code, message.into(), "fork_attach")
        .set_hint(hint)
        .report(PgLogLevel::ERROR);
    unreachable!()
}
