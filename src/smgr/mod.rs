//! The seam to the storage manager (D3): every block that any process of the server reads or
//! writes comes by here.

pub mod callbacks;
pub mod captured;
mod classes;
pub mod failure;
pub mod halt;
pub mod handles;
pub mod host;
pub mod ops;
pub mod outcomes;
mod own;
pub mod pruning;
pub mod reads;
pub mod settle;
pub mod sizes;
pub mod stop;
pub mod sync;
pub mod table;
mod tail;
pub mod truncate;
