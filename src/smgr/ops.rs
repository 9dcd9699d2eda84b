//! What each storage-manager operation does for a plain database, a source, a fork, and the rest.
//!
//! | operation | source | fork | invalid fork | tombstone |
//! |-----------|--------|------|--------------|-----------|
//! | read, nblocks, exists | md | own or inherited | error | made-up pages |
//! | write, extend | save the old, md | save, own files | nothing | nothing |
//! | truncate | save the tail, md | save, own files | nothing | nothing |
//! | unlink | hand over, md | hand over, own files | md | nothing |
//! | create | note, md | own files | own files, not by replay | nothing |
//!
//! What fails on a fork's behalf while a source's operation runs makes the forks invalid and the
//! operation go on (D14, I7). So does what fails in a fork's own files where it is not the fork's own
//! session that is told ([`super::own`]).
#![allow(unsafe_code)] // passes smgr.c's arguments on to md.c

pub use super::reads::{smgr_prefetch, smgr_read};
pub use super::truncate::smgr_truncate;

use crate::fork::{files, idle};
use crate::hooks::tablespace;
use crate::pg::{md, process};
use crate::shmem::load::invalidate;
use crate::shmem::stats::{self, Often};
use crate::shmem::view::{self, Role};
use crate::smgr::failure::{for_forks, fork_failed, invalid, look_failed};
use crate::smgr::host::{HandOver, Server};
use crate::smgr::own::{self, Call};
use crate::smgr::{handles, sync};
use crate::stop_point;
use pg_fork_core::engine::{self, EngineError};
use pg_fork_core::topology::Node;
use pg_fork_core::types::{MapState, RelFork};
use pgrx::pg_sys::{self, BlockNumber, ForkNumber, RelFileNodeBackend, SMgrRelation};
use pgrx::prelude::*;
use std::ffi::c_char;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;

pub(super) type Fork = ForkNumber::Type;

/// The database, the relation fork, and the database's role; plain for temporary relations.
/// What replay is to pass over is a tombstone's.
pub(super) fn route(rnode: &RelFileNodeBackend, fork: Fork) -> (u32, RelFork, Role) {
    let node = &rnode.node;
    let db = node.dbNode.to_u32();
    let rel = RelFork {
        spc: node.spcNode.to_u32(),
        rel: node.relNode.to_u32(),
        fork: fork as u8,
    };
    if db == 0 || rnode.backend != pg_sys::InvalidBackendId {
        return (db, rel, Role::Plain);
    }
    let role = view::role(db);
    // Replay of what came before a fork dropped the relation must not bring it back, nor must whoever
    // writes out what replay made of it.
    if let (Some(node), true) = (fork_node(&role), process::server_in_recovery()) {
        if let Ok(MapState::Gone) = engine::fork_state(&Server, db, node, rel) {
            return (db, rel, Role::Tombstone);
        }
    }
    (db, rel, role)
}

fn save_before_overwrite(db: u32, node: &Node, rel: RelFork, block: BlockNumber) {
    if !node.layers.is_empty() {
        let saved = for_forks(
            db,
            node,
            engine::before_overwrite(&Server, db, node, rel, block),
        );
        if saved == Some(true) {
            stats::count_often(Often::Preimages);
        }
    }
}

fn note_before_extend(db: u32, node: &Node, rel: RelFork) {
    if !node.layers.is_empty() {
        for_forks(db, node, engine::note(&Server, db, node, rel));
    }
}

/// The fork's node, if the node is a fork's.
pub(super) fn fork_node(role: &Role) -> Option<&Rc<Node>> {
    match role {
        Role::Node(node) if node.origin.is_some() => Some(node),
        _ => None,
    }
}

pub(super) fn state_of(db: u32, node: &Node, rel: RelFork, what: &str) -> MapState {
    match engine::fork_state(&Server, db, node, rel) {
        Ok(state) => state,
        Err(failure) => {
            look_failed(db, what, &failure);
            // Replay: what md finds is all there is.
            MapState::Private
        }
    }
}

/// What came of a change of a fork's own files: an error in its own session, else the fork's end.
fn changed(db: u32, what: &str, done: Option<io::Result<()>>) {
    if let Some(Err(error)) = done {
        fork_failed(db, what, &EngineError::Host(error));
    }
}

