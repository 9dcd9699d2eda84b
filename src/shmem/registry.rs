//! The registry: which forks and layers there are, in shared memory, guarded by one lock.
//!
//! The `meta` files hold the same and are read back at the start of the server ([`super::load`]).
//! What a process makes of it is in [`super::view`].
#![allow(unsafe_code)] // the table is raw shared memory

use crate::pg::lwlock::{hold, Which};
use pg_fork_core::table::{Record, Table, TableMut};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// What a slot is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Use {
    #[default]
    Fork,
    Layer,
    /// A fork whose files are being removed: its I/O goes nowhere (D12).
    Tombstone,
    /// A fork as it was at its cut ([`crate::fork::base`]).
    Base,
}

/// How it stands with a fork. A layer is `Creating` until its captured pages are on file, and `Invalid` if its
/// cut failed: it keeps pre-images all the same.
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
    /// Bears a mark: not all of it need be on disk ([`crate::fork::marks`]).
    pub marked: u32,
    /// The folder and what was in it at first are on disk.
    pub synced: u32,
    /// A fork: its base, if there is one. A base: its fork.
    pub twin: u32,
    /// A layer: whether everyone was stopped at the cut until others knew of the layer.
    pub sound: u32,
    /// A layer: pages that were captured at the cut.
    pub captured: u32,
    /// A layer: the worker is asked to write the source's dirty pages out.
    pub write_out: u32,
    /// A fork: its sessions are being ended by a drop ([`crate::attach`] tells them).
    pub ending: u32,
    /// A fork: whether it owes its sources' owners nothing ([`crate::fork::heirs`]).
    pub heirs: u32,
    /// A layer: whether what its readers may ask of transactions is kept ([`crate::fork::kept`]).
    pub kept: u32,
    /// A fork: the `datfrozenxid` and `datminmxid` of its row, as the worker has seen them last; or zero.
    pub row_xid: u32,
    pub row_multi: u32,
    pub seq: u64,
    pub cut_lsn: u64,
    pub cut_time: i64,
    pub reason: [u8; 160],
    /// The name that fork_create gave it; it may have been renamed since.
    pub name: [u8; 64],
}

impl Record for Slot {
    fn number(&self) -> u32 {
        self.oid
    }

    fn group(&self) -> u32 {
        self.source
    }
}

impl Slot {
    /// An empty slot.
    pub fn empty() -> Self {
        // SAFETY: all fields are integers or enums whose first value is zero.
        unsafe { std::mem::zeroed() }
    }

    pub fn is_fork(&self) -> bool {
        self.used == Use::Fork
    }

    pub fn is_layer(&self) -> bool {
        self.used == Use::Layer
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

    pub fn is_named(&self, name: &str) -> bool {
        let rest = self.name.strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == 0))
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

/// Reads the registry under the lock. `what` must raise no error.
pub fn read<R>(what: impl FnOnce(Table<Slot>) -> R) -> R {
    let _held = hold(Which::Registry, false);
    let (head, buckets, rows) = super::table();
    // SAFETY: the region's own pieces; the shared lock keeps writers out.
    unsafe { what(Table::new(&*head, &*buckets, &*rows)) }
}

/// Changes the registry under the lock, where other processes need not know of it at once. `what`
/// must raise no error.
pub fn touch<R>(what: impl FnOnce(&mut TableMut<Slot>) -> R) -> R {
    let _held = hold(Which::Registry, true);
    let (head, buckets, rows) = super::table();
    // SAFETY: as above; the exclusive lock makes us the only one.
    let mut table = unsafe { TableMut::new(&mut *head, &mut *buckets, &mut *rows) };
    let result = what(&mut table);
    if let Some(shared) = super::shared() {
        let used = table.view().len() as u32;
        let skipping = shared.skipping.load(Ordering::SeqCst);
        shared.live.store(used + skipping, Ordering::SeqCst);
    }
    result
}

/// Changes the registry under the lock, and lets every process know: what a database's I/O has to
/// do changes with it.
pub fn change<R>(what: impl FnOnce(&mut TableMut<Slot>) -> R) -> R {
    touch(|table| {
        let result = what(table);
        if let Some(shared) = super::shared() {
            shared.generation.fetch_add(1, Ordering::SeqCst);
        }
        result
    })
}

/// The registry's generation.
pub fn generation() -> u64 {
    super::shared().map_or(0, |shared| shared.generation.load(Ordering::SeqCst))
}

/// As [`new_space`], for a folder that has no page map yet.
pub fn new_empty_space() -> u32 {
    // One after the other: whoever is late would clear what another that has the place by now has noted.
    let _held = hold(Which::Registry, true);
    let space = new_space();
    super::map_filter().begin(space);
    space
}

/// A number for the page-map cache that was never used since the server's start.
pub fn new_space() -> u32 {
    super::shared().map_or(0, |shared| {
        shared.next_space.fetch_add(1, Ordering::Relaxed) + 1
    })
}

/// The slot with this number.
pub fn slot(oid: u32) -> Option<Slot> {
    super::any_live()
        .then(|| read(|table| table.get(oid).copied()))
        .flatten()
}

/// The live fork with this database number, one being dropped included.
pub fn fork(oid: u32) -> Option<Slot> {
    slot(oid).filter(Slot::is_fork)
}

fn is_live(slot: &&Slot) -> bool {
    slot.is_fork() && slot.state != ForkState::Dropping
}

/// The live forks taken from this database, those being created included.
pub fn forks_of(source: u32) -> Vec<Slot> {
    read(|table| table.group(source).filter(is_live).copied().collect())
}

/// How many there are.
pub fn count_forks_of(source: u32) -> usize {
    read(|table| table.group(source).filter(is_live).count())
}

/// All live forks, each with its depth: a fork of a plain database has depth 1.
pub fn all_forks() -> Vec<(Slot, u32)> {
    let forks: Vec<Slot> = read(|table| {
        table
            .iter()
            .filter(|slot| slot.is_fork())
            .copied()
            .collect()
    });
    let sources: HashMap<u32, u32> = forks.iter().map(|fork| (fork.oid, fork.source)).collect();
    // Each is looked at once: forks of forks may be a long line.
    let mut depths: HashMap<u32, u32> = HashMap::new();
    for fork in &forks {
        let (mut line, mut at) = (Vec::new(), fork.oid);
        while let (Some(source), None) = (sources.get(&at), depths.get(&at)) {
            line.push(at);
            at = *source;
        }
        let mut depth = depths.get(&at).copied().unwrap_or(0);
        for oid in line.into_iter().rev() {
            depth += 1;
            depths.insert(oid, depth);
        }
    }
    let depth = |fork: &Slot| depths.get(&fork.oid).copied().unwrap_or(1);
    forks.iter().map(|fork| (*fork, depth(fork))).collect()
}

/// The source of a layer, if that is what the number names.
pub fn layer_source(oid: u32) -> Option<u32> {
    slot(oid).filter(Slot::is_layer).map(|slot| slot.source)
}

/// From now on every process asks whether a database that it does not know is here ([`super::view`]).
pub fn start_skipping() {
    if let Some(shared) = super::shared() {
        shared.skipping.store(1, Ordering::SeqCst);
    }
    touch(|_| ());
}
