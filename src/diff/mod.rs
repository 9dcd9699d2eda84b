//! What a fork changed since its cut, and what it has of its own.

pub mod blocks;
pub mod schema;
