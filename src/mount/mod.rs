//! Mounted tables: the table access method `fork`, and what makes and removes tables of it (D17).

pub mod am;
mod change;
pub mod label;
mod opened;
mod scan;
mod slot;
pub mod watch;
