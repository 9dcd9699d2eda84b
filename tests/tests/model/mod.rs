//! The random model: databases and forks on a server with pg_fork, and for each a twin that is a
//! plain database on a server without it. Both get the same statements and must answer the same.

mod compare;
mod held;
mod lives;
mod rng;
mod shape;
mod statements;
mod world;

pub use world::World;
