//! What a database is to the storage manager, as this process last saw it in the registry.
//!
//! Kept for one generation of the registry, and only of the databases that were asked for.

use super::registry::{self, ForkState, Slot, Use};
use crate::fork::{files, restart};
use crate::pg::process;
use pg_fork_core::table::Table;
use pg_fork_core::topology::{Layer, Node, Origin};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// What a database is to the storage manager.
#[derive(Clone, Debug)]
pub enum Role {
    Plain,
    /// A fork, a source, or both.
    Node(Rc<Node>),
    Invalid(Rc<str>),
    /// Dropped, or not here: its I/O goes nowhere.
    Tombstone,
}

#[derive(Clone)]
struct Known {
    role: Role,
    /// Also of a fork that is invalid or being dropped: it is still in the way of its forks.
    node: Option<Rc<Node>>,
}

#[derive(Default)]
struct View {
    generation: Option<u64>,
    known: HashMap<u32, Known, BuildHasherDefault<Spread>>,
}

/// Numbers of databases follow each other: that is hash enough, and it is asked for each block.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

thread_local! {
    static VIEW: RefCell<View> = RefCell::default();
    /// Databases that were here when they were looked for, and those that were not.
    static HERE: RefCell<HashSet<u32>> = RefCell::default();
    static SKIPPED: RefCell<HashSet<u32>> = RefCell::default();
}

/// The database's role now.
pub fn role(oid: u32) -> Role {
    let role = known(oid).role;
    if matches!(role, Role::Plain) && is_elsewhere(oid) {
        return Role::Tombstone;
    }
    role
}

/// The database's place among forks and sources, whatever its state.
pub fn node(oid: u32) -> Option<Rc<Node>> {
    known(oid).node
}

/// The layers that a fork reads from, down to the plain source.
pub fn layers_needed(fork: u32) -> Vec<u32> {
    let mut layers = Vec::new();
    let mut at = fork;
    while let Some(origin) = node(at).and_then(|node| node.origin.clone()) {
        let parent = node(origin.parent);
        let from = parent.as_ref().and_then(|node| node.from_cut(origin.seq));
        layers.extend(from.unwrap_or_default().iter().map(|layer| layer.oid));
        at = origin.parent;
    }
    layers
}

fn known(oid: u32) -> Known {
    let now = registry::generation();
    let (fresh, cached) = VIEW.with_borrow(|view| {
        let fresh = view.generation == Some(now);
        (
            fresh,
            fresh.then(|| view.known.get(&oid).cloned()).flatten(),
        )
    });
    if let Some(known) = cached {
        return known;
    }
    if !fresh {
        VIEW.with_borrow_mut(|view| {
            view.generation = Some(now);
            view.known.clear();
        });
        crate::smgr::handles::forget_all();
    }
    // No older than `now`; if newer, the next call sees another generation and asks again.
    let (known, is_whole) = registry::read(|table| {
        // A fork that has no cut yet may be looked at, but it is nothing to remember.
        let cut = table
            .get(oid)
            .is_none_or(|slot| !slot.is_fork() || slot.seq != 0);
        (look(table, oid), cut)
    });
    // md goes by the link.
    if restart::are_hidden()
        && known
            .node
            .as_ref()
            .is_some_and(|node| node.origin.is_some())
    {
        restart::show(oid);
    }
    if is_whole {
        VIEW.with_borrow_mut(|view| view.known.insert(oid, known.clone()));
    }
    known
}

fn look(table: Table<Slot>, oid: u32) -> Known {
    let own = table.get(oid).filter(|slot| !slot.is_layer());
    let layers = table.group(oid).filter(|slot| slot.is_layer());
    let mut node = Node {
        layers: layers.map(|slot| Rc::new(layer(slot))).collect(),
        ..Node::default()
    };
    node.layers.sort_by_key(|layer| layer.seq);
    if let Some(slot) = own {
        node.space = slot.space;
        node.origin = Some(Origin {
            parent: slot.source,
            seq: slot.seq,
        });
    }
    if own.is_none() && node.layers.is_empty() {
        return Known {
            role: Role::Plain,
            node: None,
        };
    }
    let node = Rc::new(node);
    let role = match own {
        Some(slot) if slot.used == Use::Tombstone => Role::Tombstone,
        Some(slot) if slot.state == ForkState::Dropping => Role::Tombstone,
        Some(slot) if slot.state == ForkState::Invalid => Role::Invalid(slot.reason().into()),
        _ => Role::Node(node.clone()),
    };
    Known {
        role,
        node: Some(node),
    }
}

/// A layer's slot, as the engine knows it.
pub fn layer(slot: &Slot) -> Layer {
    Layer {
        oid: slot.oid,
        space: slot.space,
        seq: slot.seq,
        cut_lsn: slot.cut_lsn,
        kept: slot.kept != 0,
        sound: slot.sound != 0,
        captured: slot.captured > 0,
    }
}

/// Whether WAL that is replayed names a database that has no folder: it was a fork on the server
/// whose WAL this is, or was dropped, here or further on. What the buffer pool has of it goes
/// nowhere, in every process, until the server starts anew (D13).
fn is_elsewhere(oid: u32) -> bool {
    let skipping =
        || super::shared().is_some_and(|shared| shared.skipping.load(Ordering::SeqCst) != 0);
    if oid == 0 || !(process::in_recovery() || skipping()) {
        return false;
    }
    if HERE.with_borrow(|here| here.contains(&oid)) {
        return false;
    }
    if files::database_is_here(oid) {
        HERE.with_borrow_mut(|here| here.insert(oid));
        return false;
    }
    if process::in_recovery() && SKIPPED.with_borrow_mut(|skipped| skipped.insert(oid)) {
        registry::start_skipping();
        pgrx::log!("pg_fork: skipping the WAL of the database with OID {oid}, which is not here");
    }
    true
}
