//! The SQL surface.

mod api;
mod attach;
mod views;
