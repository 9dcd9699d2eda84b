//! The pages that were captured at a cut, as the forks of that cut find them.
//!
//! Their index is read once by each process that needs it: it never changes.

use crate::fork::files;
use pg_fork_core::format::captured::Captured;
use pg_fork_core::topology::Layer;
use pg_fork_core::types::{Block, RelFork, PAGE_SIZE};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;

/// Indexes that are kept.
const MOST: usize = 16;

thread_local! {
    /// By [`Layer::space`], which is never reused as a layer's number may be. Last used last.
    static KNOWN: RefCell<Vec<(u32, Rc<Captured>)>> = const { RefCell::new(Vec::new()) };
}

/// Forgets all indexes. In the postmaster, whose children inherit them: spaces are numbered anew after a crash.
pub fn forget_all() {
    KNOWN.with_borrow_mut(Vec::clear);
}

/// The page of the layer's file of captured pages that holds the block.
pub fn find(layer: &Layer, rel: RelFork, block: Block) -> io::Result<Option<Block>> {
    let found = KNOWN.with_borrow(|known| {
        let (_, index) = known.last().filter(|(space, _)| *space == layer.space)?;
        Some(index.find(rel, block))
    });
    match found {
        Some(found) => Ok(found),
        None => Ok(index(layer)?.find(rel, block)),
    }
}

/// The layer's index, which is the last used one from now on.
fn index(layer: &Layer) -> io::Result<Rc<Captured>> {
    let at = KNOWN.with_borrow(|known| known.iter().position(|(space, _)| *space == layer.space));
    let index = match at {
        Some(at) => KNOWN.with_borrow_mut(|known| known.remove(at)).1,
        None => Rc::new(read(layer.oid)?),
    };
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= MOST {
            known.remove(0);
        }
        known.push((layer.space, index.clone()));
    });
    Ok(index)
}

fn read(layer: u32) -> io::Result<Captured> {
    let wrong = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut file = File::open(files::captured_path(layer))?;
    let mut bytes = vec![0; PAGE_SIZE];
    file.read_exact(&mut bytes)?;
    let need = Captured::needs(&bytes).map_err(wrong)?;
    // What the header says is not to be believed before it is read: no more than there is.
    file.take(need.saturating_sub(PAGE_SIZE) as u64)
        .read_to_end(&mut bytes)?;
    Captured::decode(&bytes).map_err(wrong)
}
