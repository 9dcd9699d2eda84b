//! The SQL surface.

mod api;
mod views;
