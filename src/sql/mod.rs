//! The SQL surface.

mod api;
mod attach;
mod mount;
mod views;
