//! The channel: reads what is inside another database, with the caller's rights, from any database.
//!
//! A session cannot look into a second database. So a call starts a background worker, which logs in to
//! the fork as the caller, and asks it for what it wants ([`call::Call`]); rows and errors come back
//! through a queue in shared memory. For the fork as it was at its cut the worker moves on to the fork's
//! base ([`crate::attach::visit`]). The worker is a session of the fork, or of the base: who drops the
//! fork ends it as any other. It ends with the call, however the call ends.

pub mod call;
mod jobs;
mod query;
mod said;
mod settings;
mod wire;
mod worker;

pub use call::Failure;
pub use query::Sides;
pub use wire::Side;
