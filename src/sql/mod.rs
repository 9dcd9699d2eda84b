//! The SQL surface.

mod api;
mod attach;
mod diff;
mod internal;
mod mount;
mod rows;
mod srf;
mod tree;
mod views;
