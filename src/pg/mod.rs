//! Thin wrappers over `pg_sys`: each does one thing and says what it leans on.
#![allow(unsafe_code)] // the fence: raw calls into PostgreSQL live here

pub mod arena;
pub mod builtins;
pub mod catalogs;
pub mod checksum;
pub mod comm;
pub mod disk;
pub mod inplace;
pub mod lwlock;
pub mod md;
pub mod memory;
pub mod proc;
pub mod process;
pub mod queue;
pub mod raw;

pub mod text;
pub mod threads;
pub mod tuple;
pub mod uniform;
