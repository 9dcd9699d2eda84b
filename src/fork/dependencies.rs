//! What the fork's objects depend on outside of it, as at its cut: the owners, the roles in access lists, tablespaces.
//!
//! Copied from the source's rows of pg_shdepend, of which some may have come or gone since the cut. What they were
//! then a snapshot of the cut tells.
#![allow(unsafe_code)] // makes a snapshot of its own

use crate::fork::files;
use crate::pg::tuple::{Catalog, Row};
use crate::shmem::registry::Slot;
use pgrx::pg_sys::{self, Datum, Oid, TransactionId};
use std::collections::HashSet;
use std::io;

/// pg_shdepend, its index that begins with dbid, and columns.
const DEPENDENCIES: u32 = 1214;
const DEPENDER_INDEX: u32 = 1232;
const DBID: i16 = 1;
const REFERENCED_CLASS: i32 = 5;
const REFERENCED_OBJECT: i32 = 6;

/// A snapshot that sees what had committed at the layer's cut (snapmgr.c, heapam_visibility.c).
fn of_cut(layer: &Slot, in_flight: &mut [TransactionId]) -> pg_sys::SnapshotData {
    // SAFETY: all zeros is an empty snapshot.
    let mut snapshot: pg_sys::SnapshotData = unsafe { std::mem::zeroed() };
    let next = TransactionId::from(layer.next_xid);
    let age = |xid: &TransactionId| next.into_inner().wrapping_sub(xid.into_inner());
    snapshot.snapshot_type = pg_sys::SnapshotType::SNAPSHOT_MVCC;
    snapshot.xmax = next;
    snapshot.xmin = in_flight.iter().copied().max_by_key(age).unwrap_or(next);
    (snapshot.xip, snapshot.xcnt) = (in_flight.as_mut_ptr(), in_flight.len() as u32);
    // Not in the list of those that hold back VACUUM: the statement's own snapshot is older.
    snapshot.copied = true;
    snapshot.active_count = 1;
    snapshot
}

/// Gives the fork the rows that the source had at the cut. In a statement that began before it.
///
/// Raises 42704 if a role is gone meanwhile, as the commands that make such rows do.
pub fn copy(source: u32, fork: u32, layer: &Slot) -> io::Result<()> {
    let cut = files::read_meta(layer.oid)?;
    let mut in_flight: Vec<_> = cut.in_flight.into_iter().map(TransactionId::from).collect();
    let mut snapshot = of_cut(layer, &mut in_flight);
    let rows = Catalog::open(DEPENDENCIES);
    let indexes = rows.indexes();
    let mut held = HashSet::new();
    let copy = |row: &Row| {
        let [class, object] = [REFERENCED_CLASS, REFERENCED_OBJECT].map(|column| {
            let value = row.column(column).map_or(0, |value| value.value());
            value as u32
        });
        if held.insert((class, object)) {
            // SAFETY: a look-up under a lock on what may be dropped, held until the transaction's end.
            unsafe { pg_sys::shdepLockAndCheckObject(class.into(), object.into()) };
        }
        let fork = Datum::from(Oid::from(fork));
        rows.insert_like_with(&indexes, row, &[(DBID as usize, Some(fork))]);
    };
    // SAFETY: the statement's snapshot is older than the cut, and keeps what this one sees.
    unsafe { rows.each_seen_by(&mut snapshot, DEPENDER_INDEX, DBID, source, copy) };
    Ok(())
}
