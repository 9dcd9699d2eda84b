//! The registry and the `meta` files: read at the start of the server, and what becomes of a fork
//! that cannot be trusted any more.

use super::registry::{self, ForkState, Slot, Use};
use crate::fork::{files, kept, marks};
use pg_fork_core::format::meta::{Kind, Meta, State as MetaState};
use std::sync::atomic::Ordering;

/// Fills the registry from the `meta` files. In the postmaster, before recovery.
pub fn load() {
    let mut metas = files::read_metas();
    metas.retain(|meta| {
        let gone = meta.state == MetaState::Dropped;
        if gone {
            pgrx::log!(
                "pg_fork: removing what is left of the dropped fork with OID {}",
                meta.oid
            );
            files::remove(meta.oid, true);
        }
        !gone
    });
    registry::change(|table| {
        for meta in &metas {
            let mut slot = slot_of(meta);
            if slot.is_layer() {
                let cut_here = |other: &&Meta| {
                    other.kind == Kind::Fork
                        && other.layer == meta.oid
                        && other.state == MetaState::Live
                };
                slot.forks = metas.iter().filter(cut_here).count() as u32;
            }
            if !table.insert(slot) {
                pgrx::log!(
                    "pg_fork: no room for the fork or layer with OID {}",
                    meta.oid
                );
            }
        }
    });
    if let Some(shared) = super::shared() {
        let seq = metas.iter().map(|meta| meta.seq).max().unwrap_or(0);
        shared.next_seq.store(seq, Ordering::Relaxed);
    }
}

fn slot_of(meta: &Meta) -> Slot {
    let mut slot = Slot::empty();
    slot.used = match meta.kind {
        Kind::Layer => Use::Layer,
        Kind::Fork => Use::Fork,
    };
    slot.state = match meta.state {
        MetaState::Invalid => ForkState::Invalid,
        _ => ForkState::Ready,
    };
    (slot.oid, slot.source) = (meta.oid, meta.source);
    // An invalid fork holds no layer.
    if slot.state == ForkState::Ready {
        slot.layer = meta.layer;
    }
    (slot.tablespace, slot.space) = (meta.tablespace, registry::new_space());
    (slot.next_xid, slot.oldest_multi) = (meta.next_xid, meta.oldest_multi);
    slot.in_flight = meta.in_flight.len() as u32;
    (slot.seq, slot.cut_lsn, slot.cut_time) = (meta.seq, meta.cut_lsn, meta.cut_time);
    slot.marked = marks::is_marked(meta.oid).into();
    slot.synced = u32::from(slot.marked == 0);
    slot.sound = u32::from(slot.state == ForkState::Ready);
    slot.captured = meta.captured;
    slot.kept = u32::from(slot.is_layer() && kept::is_there(meta.oid));
    slot.set_reason(&meta.reason);
    slot
}

/// Makes known a fork of which nothing but its row is left, so that it can be dropped.
pub fn insert_lost(oid: u32, reason: &str) {
    let mut slot = Slot::empty();
    (slot.oid, slot.state, slot.space) = (oid, ForkState::Invalid, registry::new_space());
    slot.set_reason(reason);
    pgrx::log!("pg_fork: fork with OID {oid} is invalid: {reason}");
    if !registry::change(|table| table.insert(slot)) {
        pgrx::log!("pg_fork: no room for the fork with OID {oid}");
    }
}

/// The `meta` of a slot; a layer's in-flight transactions are the caller's to add.
pub fn meta_of(slot: &Slot) -> Meta {
    Meta {
        kind: if slot.is_layer() {
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
        reason: slot.reason(),
        in_flight: Vec::new(),
        captured: slot.captured,
    }
}

fn end(slot: &mut Slot, reason: &str) {
    slot.state = ForkState::Invalid;
    slot.set_reason(reason);
}

/// Marks the fork, and with it all forks of it, as not to be trusted (D14).
pub fn invalidate(oid: u32, reason: &str) {
    let doomed = registry::change(|table| {
        // What a base reads the fork reads too.
        let oid = match table.view().get(oid) {
            Some(slot) if slot.used == Use::Base => slot.twin,
            _ => oid,
        };
        let mut doomed = vec![oid];
        let mut at = 0;
        while at < doomed.len() {
            let children = table.view();
            let children = children.group(doomed[at]).filter(|slot| slot.is_fork());
            let children: Vec<u32> = children.map(|slot| slot.oid).collect();
            doomed.extend(children);
            at += 1;
        }
        doomed.retain(|oid| {
            let base = table.update(*oid, |slot| {
                let live = slot.is_fork()
                    && !matches!(slot.state, ForkState::Dropping | ForkState::Invalid);
                live.then(|| {
                    end(slot, reason);
                    slot.twin
                })
            });
            let base = base.flatten();
            // Nor is the fork as it was at its cut.
            table.update(base.unwrap_or(0), |slot| end(slot, reason));
            base.is_some()
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
    for fork in registry::forks_of(source) {
        if fork.state != ForkState::Invalid {
            invalidate(fork.oid, reason);
        }
    }
}
