//! The pure core of pg_fork: what a page map is, how a block is resolved through
//! forks and layers, what a write has to do and in which order.
//!
//! No PostgreSQL, no I/O, no clock, no globals.

pub mod cache;
pub mod checksum;
pub mod engine;
#[cfg(test)]
mod engine_model;
pub mod filter;
pub mod format;
pub mod json;
pub mod matching;
pub mod names;
pub mod outcomes;
pub mod pages;
pub mod settle;
pub mod slru;
pub mod summary;
pub mod table;
pub mod topology;
pub mod types;