/// What runs it: any process that creates a relation; recovery also for each block it meets.
pub unsafe fn smgr_create(reln: SMgrRelation, fork: Fork, redo: bool) {
    // SAFETY: smgr.c's own arguments, here and in all that follow.
    unsafe {
        let (db, rel, role) = route(&(*reln).smgr_rnode, fork);
        match &role {
            Role::Tombstone => {}
            Role::Invalid(_) if redo => {}
            Role::Invalid(_) => create_own(reln, db, rel, redo),
            Role::Node(node) if node.origin.is_some() => {
                create_in_fork(reln, db, node, rel, redo);
            }
            Role::Node(node) => {
                if !node.layers.is_empty() && !md::mdexists(reln, fork) {
                    note_before_extend(db, node, rel);
                }
                if (*reln).md_num_open_segs[fork as usize] > 0 {
                    md::mdclose(reln, fork);
                }
                md::mdcreate(reln, fork, redo);
            }
            Role::Plain => md::mdcreate(reln, fork, redo),
        }
    }
}

unsafe fn create_in_fork(reln: SMgrRelation, db: u32, node: &Node, rel: RelFork, redo: bool) {
    const WHAT: &str = "create a relation";
    // SAFETY: see smgr_create.
    unsafe {
        match state_of(db, node, rel, WHAT) {
            // Inherited: there already.
            MapState::Untouched { .. } if redo => return,
            MapState::Own { .. } if redo => {
                let made = own::guarded(db, Call::Changes, WHAT, || own::ensure(reln, db, rel));
                return changed(db, WHAT, made);
            }
            MapState::Untouched { .. } => {
                ereport!(
                    ERROR,
                    PgSqlErrorCode::ERRCODE_DUPLICATE_FILE,
                    format!("relation file {} exists in the fork's source", rel.rel)
                );
            }
            _ => {}
        }
        if !node.layers.is_empty() && !files::segment_path(db, rel, 0).exists() {
            note_before_extend(db, node, rel);
        }
        if let Err(failure) = engine::before_own_write(&Server, db, node, rel) {
            return fork_failed(db, WHAT, &failure);
        }
        if redo && Fork::from(rel.fork as i8) == ForkNumber::INIT_FORKNUM {
            clear_for_init(reln, db, rel);
        }
        create_own(reln, db, rel, redo);
    }
}

/// Makes the file of a fork's new relation.
unsafe fn create_own(reln: SMgrRelation, db: u32, rel: RelFork, redo: bool) {
    // SAFETY: see smgr_create.
    unsafe { md::mdclose(reln, Fork::from(rel.fork as i8)) };
    let create = || {
        if rel.spc != files::DEFAULT_TABLESPACE {
            files::ensure_dir(db, rel.spc)?;
        }
        own::create(db, rel, redo)
    };
    // While the server recovers nobody drops a tablespace but replay itself.
    let made = match rel.spc == files::DEFAULT_TABLESPACE || process::in_recovery() {
        true => create(),
        false => tablespace::with_link_kept(create),
    };
    if let Err(error) = made {
        fork_failed(db, "create a relation", &EngineError::Host(error));
    }
}

/// Replay makes an init fork that was not there when recovery began: the relation's creation was undone
/// before the crash, but that is not in the WAL. What is left of the main fork (md.c, `mdunlink`, leaves it
/// empty until the next checkpoint) would end recovery when the init fork is copied over it: reinit.c has
/// copy_file create a new file. A stock server does not start then; a fork must not do that to it.
unsafe fn clear_for_init(reln: SMgrRelation, db: u32, rel: RelFork) {
    let main = RelFork { fork: 0, ..rel };
    if files::segment_path(db, rel, 0).exists() {
        return;
    }
    // SAFETY: see smgr_create.
    unsafe { md::mdclose(reln, ForkNumber::MAIN_FORKNUM) };
    for segment in 0.. {
        if std::fs::remove_file(files::segment_path(db, main, segment)).is_err() {
            break;
        }
    }
}

