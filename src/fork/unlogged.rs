//! Unlogged relations of forks after a crash: empty, as in any database.
//!
//! `ResetUnloggedRelations` (reinit.c) looks at files, so it resets those that a fork made. What a
//! fork inherited has no init file in its folder: that is reset here, before recovery.

use crate::fork::files;
use crate::shmem::registry::{self, Slot};
use crate::shmem::{pagemap, view};
use crate::smgr::host::Server;
use crate::smgr::{failure, handles, reads};
use pg_fork_core::engine::{current_len, EngineError, FileOf, Host};
use pg_fork_core::types::{MapState, RelFork, PAGE_SIZE};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;

/// In the postmaster, after a crash: prod waits for it, so each folder is looked into once, however many forks
/// read it. Returns the forks that have init forks of their own.
pub fn reset_all() -> BTreeSet<u32> {
    let forks = registry::all_forks();
    if forks.is_empty() {
        return BTreeSet::new();
    }
    let inits = Inits::find();
    for (fork, _) in &forks {
        if let Err(error) = reset(fork, &inits) {
            let reason = format!(
                "could not reset its unlogged tables: {}",
                failure::describe(&error)
            );
            crate::shmem::load::invalidate(fork.oid, &reason);
        }
    }
    let own = |oid: &u32| (inits.by_source.get(oid)).is_some_and(|inits| !inits.own.is_empty());
    let forks = forks.iter().map(|(fork, _)| fork.oid);
    forks.filter(own).collect()
}

fn reset(fork: &Slot, inits: &Inits) -> Result<(), EngineError<io::Error>> {
    let found = inits.of(fork);
    // Else it need not even be known what the fork reads.
    let node = if found.is_empty() {
        None
    } else {
        view::node(fork.oid)
    };
    let Some(node) = node else {
        return Ok(());
    };
    for init in found {
        let Some(blocks) = current_len(&Server, fork.oid, &node, init)? else {
            continue;
        };
        let mut pages = vec![[0; PAGE_SIZE]; blocks as usize];
        for (block, page) in (0..).zip(&mut pages) {
            reads::read_now(fork.oid, &node, init, block, page)?;
        }
        for number in 0..3 {
            let rel = RelFork {
                fork: number,
                ..init
            };
            let state = pg_fork_core::engine::fork_state(&Server, fork.oid, &node, rel)?;
            // The fork's own relation, which PostgreSQL resets by itself.
            if matches!(state, MapState::Private | MapState::Gone) {
                continue;
            }
            let state = match number {
                0 => MapState::Own { inherited_len: 0 },
                _ => MapState::Gone,
            };
            // First the state, because what is inherited is not to be seen again.
            pagemap::set_state(fork.oid, node.space, rel, state, true)?;
            handles::forget(fork.oid, rel);
            for segment in 0.. {
                if fs::remove_file(files::segment_path(fork.oid, rel, segment)).is_err() {
                    break;
                }
            }
            for (block, page) in (0..).zip(&pages).filter(|_| number == 0) {
                let file = FileOf { oid: fork.oid, rel };
                Server.write_file(file, block, page)?;
            }
            if number == 0 && pages.is_empty() {
                handles::open(fork.oid, rel, 0, true)?;
            }
        }
    }
    Ok(())
}

/// The init forks of one source.
#[derive(Default)]
struct OfSource {
    /// What its own folders have.
    own: Vec<RelFork>,
    /// What its layers keep, each with the layer's number in the order of cuts.
    kept: Vec<(u64, RelFork)>,
}

/// The init forks that there are, as each source has them.
struct Inits {
    /// Sources without any are not there.
    by_source: HashMap<u32, OfSource>,
    /// Of each fork: where it was cut from.
    origins: HashMap<u32, (u32, u64)>,
}

impl Inits {
    fn find() -> Self {
        let slots: Vec<Slot> = registry::read(|table| table.iter().copied().collect());
        let spaces = files::tablespaces();
        let forks = slots.iter().filter(|slot| !slot.is_layer());
        let origins = forks.map(|slot| (slot.oid, (slot.source, slot.seq)));
        let mut inits = Inits {
            by_source: HashMap::new(),
            origins: origins.collect(),
        };
        let forks = slots.iter().filter(|slot| slot.is_fork());
        let mut sources: BTreeSet<u32> = forks.map(|slot| slot.oid).collect();
        sources.extend(slots.iter().map(|slot| slot.source));
        for source in sources {
            let found = inits_in(source, &spaces);
            if !found.is_empty() {
                inits.by_source.entry(source).or_default().own = found;
            }
        }
        for layer in slots.iter().filter(|slot| slot.is_layer()) {
            for rel in inits_in(layer.oid, &spaces) {
                let of_source = inits.by_source.entry(layer.source).or_default();
                of_source.kept.push((layer.seq, rel));
            }
        }
        inits
    }

    /// Those that the fork may have: of its ancestors, and what layers that it reads keep of such.
    fn of(&self, fork: &Slot) -> BTreeSet<RelFork> {
        let mut found = BTreeSet::new();
        let mut at = fork.oid;
        while let Some((source, seq)) = self.origins.get(&at) {
            if let Some(inits) = self.by_source.get(source) {
                found.extend(&inits.own);
                let read = inits.kept.iter().filter(|(of, _)| of >= seq);
                found.extend(read.map(|(_, rel)| *rel));
            }
            at = *source;
        }
        found
    }
}

fn inits_in(place: u32, spaces: &[u32]) -> Vec<RelFork> {
    let mut found = Vec::new();
    for spc in spaces {
        let entries = fs::read_dir(files::db_dir(place, *spc));
        for entry in entries.into_iter().flatten().flatten() {
            let rel = entry.file_name().to_str().and_then(files::parse_init);
            found.extend(rel.map(|rel| RelFork {
                spc: *spc,
                rel,
                fork: 3,
            }));
        }
    }
    found
}
