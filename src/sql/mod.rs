//! The SQL surface.

mod api;
mod attach;
mod diff;
mod mount;
mod rows;
#[allow(dead_code)]
mod srf;
mod views;
