//! Which functions may be called in a fork. Names only, no PostgreSQL: the tests read these lists as well.

pub mod libraries;
pub mod server;