pub unsafe fn smgr_exists(reln: SMgrRelation, fork: Fork) -> bool {
    // SAFETY: see smgr_create.
    unsafe {
        let (db, rel, role) = route(&(*reln).smgr_rnode, fork);
        match &role {
            // Recovery asks for free space and visibility maps only to change them.
            Role::Tombstone => return fork == ForkNumber::MAIN_FORKNUM,
            Role::Invalid(_) if process::in_recovery() => return fork == ForkNumber::MAIN_FORKNUM,
            // No error: the end of a transaction asks when it drops what that had made (bufmgr.c,
            // `DropRelFileNodesAllBuffers`). Whoever asks in order to read then learns it from its length.
            Role::Invalid(_) => return true,
            _ => {}
        }
        if let Some(node) = fork_node(&role) {
            match state_of(db, node, rel, "find a relation") {
                // Without a file of its own too: it may have been truncated.
                MapState::Untouched { .. } | MapState::Own { .. } => return true,
                MapState::Gone => return false,
                _ => {}
            }
            let found = own::guarded(db, Call::Looks, "find a file", || {
                stop_point::at("md-exists");
                md::mdexists(reln, fork)
            });
            return found.unwrap_or(fork == ForkNumber::MAIN_FORKNUM);
        }
        md::mdexists(reln, fork)
    }
}

/// Any process, after a commit or abort, or recovery. May not raise an error (md.c, `mdunlink`).
pub unsafe fn smgr_unlink(rnode: RelFileNodeBackend, fork: Fork, redo: bool) {
    if fork == ForkNumber::InvalidForkNumber {
        for fork in ForkNumber::MAIN_FORKNUM..=ForkNumber::INIT_FORKNUM {
            // SAFETY: see smgr_create.
            unsafe { smgr_unlink(rnode, fork, redo) };
        }
        return;
    }
    let (db, rel, role) = route(&rnode, fork);
    match &role {
        Role::Tombstone => return,
        Role::Node(node) => {
            if !node.layers.is_empty() {
                let _under_way = HandOver::begin();
                for_forks(db, node, engine::before_unlink(&Server, db, node, rel));
            }
            if let Some(node) = fork_node(&role) {
                let state = engine::fork_state(&Server, db, node, rel);
                if let Ok(MapState::Untouched { .. } | MapState::Own { .. }) = state {
                    let gone =
                        crate::shmem::pagemap::set_state(db, node.space, rel, MapState::Gone, true);
                    stop_point::at("unlink-gone");
                    if let Err(error) = gone {
                        invalidate(db, &error.to_string());
                    }
                }
                if let Ok(MapState::Untouched { .. } | MapState::Gone) = state {
                    return;
                }
            } else if fork == ForkNumber::MAIN_FORKNUM && !redo {
                // md leaves an empty main file until the next checkpoint, so that the number is not
                // used again before (md.c, `mdunlink`). The real one may be the layer's now.
                let path = files::segment_path(db, rel, 0);
                let _ = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .open(path);
            }
        }
        _ => {}
    }
    handles::forget(db, rel);
    // SAFETY: see smgr_create.
    unsafe { md::mdunlink(rnode, fork, redo) };
}

pub unsafe fn smgr_extend(
    reln: SMgrRelation,
    fork: Fork,
    block: BlockNumber,
    buffer: *mut c_char,
    skip_fsync: bool,
) {
    // SAFETY: see smgr_create.
    unsafe {
        let (db, rel, role) = route(&(*reln).smgr_rnode, fork);
        match &role {
            Role::Tombstone | Role::Invalid(_) => return,
            Role::Node(node) => {
                note_before_extend(db, node, rel);
                if let Some(node) = fork_node(&role) {
                    return write_own(reln, db, node, rel, block, buffer, skip_fsync, true);
                }
            }
            Role::Plain => {}
        }
        md::mdextend(reln, fork, block, buffer, skip_fsync);
    }
}

/// Any process that needs room in the buffer pool, mostly one that works in another database.
pub unsafe fn smgr_write(
    reln: SMgrRelation,
    fork: Fork,
    block: BlockNumber,
    buffer: *mut c_char,
    skip_fsync: bool,
) {
    // SAFETY: see smgr_create.
    unsafe {
        let (db, rel, role) = route(&(*reln).smgr_rnode, fork);
        match &role {
            Role::Tombstone | Role::Invalid(_) => return,
            Role::Node(node) => {
                save_before_overwrite(db, node, rel, block);
                if let Some(node) = fork_node(&role) {
                    return write_own(reln, db, node, rel, block, buffer, skip_fsync, false);
                }
            }
            Role::Plain => {}
        }
        md::mdwrite(reln, fork, block, buffer, skip_fsync);
    }
}

