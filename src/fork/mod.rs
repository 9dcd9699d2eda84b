//! A fork's life: the cut, its creation, its drop, and the files and catalog rows of it.

mod attempt;
pub mod base;
pub mod capture;
pub mod catalog;
pub mod check;
pub mod create;
pub mod cut;
pub mod drop;
pub mod files;
mod gate;
pub mod heirs;
pub mod marks;
pub mod merge;
mod own_settings;
mod patience;
mod peers;
pub mod pending;
pub mod pool;
mod prepared;
pub mod readers;
pub mod room;
pub mod rows;
mod running;
pub mod standbys;
pub mod start;
pub mod unlogged;
pub mod write_behind;
