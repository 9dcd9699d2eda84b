//! The registry: which forks and layers there are.
//!
//! Slots in shared memory, guarded by one lock. The `meta` files hold the same and are read
//! back at the start of the server, before recovery (D10).
#![allow(unsafe_code)] // slots are raw shared memory

use crate::fork::files;
use crate::pg::lwlock::{hold, Which};
use pg_fork_core::format::meta::{Kind, Meta, State as MetaState};
use pg_fork_core::topology::{Layer, Node, Origin, Topology};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// What a slot is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Use {
    #[default]
    Free,
    Fork,
    Layer,
    /// Dropped: its I/O goes to a black hole until recovery cannot meet it any more (D12).
    Tombstone,
}

/// How it stands with a fork.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum ForkState {
    #[default]
    Creating,
    Ready,
    Dropping,
    Invalid,
}

/// One fork, layer or tombstone.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Slot {
    pub used: Use,
    pub state: ForkState,
    pub oid: u32,
    pub source: u32,
    /// A fork's cut.
    pub layer: u32,
    pub tablespace: u32,
    pub space: u32,
    /// A layer: live forks with this very cut.
    pub forks: u32,
    pub next_xid: u32,
    pub oldest_multi: u32,
    pub in_flight: u32,
    pub files_gone: u32,
    pub seq: u64,
    pub cut_lsn: u64,
    pub cut_time: i64,
    pub drop_lsn: u64,
    pub reason: [u8; 160],
    /// The name that fork_create gave it; it may have been renamed since.
    pub name: [u8; 64],
}

impl Slot {
    /// An empty slot.
    pub fn empty() -> Self {
        // SAFETY: all fields are integers or enums whose first value is zero.
        unsafe { std::mem::zeroed() }
    }

    pub fn reason(&self) -> String {
        text(&self.reason)
    }

    pub fn set_reason(&mut self, reason: &str) {
        put_text(&mut self.reason, reason);
    }

    pub fn name(&self) -> String {
        text(&self.name)
    }

