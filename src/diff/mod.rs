//! What a fork changed since its cut, and what it has of its own (D17).
//!
//! The page map and the dirty buffers tell which blocks differ from the cut; a row on any other block is
//! the same row. So a table costs as much as it has changed blocks, unless it was rewritten.

pub mod blocks;
mod changed;
pub mod rows;
pub mod schema;
pub mod tables;
pub mod told;
