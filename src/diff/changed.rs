//! The blocks of a fork's relation that may differ from the cut.

use crate::fork::pool;
use crate::reader::page::Pages;
use crate::shmem::view::{self, Role};
use crate::smgr::host::Server;
use pg_fork_core::engine::{fork_state, Host};
use pg_fork_core::types::{Block, MapState, RelFork};
use std::collections::{BTreeSet, HashMap};

/// The dirty pages of a fork in the buffer pool: their bits are set when they are written out.
pub struct Dirty(HashMap<(u32, u32), Vec<Block>>);

impl Dirty {
    /// After the snapshot was taken: what it sees was on its page before.
    pub fn of(db: u32) -> Self {
        let mut dirty: HashMap<_, Vec<Block>> = HashMap::new();
        for page in pool::dirty(db) {
            let rel = page.rel();
            if rel.fork == 0 {
                let blocks = dirty.entry((rel.spc, rel.rel)).or_default();
                blocks.push(page.tag.blockNum);
            }
        }
        Dirty(dirty)
    }
}

fn place(pages: &Pages) -> (u32, u32) {
    (pages.node.spcNode.to_u32(), pages.node.relNode.to_u32())
}

/// Whether both are the same file, so that blocks can be told apart by the page map.
pub fn is_same_file(now: &Pages, base: &Pages) -> bool {
    place(now) == place(base)
}

/// The blocks that may differ, in order; `None` if the page map says nothing of them: all.
///
/// `lengths`: of the relation now and at the cut.
pub fn blocks(db: u32, now: &Pages, dirty: &Dirty, lengths: (Block, Block)) -> Option<Vec<Block>> {
    let (spc, rel) = place(now);
    let at = RelFork { spc, rel, fork: 0 };
    let Role::Node(node) = view::role(db) else {
        return None;
    };
    let mut changed = BTreeSet::new();
    // First the buffers: one that is written out after this look has its bit by the next.
    changed.extend(dirty.0.get(&(spc, rel)).into_iter().flatten().copied());
    let own_from = match fork_state(&Server, db, &node, at).ok()? {
        MapState::Untouched { len } => len,
        MapState::Own { inherited_len } => {
            let mut block = 0;
            while let Some(found) = Server
                .next_bit(db, node.space, at, block, inherited_len)
                .ok()?
            {
                changed.insert(found);
                block = found + 1;
            }
            inherited_len
        }
        _ => return None,
    };
    changed.extend(own_from..lengths.0.max(lengths.1));
    Some(changed.into_iter().collect())
}
