//! `fork_check`: reads all of a fork as it is on disk, and says what is wrong with it.

use crate::fork::files;
use crate::pg::disk;
use crate::shmem::view::{self, Role};
use crate::smgr::host::Server;
use crate::smgr::{failure, reads, sizes};
use pg_fork_core::engine::{current_len, fork_state, FileOf, Host};
use pg_fork_core::topology::Node;
use pg_fork_core::types::{Block, MapState, RelFork, PAGE_SIZE};

/// What is wrong with a relation fork, or with one of its blocks.
pub struct Finding {
    pub relation: String,
    pub block: Option<Block>,
    pub problem: String,
}

/// Checks each relation fork's map against its files, and each block's place in the chain of layers,
/// LSN (I3) and checksum.
pub fn check(oid: u32) -> Vec<Finding> {
    let whole = |problem: String| Finding {
        relation: String::new(),
        block: None,
        problem,
    };
    let node = match view::role(oid) {
        Role::Node(node) => node,
        Role::Invalid(reason) => return vec![whole(format!("the fork is invalid: {reason}"))],
        _ => return vec![whole("the fork is being dropped".into())],
    };
    let mut findings = Vec::new();
    if let Err(error) = files::read_meta(oid) {
        findings.push(whole(format!("its meta file cannot be read: {error}")));
    }
    for layer in view::layers_needed(oid) {
        if let Err(error) = files::read_meta(layer) {
            findings.push(whole(format!(
                "the meta file of layer {layer} cannot be read: {error}"
            )));
        }
    }
    for rel in sizes::relations(oid) {
        check_relation(oid, &node, rel, &mut findings);
    }
    findings
}

fn name(oid: u32, rel: RelFork) -> String {
    files::segment_path(oid, rel, 0).display().to_string()
}

fn check_relation(oid: u32, node: &Node, rel: RelFork, findings: &mut Vec<Finding>) {
    let mut found = |block, problem| {
        findings.push(Finding {
            relation: name(oid, rel),
            block,
            problem,
        })
    };
    let (len, state) = match current_len(&Server, oid, node, rel)
        .and_then(|len| Ok((len, fork_state(&Server, oid, node, rel)?)))
    {
        Ok((Some(len), state)) => (len, state),
        Ok((None, _)) => return,
        Err(error) => return found(None, failure::describe(&error)),
    };
    if let MapState::Own { inherited_len } = state {
        match check_map(oid, node, rel, inherited_len) {
            Ok(None) => {}
            Ok(Some(block)) => found(
                Some(block),
                "the page map says that it is private, but the file ends before it".into(),
            ),
            Err(error) => found(None, error.to_string()),
        }
    }
    let mut page = [0; PAGE_SIZE];
    for block in 0..len {
        pgrx::check_for_interrupts!();
        let mut read = || -> Option<String> {
            match reads::read_now(oid, node, rel, block, &mut page) {
                Err(error) => Some(failure::describe(&error)),
                Ok(()) if disk::is_verified(&page, block) => None,
                Ok(()) => Some("the page is damaged: header or checksum".into()),
            }
        };
        // Someone may be writing it: look again.
        if read().is_some() {
            if let Some(problem) = read() {
                found(Some(block), problem);
            }
        }
    }
}

/// The first private block below the inherited length that the fork's file does not have.
fn check_map(oid: u32, node: &Node, rel: RelFork, len: Block) -> std::io::Result<Option<Block>> {
    let have = Server.file_len(FileOf { oid, rel })?.unwrap_or(0);
    Server.next_bit(oid, node.space, rel, have, len)
}
