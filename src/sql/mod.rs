//! The SQL surface.

mod api;
mod attach;
mod diff;
mod views;
