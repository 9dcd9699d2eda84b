//! Thousands of random steps on databases and their forks, compared with plain twins.
//!
//! `PG_FORK_SEED` runs a seed again, `PG_FORK_STEPS` says how many steps (1000).

mod model;

use model::World;
use std::time::{SystemTime, UNIX_EPOCH};

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

#[test]
fn random_steps_leave_each_database_like_its_twin() {
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("after 1970").as_nanos() as u64 % 1_000_000
    };
    let seed = number("PG_FORK_SEED").unwrap_or_else(now);
    let steps = number("PG_FORK_STEPS").unwrap_or(1000) as usize;
    println!("PG_FORK_SEED={seed} PG_FORK_STEPS={steps}");
    let mut world = World::new(seed);
    for step in 0..steps {
        world.step(step);
    }
    world.finish();
}
