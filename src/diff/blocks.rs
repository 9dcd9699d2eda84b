//! `fork_blocks`: how much of each relation a fork has inherited, and how much is its own.

use crate::remote::{Failure, Side, Sides};
use crate::shmem::registry::{self, Slot};
use crate::shmem::view::{self, Role};
use crate::smgr::failure;
use crate::smgr::host::Server;
use pg_fork_core::engine::{current_len, fork_state, locate_inherited, Host};
use pg_fork_core::topology::Node;
use pg_fork_core::types::{Block, MapState, RelFork};
use std::collections::HashSet;

/// The fork's relations that have files, but shared ones (which are no fork's) and temporary ones.
const RELATIONS: &str = "
    SELECT n.nspname, c.relname, c.reltablespace, pg_relation_filenode(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 't', 'i', 'S', 'm') AND NOT c.relisshared AND c.relpersistence <> 't'
      AND pg_relation_filenode(c.oid) IS NOT NULL
    ORDER BY n.nspname, c.relname";

const FORKS: [&str; 4] = ["main", "fsm", "vm", "init"];

/// A relation fork's blocks.
pub struct Blocks {
    pub schema: String,
    pub relation: String,
    pub fork: &'static str,
    pub count: Count,
}

/// Blocks by where they are read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub total: Block,
    /// Read from the source, or from a layer.
    pub inherited: Block,
    /// The fork's own.
    pub private: Block,
    /// Of the inherited ones, those that the source has overwritten since the cut.
    pub preimages: Block,
}

/// The blocks of each relation fork that there is, by name.
pub fn blocks(fork: &Slot) -> Result<Vec<Blocks>, Failure> {
    let mut sides = Sides::of(*fork);
    let mut relations = Vec::new();
    sides.query(Side::Now, RELATIONS, |row| {
        if let [Some(schema), Some(name), Some(space), Some(file)] = &row[..] {
            if let (Ok(space), Ok(file)) = (space.parse(), file.parse()) {
                relations.push((schema.clone(), name.clone(), space, file));
            }
        }
    })?;
    let mut found = Vec::new();
    for (schema, relation, space, file) in relations {
        let spc = if space == 0 { fork.tablespace } else { space };
        for (number, fork_name) in (0..).zip(FORKS) {
            let rel = RelFork {
                spc,
                rel: file,
                fork: number,
            };
            found.extend(count(fork.oid, rel).map(|count| Blocks {
                schema: schema.clone(),
                relation: relation.clone(),
                fork: fork_name,
                count,
            }));
        }
    }
    // Until here, so that the fork is there all the while.
    sides.finish();
    Ok(found)
}

/// The relation fork's blocks; `None` if it does not exist. Raises an error if it cannot be read.
fn count(oid: u32, rel: RelFork) -> Option<Count> {
    let Role::Node(node) = view::role(oid) else {
        return None;
    };
    let counted = current_len(&Server, oid, &node, rel).and_then(|len| {
        Ok(match len {
            Some(total) => Some(split(oid, &node, rel, total)?),
            None => None,
        })
    });
    counted.unwrap_or_else(|error| {
        pgrx::error!("could not read a page map: {}", failure::describe(&error))
    })
}

type Failed = pg_fork_core::engine::EngineError<std::io::Error>;

fn split(oid: u32, node: &Node, rel: RelFork, total: Block) -> Result<Count, Failed> {
    let state = fork_state(&Server, oid, node, rel)?;
    let end = match state {
        MapState::Untouched { len } => len,
        MapState::Own { inherited_len } => inherited_len.min(total),
        _ => 0,
    };
    let mut layers = HashSet::new();
    let mut count = Count {
        total,
        ..Count::default()
    };
    let mut own = next_own(oid, node, rel, state, 0, end)?;
    for block in 0..end {
        pgrx::check_for_interrupts!();
        if own == Some(block) {
            own = next_own(oid, node, rel, state, block + 1, end)?;
            continue;
        }
        count.inherited += 1;
        let place = locate_inherited(&Server, node, rel, block)?.map_or(0, |(file, _)| file.oid);
        let is_layer = |oid| registry::layer_source(oid).is_some();
        // One look at the registry for each place, not for each block.
        if layers.contains(&place) || (is_layer(place) && layers.insert(place)) {
            count.preimages += 1;
        }
    }
    count.private = total - count.inherited;
    Ok(count)
}

/// The first block from `from` on that is the fork's own.
fn next_own(
    oid: u32,
    node: &Node,
    rel: RelFork,
    state: MapState,
    from: Block,
    end: Block,
) -> Result<Option<Block>, Failed> {
    match state {
        MapState::Own { .. } => Ok(Server.next_bit(oid, node.space, rel, from, end)?),
        _ => Ok(None),
    }
}