/// Writes a block to the fork's own file, then says so in the map (D8).
#[expect(clippy::too_many_arguments)]
unsafe fn write_own(
    reln: SMgrRelation,
    db: u32,
    node: &Node,
    rel: RelFork,
    block: BlockNumber,
    buffer: *mut c_char,
    skip_fsync: bool,
    extend: bool,
) {
    const WHAT: &str = "write a block";
    let inherited = match engine::before_own_write(&Server, db, node, rel) {
        Ok(len) => len,
        Err(failure) => return fork_failed(db, WHAT, &failure),
    };
    let own = block >= inherited
        || crate::shmem::pagemap::bit(db, node.space, rel, block).unwrap_or(false);
    // First the bytes, because a reader that sees the bit reads them;
    let new = extend || !own;
    let done = own::guarded(db, Call::Changes, WHAT, || {
        // SAFETY: see smgr_create.
        unsafe {
            if inherited > 0 || extend {
                own::ensure(reln, db, rel)?;
            }
            own::write(reln, db, rel, block, buffer, new)?;
        }
        match skip_fsync {
            true => Ok(()),
            false => sync::register(db, rel, block / files::SEGMENT_BLOCKS),
        }
    });
    match done {
        Some(Ok(())) => {}
        done => return changed(db, WHAT, done),
    }
    stop_point::at("write-page");
    // second the bit.
    if !own {
        if let Err(error) = crate::shmem::pagemap::set_bit(db, node.space, rel, block) {
            fork_failed(db, "write to the page map", &EngineError::Host(error));
        }
    }
}

pub unsafe fn smgr_writeback(
    reln: SMgrRelation,
    fork: Fork,
    block: BlockNumber,
    blocks: BlockNumber,
) {
    // SAFETY: see smgr_create.
    unsafe {
        let (db, rel, role) = route(&(*reln).smgr_rnode, fork);
        match &role {
            Role::Tombstone | Role::Invalid(_) => {}
            _ if fork_node(&role).is_some() => own::write_back(db, rel, block, blocks),
            _ => md::mdwriteback(reln, fork, block, blocks),
        }
    }
}

pub unsafe fn smgr_nblocks(reln: SMgrRelation, fork: Fork) -> BlockNumber {
    // SAFETY: see smgr_create.
    unsafe {
        let (db, rel, role) = route(&(*reln).smgr_rnode, fork);
        match &role {
            Role::Tombstone => return BlockNumber::MAX - 1,
            Role::Invalid(_) if process::in_recovery() => return BlockNumber::MAX - 1,
            Role::Invalid(reason) => invalid(db, reason),
            _ => {}
        }
        if let Some(node) = fork_node(&role) {
            idle::dismiss_autovacuum(db);
            let state = state_of(db, node, rel, "measure a relation");
            if let MapState::Untouched { len } = state {
                return len;
            }
            let len = own::guarded(db, Call::Looks, "measure a file", || {
                stop_point::at("md-nblocks");
                match state {
                    MapState::Own { inherited_len } if !own::is_there(reln, fork) => inherited_len,
                    MapState::Own { inherited_len } => md::mdnblocks(reln, fork).max(inherited_len),
                    _ => md::mdnblocks(reln, fork),
                }
            });
            // Recovery: invalid by now.
            return len.unwrap_or(BlockNumber::MAX - 1);
        }
        md::mdnblocks(reln, fork)
    }
}

pub unsafe fn smgr_immedsync(reln: SMgrRelation, fork: Fork) {
    // SAFETY: see smgr_create.
    unsafe {
        let (db, rel, role) = route(&(*reln).smgr_rnode, fork);
        match &role {
            Role::Tombstone | Role::Invalid(_) => {}
            // The map is registered with the checkpointer at each of its changes.
            _ if fork_node(&role).is_some() => own::sync_now(db, rel),
            _ => md::mdimmedsync(reln, fork),
        }
    }
}
