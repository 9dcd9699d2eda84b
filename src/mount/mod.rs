//! Mounted tables: the table access method `fork`, and what makes and removes tables of it (D17).

pub mod am;
pub mod change;
pub mod create;
pub mod label;
mod lazy;
pub mod members;
mod opened;
mod scan;
mod slot;
pub mod vacuum;
pub mod watch;
