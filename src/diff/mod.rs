//! What a fork changed since its cut, and what it has of its own (D17).
//!
//! The page map and the dirty buffers tell which blocks differ from the cut; a row on any other block is
//! the same row. So a table costs as much as it has changed blocks, unless it was rewritten.
//!
//! Rows are read from the pages of both sides and printed by the catalogs of their own side ([`values`]), in
//! whichever database the caller is: the same two states are told the same from everywhere, no code of a
//! user's runs, and what the caller's own transaction did in the fork is seen.

pub mod blocks;
mod changed;
mod columns;
mod compare;
mod heads;
mod large_objects;
pub mod rows;
pub mod schema;
mod side;
pub mod sort;
pub mod summary;
pub mod tables;
mod values;