    pub fn set_name(&mut self, name: &str) {
        put_text(&mut self.name, name);
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn put_text(bytes: &mut [u8], value: &str) {
    bytes.fill(0);
    let mut end = value.len().min(bytes.len() - 1);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    bytes[..end].copy_from_slice(&value.as_bytes()[..end]);
}

/// A fork, as others see it.
#[derive(Clone, Debug)]
pub struct ForkInfo {
    pub slot: Slot,
    pub depth: u32,
}

/// Reads the slots under the lock.
pub fn read<R>(what: impl FnOnce(&[Slot]) -> R) -> R {
    let _held = hold(Which::Registry, false);
    // SAFETY: the array has this many slots; the shared lock keeps writers out.
    what(unsafe { std::slice::from_raw_parts(super::slots(), super::slot_count()) })
}

/// Changes the slots under the lock, and lets every process know.
pub fn change<R>(what: impl FnOnce(&mut [Slot]) -> R) -> R {
    let _held = hold(Which::Registry, true);
    // SAFETY: as above; the exclusive lock makes us the only one.
    let slots = unsafe { std::slice::from_raw_parts_mut(super::slots(), super::slot_count()) };
    let result = what(slots);
    let live = slots.iter().filter(|slot| slot.used != Use::Free).count();
    if let Some(shared) = super::shared() {
        shared.live.store(live as u32, Ordering::SeqCst);
        shared.generation.fetch_add(1, Ordering::SeqCst);
    }
    result
}

/// The registry's generation.
pub fn generation() -> u64 {
    super::shared().map_or(0, |shared| shared.generation.load(Ordering::SeqCst))
}

/// A number for the page-map cache that was never used since the server's start.
pub fn new_space() -> u32 {
    super::shared().map_or(0, |shared| {
        shared.next_space.fetch_add(1, Ordering::Relaxed) + 1
    })
}

/// Puts a slot into a free place; `false` if there is none.
pub fn insert(slots: &mut [Slot], slot: Slot) -> bool {
    match slots.iter_mut().find(|slot| slot.used == Use::Free) {
        Some(free) => {
            *free = slot;
            true
        }
        None => false,
    }
}

/// The fork's or tombstone's or layer's slot.
pub fn find(slots: &mut [Slot], oid: u32) -> Option<&mut Slot> {
    slots
        .iter_mut()
        .find(|slot| slot.used != Use::Free && slot.oid == oid)
}

/// The live fork with this database number.
pub fn fork_by_oid(oid: u32) -> Option<ForkInfo> {
    all_forks().into_iter().find(|fork| fork.slot.oid == oid)
}

/// The live forks taken from this database, those being created included.
pub fn forks_of(source: u32) -> Vec<ForkInfo> {
    all_forks()
        .into_iter()
        .filter(|fork| fork.slot.source == source && fork.slot.state != ForkState::Dropping)
        .collect()
}

/// All live forks.
pub fn all_forks() -> Vec<ForkInfo> {
    if !super::any_live() {
        return Vec::new();
    }
    let forks: Vec<Slot> = read(|slots| {
        slots
            .iter()
            .filter(|slot| slot.used == Use::Fork)
            .copied()
            .collect()
    });
    let parents: HashMap<u32, u32> = forks.iter().map(|slot| (slot.oid, slot.source)).collect();
    forks
        .iter()
        .map(|slot| {
            let mut depth = 1;
            let mut at = slot.source;
            while let Some(parent) = parents.get(&at) {
                (at, depth) = (*parent, depth + 1);
            }
            ForkInfo { slot: *slot, depth }
        })
        .collect()
}

/// The layers that a fork reads from, down to the plain source.
pub fn layers_needed(fork: u32) -> Vec<u32> {
    let topology = topology();
    let mut layers = Vec::new();
    let mut at = fork;
    while let Some(origin) = topology.nodes.get(&at).and_then(|node| node.origin.clone()) {
        let from = topology
            .nodes
            .get(&origin.parent)
            .and_then(|parent| parent.from_cut(origin.seq).map(<[_]>::to_vec));
        layers.extend(from.unwrap_or_default().iter().map(|layer| layer.oid));
        at = origin.parent;
    }
    layers
}

/// What a database is to the storage manager.
#[derive(Clone, Debug)]
pub enum Role {
    Plain,
    /// A fork, a source, or both.
    Node(Rc<Node>),
    Invalid(String),
    Tombstone,
}

/// This process's view of the registry, as of one generation.
#[derive(Default)]
struct View {
    generation: Option<u64>,
    roles: HashMap<u32, Role>,
    topology: Rc<Topology>,
}

thread_local! {
    static VIEW: RefCell<View> = RefCell::default();
}

/// The database's role now.
pub fn role(oid: u32) -> Role {
    with_view(|view| view.roles.get(&oid).cloned().unwrap_or(Role::Plain))
}

/// The topology now.
pub fn topology() -> Rc<Topology> {
    with_view(|view| view.topology.clone())
}

fn with_view<R>(what: impl FnOnce(&View) -> R) -> R {
    let now = generation();
    if VIEW.with(|view| view.borrow().generation != Some(now)) {
        // The lock is taken outside of the borrow: an error may unwind through it.
        let built = read(build);
        VIEW.with(|view| *view.borrow_mut() = built);
        crate::smgr::handles::forget_all();
    }
    VIEW.with(|view| what(&view.borrow()))
}

fn build(slots: &[Slot]) -> View {
    let mut nodes: HashMap<u32, Node> = HashMap::new();
    let mut roles = HashMap::new();
    for slot in slots {
        match slot.used {
            Use::Layer => {
                let layer = Layer {
                    oid: slot.oid,
                    space: slot.space,
                    seq: slot.seq,
                    cut_lsn: slot.cut_lsn,
                    in_flight: slot.in_flight > 0,
                };
                nodes
                    .entry(slot.source)
                    .or_default()
                    .layers
                    .push(Rc::new(layer));
            }
            Use::Fork => {
                let node = nodes.entry(slot.oid).or_default();
                node.space = slot.space;
                node.origin = Some(Origin {
                    parent: slot.source,
                    seq: slot.seq,
                });
            }
            _ => {}
        }
    }
    for (oid, node) in &mut nodes {
        node.layers.sort_by_key(|layer| layer.seq);
        roles.insert(*oid, Role::Node(Rc::new(node.clone())));
    }
    for slot in slots {
        match slot.used {
            Use::Tombstone => drop(roles.insert(slot.oid, Role::Tombstone)),
            Use::Fork if slot.state == ForkState::Dropping => {
                drop(roles.insert(slot.oid, Role::Tombstone))
            }
            Use::Fork if slot.state == ForkState::Invalid => {
                drop(roles.insert(slot.oid, Role::Invalid(slot.reason())));
            }
            _ => {}
        }
    }
    View {
        generation: Some(generation()),
        roles,
        topology: Rc::new(Topology { nodes }),
    }
}

/// Marks the fork, and with it all forks of it, as not to be trusted (D14).
pub fn invalidate(oid: u32, reason: &str) {
    let doomed = change(|slots| {
        let mut doomed = vec![oid];
        let mut at = 0;
        while at < doomed.len() {
            let parent = doomed[at];
            at += 1;
            doomed.extend(
                slots
                    .iter()
                    .filter(|slot| slot.used == Use::Fork && slot.source == parent)
                    .map(|slot| slot.oid),
            );
        }
        doomed.retain(|oid| {
            let Some(slot) = find(slots, *oid).filter(|slot| slot.used == Use::Fork) else {
                return false;
            };
            if slot.state == ForkState::Dropping {
                return false;
            }
            slot.state = ForkState::Invalid;
            slot.set_reason(reason);
            true
        });
        doomed
    });
    for oid in doomed {
        files::note_invalid(oid, reason);
        pgrx::log!("pg_fork: fork with OID {oid} is invalid now: {reason}");
    }
}

/// Marks all forks that need the source's newest layer: all of the source's.
pub fn invalidate_forks_of(source: u32, reason: &str) {
    for fork in forks_of(source) {
        if fork.slot.state != ForkState::Invalid {
            invalidate(fork.slot.oid, reason);
        }
    }
}

/// Fills the registry from the `meta` files. In the postmaster, before recovery.
pub fn load() {
    let metas = files::read_metas();
    let mut seq = 0;
    change(|slots| {
        for meta in &metas {
            let mut slot = Slot::empty();
            slot.used = match (meta.kind, meta.state) {
                (Kind::Layer, _) => Use::Layer,
                (Kind::Fork, MetaState::Dropped) => Use::Tombstone,
                (Kind::Fork, _) => Use::Fork,
            };
            slot.state = if meta.state == MetaState::Invalid {
                ForkState::Invalid
            } else {
                ForkState::Ready
            };
            (slot.oid, slot.source, slot.layer) = (meta.oid, meta.source, meta.layer);
            (slot.tablespace, slot.space) = (meta.tablespace, new_space());
            (slot.next_xid, slot.oldest_multi) = (meta.next_xid, meta.oldest_multi);
            slot.in_flight = meta.in_flight.len() as u32;
            (slot.seq, slot.cut_lsn) = (meta.seq, meta.cut_lsn);
            (slot.cut_time, slot.drop_lsn) = (meta.cut_time, meta.drop_lsn);
            slot.set_reason(&meta.reason);
            seq = seq.max(meta.seq);
            if !insert(slots, slot) {
                pgrx::log!(
                    "pg_fork: no room for the fork or layer with OID {}",
                    meta.oid
                );
            }
        }
        for at in 0..slots.len() {
            let oid = slots[at].oid;
            if slots[at].used == Use::Layer {
                slots[at].forks = slots
                    .iter()
                    .filter(|slot| slot.used == Use::Fork && slot.layer == oid)
                    .count() as u32;
            }
        }
    });
    if let Some(shared) = super::shared() {
        shared.next_seq.store(seq, Ordering::Relaxed);
    }
}

/// The `meta` of a slot; a layer's in-flight transactions are the caller's to add.
pub fn meta_of(slot: &Slot) -> Meta {
    Meta {
        kind: if slot.used == Use::Layer {
            Kind::Layer
        } else {
            Kind::Fork
        },
        state: match slot.used {
            Use::Tombstone => MetaState::Dropped,
            _ if slot.state == ForkState::Invalid => MetaState::Invalid,
            _ => MetaState::Live,
        },
        oid: slot.oid,
        source: slot.source,
        layer: slot.layer,
        tablespace: slot.tablespace,
        next_xid: slot.next_xid,
        oldest_multi: slot.oldest_multi,
        seq: slot.seq,
        cut_lsn: slot.cut_lsn,
        cut_time: slot.cut_time,
        drop_lsn: slot.drop_lsn,
        reason: slot.reason(),
        in_flight: Vec::new(),
    }
}

/// The source of a layer, if that is what the number names.
pub fn layer_source(oid: u32) -> Option<u32> {
    read(|slots| {
        slots
            .iter()
            .find(|slot| slot.used == Use::Layer && slot.oid == oid)
            .map(|slot| slot.source)
    })
}

/// In recovery: a database without a folder was a fork on the server whose WAL this is, or is
/// dropped further on. Its WAL is skipped, and what the buffer pool has of it goes nowhere, until the
/// server starts anew.
pub fn skip_in_recovery(oid: u32) {
    let mut slot = Slot::empty();
    (slot.used, slot.oid, slot.drop_lsn) = (Use::Tombstone, oid, u64::MAX);
    pgrx::log!("pg_fork: skipping the WAL of the database with OID {oid}, which is not here");
    if !change(|slots| insert(slots, slot)) {
        // Without a slot the checkpointer would look for the files, and fail.
        pgrx::ereport!(
            PANIC,
            pgrx::PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "too many forks in the WAL: set pg_fork.max_forks higher and start the server again"
        );
    }
}
