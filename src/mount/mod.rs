//! Mounted tables: the table access method `fork`, and what makes and removes tables of it (D17).

pub mod am;
mod build;
pub mod change;
mod columns;
pub mod create;
pub mod label;
mod lazy;
pub mod members;
mod names;
mod opened;
mod query;
mod scan;
mod slot;
mod tables;
pub mod unmount;
pub mod vacuum;
mod view;
pub mod watch;
