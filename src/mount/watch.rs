//! Before a statement looks into another database for the first time: its snapshot must be one that is
//! respected there.
#![allow(unsafe_code)] // the executor's hook data

use crate::pg::text;
use crate::reader::horizon;
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    /// A table of the access method was opened in this process.
    static IN_USE: Cell<bool> = const { Cell::new(false) };
}

/// Called when the first mounted table is opened.
pub fn in_use() {
    IN_USE.set(true);
}

/// Whether any mounted table was opened in this process.
#[inline]
pub fn is_in_use() -> bool {
    IN_USE.get()
}

/// Whether the relation is a mounted table. Needs a lock on it, or a transaction that has one.
pub fn is_mounted(relation: pg_sys::Oid) -> bool {
    // SAFETY: an entry of the relation cache, held while it is looked at; null if there is none.
    unsafe {
        let found = pg_sys::RelationIdGetRelation(relation);
        if found.is_null() {
            return false;
        }
        let ours = super::am::is_ours((*found).rd_tableam);
        pg_sys::RelationClose(found);
        ours
    }
}

/// The mounted table of that name, if it is one. Takes no lock: of two statements that had a weak one each,
/// neither could have the stronger one that it needs.
///
/// # Safety
/// A name of a parse node, or null.
pub unsafe fn mounted_of(name: *mut pg_sys::RangeVar) -> Option<pg_sys::Oid> {
    // SAFETY: by the caller's promise.
    unsafe { named(name) }.filter(|oid| super::am::is_method_of(*oid))
}

/// The same, or the mounted view of that name.
///
/// # Safety
/// A name of a parse node, or null.
pub unsafe fn shown_of(name: *mut pg_sys::RangeVar) -> Option<pg_sys::Oid> {
    // SAFETY: by the caller's promise.
    let oid = unsafe { named(name) };
    oid.filter(|oid| super::am::is_method_of(*oid) || super::members::is_view(*oid))
}

unsafe fn named(name: *mut pg_sys::RangeVar) -> Option<pg_sys::Oid> {
    // SAFETY: by the caller's promise. What is called temporary is none of ours, and the look-up would raise an
    // error of its own for one in a schema.
    let ours =
        !name.is_null() && unsafe { (*name).relpersistence } as u8 != pg_sys::RELPERSISTENCE_TEMP;
    if !ours {
        return None;
    }
    // SAFETY: by the caller's promise.
    let oid = unsafe {
        pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Raises 25006 for a statement that would write to a mounted table, or lock rows of it: also where there
/// turn out to be none.
unsafe fn refuse_writes(
    statement: &pg_sys::PlannedStmt,
    mounted: &dyn Fn(u32) -> Option<pg_sys::Oid>,
) {
    // SAFETY: a planned statement.
    unsafe {
        let results = pgrx::PgList::<i32>::from_pg(statement.resultRelations);
        let locked = pgrx::PgList::<pg_sys::PlanRowMark>::from_pg(statement.rowMarks);
        let locked = locked
            .iter_ptr()
            .filter(|mark| (**mark).markType < pg_sys::RowMarkType::ROW_MARK_REFERENCE);
        let targets = results.iter_int().map(|n| n as u32);
        for n in targets.chain(locked.map(|mark| (*mark).rti)) {
            if let Some(oid) = mounted(n) {
                super::change::read_only(pg_sys::RelationIdGetRelation(oid));
            }
        }
    }
}

/// From ExecutorStart: gives the statement a new snapshot if its own may be too old for what it reads.
///
/// # Safety
/// `query` is what ExecutorStart was called with.
pub unsafe fn before_execution(query: *mut pg_sys::QueryDesc) {
    // SAFETY: by the caller's promise.
    unsafe {
        if pg_sys::ParallelWorkerNumber >= 0 {
            return;
        }
        let statement = &*(*query).plannedstmt;
        let tables = pgrx::PgList::<pg_sys::RangeTblEntry>::from_pg(statement.rtable);
        let mounted_entry = |entry: *mut pg_sys::RangeTblEntry| {
            let table =
                (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION && (*entry).relkind as u8 == b'r';
            (table && is_mounted((*entry).relid)).then(|| (*entry).relid)
        };
        if !tables
            .iter_ptr()
            .any(|entry| mounted_entry(entry).is_some())
        {
            return;
        }
        // Of a view the executor has an entry too, to check the rights on it.
        let views = tables.iter_ptr().filter(|entry| {
            (**entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                && (**entry).relkind as u8 == pg_sys::RELKIND_VIEW
        });
        for entry in views {
            let writes = (*entry).requiredPerms & !pg_sys::ACL_SELECT != 0;
            super::view::check((*entry).relid, writes);
        }
        refuse_writes(statement, &|n| {
            tables.get_ptr(n as usize - 1).and_then(mounted_entry)
        });
        horizon::protect();
        // The planner may have looked already, and this session be protected since: after the snapshot.
        let snapshot = (*query).snapshot;
        if !renewable(snapshot) {
            return;
        }
        let new = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        pg_sys::UnregisterSnapshot(snapshot);
        (*query).snapshot = new;
    }
}

thread_local! {
    /// When the statement was sent that got a new snapshot.
    static RENEWED: Cell<i64> = const { Cell::new(0) };
}

/// Whether a statement's snapshot is not good, and may be replaced: where each statement has its own, and
/// once in what the client sent, so that functions within it see what it sees. The scan says if it is not
/// good and stays.
unsafe fn renewable(snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: a valid snapshot, or null; plain variables of this process.
    unsafe {
        let isolation = pg_sys::XactIsoLevel;
        if snapshot.is_null()
            || isolation >= pg_sys::XACT_REPEATABLE_READ as i32
            || pg_sys::IsInParallelMode()
            || horizon::is_good(snapshot)
        {
            return false;
        }
        let sent = pg_sys::GetCurrentStatementStartTimestamp();
        RENEWED.replace(sent) != sent
    }
}

/// Before COPY of a table, which runs without the executor: raises 25006 for COPY ... FROM; for COPY ... TO
/// a new snapshot, if one is needed. `true`: the caller pops it when the statement is done.
///
/// # Safety
/// A parse node.
pub unsafe fn before_copy(statement: &pg_sys::CopyStmt) -> bool {
    // SAFETY: by the caller's promise.
    unsafe {
        if mounted_of(statement.relation).is_none() {
            return false;
        }
        if statement.is_from {
            let name = text::server_string((*statement.relation).relname);
            super::change::read_only_named(&name);
        }
        horizon::protect();
        if !pg_sys::ActiveSnapshotSet() || !renewable(pg_sys::GetActiveSnapshot()) {
            return false;
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        true
    }
}
