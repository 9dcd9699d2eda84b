//! Reading: a fork's own block, or the one that it inherits.
#![allow(unsafe_code)] // passes smgr.c's arguments on to md.c

use crate::mount::watch;
use crate::pg::{md, process};
use crate::shmem::stats::{self, Often};
use crate::shmem::view::{self, Role};
use crate::smgr::failure::{invalid, look_failed, Failure};
use crate::smgr::host::{self, Server};
use crate::smgr::ops::{fork_node, route, state_of, Fork};
use crate::smgr::own::{self, Call};
use crate::smgr::{pruning, settle};
use crate::stop_point;
use pg_fork_core::engine::{self, EngineError, FileOf, Found, Host};
use pg_fork_core::topology::{Layer, Node, Origin};
use pg_fork_core::types::{MapState, Page, RelFork, PAGE_SIZE};
use pgrx::pg_sys::{self, BlockNumber, ForkNumber, SMgrRelation};
use std::ffi::c_char;
use std::rc::Rc;

/// Where a fork's block is read from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whence {
    Private,
    /// From where the fork was cut; `untouched`: so is all of the relation.
    Inherited {
        untouched: bool,
    },
}

fn whence(db: u32, node: &Node, rel: RelFork, block: BlockNumber, what: &str) -> Whence {
    match state_of(db, node, rel, what) {
        MapState::Untouched { len } if block < len => Whence::Inherited { untouched: true },
        MapState::Own { inherited_len } if block < inherited_len => {
            match crate::shmem::pagemap::bit(db, node.space, rel, block) {
                Ok(true) => Whence::Private,
                Ok(false) => Whence::Inherited { untouched: false },
                Err(error) => {
                    look_failed(db, what, &EngineError::Host(error));
                    Whence::Private
                }
            }
        }
        _ => Whence::Private,
    }
}

pub unsafe fn smgr_read(reln: SMgrRelation, fork: Fork, block: BlockNumber, buffer: *mut c_char) {
    // SAFETY: see smgr_create; the buffer is a page.
    unsafe {
        let (db, rel, role) = route(&(*reln).smgr_rnode, fork);
        match &role {
            Role::Tombstone => return black_hole_page(fork, block, buffer),
            Role::Invalid(_) if process::in_recovery() => {
                return black_hole_page(fork, block, buffer)
            }
            Role::Invalid(reason) => invalid(db, reason),
            _ => {}
        }
        if let Some(node) = fork_node(&role) {
            if let Whence::Inherited { untouched } = whence(db, node, rel, block, "read") {
                let page = &mut *buffer.cast::<Page>();
                match engine::read_inherited(&Server, node, rel, block, page) {
                    Ok(from_layer) => {
                        stats::count_often(if from_layer {
                            Often::ReadLayer
                        } else {
                            Often::ReadInherited
                        });
                        pruning::prepare(rel, block, page, untouched);
                        if let Some(layer) = node.origin.as_ref().and_then(cut_of) {
                            settle::make_young(&layer, db, rel, block, page);
                        }
                    }
                    Err(failure) => {
                        look_failed(db, "read", &failure);
                        black_hole_page(fork, block, buffer);
                    }
                }
                return;
            }
            stats::count_often(Often::ReadPrivate);
            let read = own::guarded(db, Call::Looks, "read a block", || {
                stop_point::at("md-read");
                md::mdread(reln, fork, block, buffer);
            });
            if read.is_none() {
                black_hole_page(fork, block, buffer);
            }
            return;
        }
        md::mdread(reln, fork, block, buffer);
    }
}

/// Reads a fork's block as it is on disk now.
pub fn read_now(
    db: u32,
    node: &Node,
    rel: RelFork,
    block: BlockNumber,
    page: &mut Page,
) -> Result<(), Failure> {
    let inherited = match engine::fork_state(&Server, db, node, rel)? {
        MapState::Untouched { .. } => true,
        MapState::Own { inherited_len } if block < inherited_len => {
            !Server.bit(db, node.space, rel, block)?
        }
        _ => false,
    };
    if inherited {
        return engine::read_inherited(&Server, node, rel, block, page).map(drop);
    }
    let file = FileOf { oid: db, rel };
    match Server.read_file(file, block, page)? {
        Found::Page => Ok(()),
        Found::Nothing => Err(EngineError::NotFound { file, block }),
    }
}

/// The layer of a fork's cut.
fn cut_of(origin: &Origin) -> Option<Rc<Layer>> {
    let parent = view::node(origin.parent)?;
    parent.from_cut(origin.seq)?.first().cloned()
}

/// A page that replay passes over: its LSN is past any record (xlogutils.c,
/// `XLogReadBufferForRedoExtended`: `BLK_DONE`). So recovery needs no file of a dropped fork (D12).
///
/// Replay writes to free space maps without a look at the LSN (freespace.c,
/// `XLogRecordPageWithFreeSpace`), and a page that is written out must have no such LSN (bufmgr.c,
/// `FlushBuffer`): those, and visibility maps, are new pages, which replay may begin with.
unsafe fn black_hole_page(fork: Fork, block: BlockNumber, buffer: *mut c_char) {
    // SAFETY: the buffer is a page.
    unsafe {
        if matches!(
            fork,
            ForkNumber::FSM_FORKNUM | ForkNumber::VISIBILITYMAP_FORKNUM
        ) {
            std::ptr::write_bytes(buffer, 0, PAGE_SIZE);
            return;
        }
        pg_sys::PageInit(buffer.cast(), PAGE_SIZE, 0);
        std::ptr::write_bytes(buffer, 0xFF, 8);
        pg_sys::PageSetChecksumInplace(buffer.cast(), block);
    }
}

/// Asks for the block where it lies now. Whatever fails here will be told of by the read.
fn prefetch_inherited(node: &Node, rel: RelFork, block: BlockNumber) {
    if let Ok(Some((file, page))) = engine::locate_inherited(&Server, node, rel, block) {
        let _ = host::prefetch(file, page);
    }
}

pub unsafe fn smgr_prefetch(reln: SMgrRelation, fork: Fork, block: BlockNumber) -> bool {
    // SAFETY: see smgr_create.
    unsafe {
        let (db, rel, role) = route(&(*reln).smgr_rnode, fork);
        match &role {
            Role::Tombstone | Role::Invalid(_) => return true,
            _ => {}
        }
        if let Some(node) = fork_node(&role) {
            if whence(db, node, rel, block, "prefetch") != Whence::Private {
                prefetch_inherited(node, rel, block);
                return true;
            }
        }
        // ANALYZE asks for blocks of a mounted table's own file (analyze.c, `acquire_sample_rows`), which
        // is empty: past a first segment that is not full md raises an error.
        if watch::is_in_use() && (!md::mdexists(reln, fork) || md::mdnblocks(reln, fork) == 0) {
            return true;
        }
        if fork_node(&role).is_none() {
            return md::mdprefetch(reln, fork, block);
        }
        let asked = own::guarded(db, Call::Looks, "prefetch a block", || {
            stop_point::at("md-prefetch");
            md::mdprefetch(reln, fork, block)
        });
        // That there is no such file is no error of replay's (xlogprefetcher.c, `XLogPrefetcherNextBlock`).
        asked.unwrap_or(true) || process::in_recovery()
    }
}
