//! What goes past the storage manager (DESIGN.md, section 5).

pub mod lookups;
pub mod messages;
pub mod relmap;
pub mod session;
pub mod sizes;
pub mod sync;
pub mod tablespace;
pub mod utility;
