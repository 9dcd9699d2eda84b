//! Mounted tables cannot be changed: each callback that would raises an error.
#![allow(unsafe_code)] // callbacks of the table access method
#![allow(clippy::too_many_arguments)] // their types

use crate::pg::text;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::cell::Cell;

thread_local! {
    static MAKING: Cell<bool> = const { Cell::new(false) };
}

/// Runs what makes mounted tables: nobody else may.
pub fn making<R>(what: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            MAKING.set(false);
        }
    }
    let _reset = Reset;
    MAKING.set(true);
    what()
}

/// Before a statement that would give a mounted table another form, or what a table of rows has: raises 0A000.
///
/// # Safety
/// A parse node.
pub unsafe fn before_statement(node: *mut pg_sys::Node) {
    use pg_sys::NodeTag::*;
    if MAKING.get() {
        return;
    }
    // SAFETY: by the caller's promise, cast to what the tag says.
    unsafe {
        match (*node).type_ {
            T_AlterTableStmt => before_alter(&*node.cast()),
            T_IndexStmt => must_not_be((*node.cast::<pg_sys::IndexStmt>()).relation, "index"),
            T_RuleStmt => must_not_be((*node.cast::<pg_sys::RuleStmt>()).relation, "give rules to"),
            T_CreateTrigStmt => must_not_be(
                (*node.cast::<pg_sys::CreateTrigStmt>()).relation,
                "give triggers to",
            ),
            T_CreatePolicyStmt => must_not_be(
                (*node.cast::<pg_sys::CreatePolicyStmt>()).table,
                "give policies to",
            ),
            T_ViewStmt => must_not_be((*node.cast::<pg_sys::ViewStmt>()).view, "replace"),
            T_CreateStmt => {
                let parents = (*node.cast::<pg_sys::CreateStmt>()).inhRelations;
                let parents = pgrx::PgList::<pg_sys::RangeVar>::from_pg(parents);
                for parent in parents.iter_ptr() {
                    must_not_be(parent, "inherit from");
                }
            }
            _ => {}
        }
    }
}

unsafe fn before_alter(statement: &pg_sys::AlterTableStmt) {
    use pg_sys::AlterTableType::*;
    // SAFETY: a parse node.
    unsafe {
        let commands = pgrx::PgList::<pg_sys::AlterTableCmd>::from_pg(statement.cmds);
        for command in commands.iter_ptr() {
            let kind = (*command).subtype;
            if kind == AT_AttachPartition {
                must_not_be(
                    (*(*command).def.cast::<pg_sys::PartitionCmd>()).name,
                    "attach",
                );
            } else if kind == AT_AddInherit {
                must_not_be((*command).def.cast(), "inherit from");
                must_not_be(statement.relation, "alter");
            } else if ![
                AT_ChangeOwner,
                AT_SetStatistics,
                AT_SetOptions,
                AT_ResetOptions,
            ]
            .contains(&kind)
            {
                must_not_be(statement.relation, "alter");
            }
        }
    }
}

unsafe fn must_not_be(name: *mut pg_sys::RangeVar, what: &str) {
    // SAFETY: a name of a parse node, or null.
    unsafe {
        if super::watch::shown_of(name).is_some() {
            let name = text::server_string((*name).relname);
            refuse_named(&name, &format!("{what} the table"));
        }
    }
}

unsafe fn name(relation: pg_sys::Relation) -> String {
    // SAFETY: an open relation.
    unsafe { text::server_string((*(*relation).rd_rel).relname.data.as_ptr()) }
}

/// Raises 0A000: the table cannot do that.
pub unsafe fn refuse(relation: pg_sys::Relation, what: &str) -> ! {
    // SAFETY: an open relation.
    refuse_named(&unsafe { name(relation) }, what)
}

fn refuse_named(name: &str, what: &str) -> ! {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("cannot {what}: \"{name}\" is mounted from a fork"),
        "pg_fork",
    )
    .set_hint("Copy it to have a table of your own: CREATE TABLE ... AS SELECT * FROM it.")
    .report(PgLogLevel::ERROR);
    unreachable!()
}

/// Raises 25006: mounted tables are read-only.
pub unsafe fn read_only(relation: pg_sys::Relation) -> ! {
    // SAFETY: an open relation.
    read_only_named(&unsafe { name(relation) })
}

/// The same, of a table that need not be there any more.
pub fn read_only_named(name: &str) -> ! {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
        format!("cannot change table \"{name}\": it is mounted from a fork, to be read only"),
        "pg_fork",
    )
    .set_hint("Change it in the fork itself: connect to it, or use fork_attach.")
    .report(PgLogLevel::ERROR);
    unreachable!()
}

#[pg_guard]
pub unsafe extern "C-unwind" fn insert(
    relation: pg_sys::Relation,
    _slot: *mut pg_sys::TupleTableSlot,
    _cid: u32,
    _options: i32,
    _state: *mut pg_sys::BulkInsertStateData,
) {
    // SAFETY: an open relation, here and below.
    unsafe { read_only(relation) }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn insert_speculative(
    relation: pg_sys::Relation,
    _slot: *mut pg_sys::TupleTableSlot,
    _cid: u32,
    _options: i32,
    _state: *mut pg_sys::BulkInsertStateData,
    _token: u32,
) {
    // SAFETY: see insert.
    unsafe { read_only(relation) }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn complete_speculative(
    relation: pg_sys::Relation,
    _slot: *mut pg_sys::TupleTableSlot,
    _token: u32,
    _succeeded: bool,
) {
    // SAFETY: see insert.
    unsafe { read_only(relation) }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn multi_insert(
    relation: pg_sys::Relation,
    _slots: *mut *mut pg_sys::TupleTableSlot,
    _count: i32,
    _cid: u32,
    _options: i32,
    _state: *mut pg_sys::BulkInsertStateData,
) {
    // SAFETY: see insert.
    unsafe { read_only(relation) }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn delete(
    relation: pg_sys::Relation,
    _tid: pg_sys::ItemPointer,
    _cid: u32,
    _snapshot: pg_sys::Snapshot,
    _crosscheck: pg_sys::Snapshot,
    _wait: bool,
    _failure: *mut pg_sys::TM_FailureData,
    _changing_part: bool,
) -> pg_sys::TM_Result::Type {
    // SAFETY: see insert.
    unsafe { read_only(relation) }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn update(
    relation: pg_sys::Relation,
    _tid: pg_sys::ItemPointer,
    _slot: *mut pg_sys::TupleTableSlot,
    _cid: u32,
    _snapshot: pg_sys::Snapshot,
    _crosscheck: pg_sys::Snapshot,
    _wait: bool,
    _failure: *mut pg_sys::TM_FailureData,
    _mode: *mut pg_sys::LockTupleMode::Type,
    _indexes: *mut bool,
) -> pg_sys::TM_Result::Type {
    // SAFETY: see insert.
    unsafe { read_only(relation) }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn lock(
    relation: pg_sys::Relation,
    _tid: pg_sys::ItemPointer,
    _snapshot: pg_sys::Snapshot,
    _slot: *mut pg_sys::TupleTableSlot,
    _cid: u32,
    _mode: pg_sys::LockTupleMode::Type,
    _policy: pg_sys::LockWaitPolicy::Type,
    _flags: u8,
    _failure: *mut pg_sys::TM_FailureData,
) -> pg_sys::TM_Result::Type {
    // SAFETY: see insert.
    unsafe { read_only(relation) }
}

/// A mounted table's own file is empty: CREATE DATABASE with a template looks for one. The xids on its pages are the other database's concern: none of this
/// one's (`vac_update_datfrozenxid` passes over relations without a relfrozenxid).
#[pg_guard]
pub unsafe extern "C-unwind" fn set_new_filenode(
    relation: pg_sys::Relation,
    node: *const pg_sys::RelFileNode,
    persistence: std::ffi::c_char,
    freeze: *mut pg_sys::TransactionId,
    minmulti: *mut pg_sys::MultiXactId,
) {
    // SAFETY: an open relation, and places for the results.
    unsafe {
        if !MAKING.get() {
            refuse(
                relation,
                "create or rewrite a table of the access method \"fork\"",
            );
        }
        let file = pg_sys::RelationCreateStorage(*node, persistence, true);
        pg_sys::smgrclose(file);
        *freeze = pg_sys::InvalidTransactionId;
        *minmulti = pg_sys::MultiXactId::from(0);
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn truncate(relation: pg_sys::Relation) {
    // SAFETY: see insert.
    unsafe { read_only(relation) }
}

/// ALTER TABLE ... SET TABLESPACE.
#[pg_guard]
pub unsafe extern "C-unwind" fn copy_data(
    relation: pg_sys::Relation,
    _node: *const pg_sys::RelFileNode,
) {
    // SAFETY: see insert.
    unsafe { refuse(relation, "move the table") }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn copy_for_cluster(
    relation: pg_sys::Relation,
    _new: pg_sys::Relation,
    _index: pg_sys::Relation,
    _sort: bool,
    _oldest: pg_sys::TransactionId,
    _xid: *mut pg_sys::TransactionId,
    _multi: *mut pg_sys::MultiXactId,
    _tuples: *mut f64,
    _vacuumed: *mut f64,
    _dead: *mut f64,
) {
    // SAFETY: see insert.
    unsafe { refuse(relation, "rewrite the table") }
}

/// There is nothing to do, and a VACUUM of the whole database must not end here.
#[pg_guard]
pub unsafe extern "C-unwind" fn vacuum(
    _relation: pg_sys::Relation,
    _params: *mut pg_sys::VacuumParams,
    _strategy: pg_sys::BufferAccessStrategy,
) {
}

#[pg_guard]
pub unsafe extern "C-unwind" fn index_build(
    relation: pg_sys::Relation,
    _index: pg_sys::Relation,
    _info: *mut pg_sys::IndexInfo,
    _sync: bool,
    _any_visible: bool,
    _progress: bool,
    _start: u32,
    _count: u32,
    _callback: pg_sys::IndexBuildCallback,
    _state: *mut std::ffi::c_void,
    _scan: pg_sys::TableScanDesc,
) -> f64 {
    // SAFETY: see insert.
    unsafe { refuse(relation, "create an index") }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn index_validate(
    relation: pg_sys::Relation,
    _index: pg_sys::Relation,
    _info: *mut pg_sys::IndexInfo,
    _snapshot: pg_sys::Snapshot,
    _state: *mut pg_sys::ValidateIndexState,
) {
    // SAFETY: see insert.
    unsafe { refuse(relation, "create an index") }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn index_fetch_begin(
    relation: pg_sys::Relation,
) -> *mut pg_sys::IndexFetchTableData {
    // SAFETY: see insert.
    unsafe { refuse(relation, "use an index") }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn index_fetch_none(_data: *mut pg_sys::IndexFetchTableData) {}

#[pg_guard]
pub unsafe extern "C-unwind" fn index_fetch_tuple(
    data: *mut pg_sys::IndexFetchTableData,
    _tid: pg_sys::ItemPointer,
    _snapshot: pg_sys::Snapshot,
    _slot: *mut pg_sys::TupleTableSlot,
    _again: *mut bool,
    _dead: *mut bool,
) -> bool {
    // SAFETY: never begun, so never called.
    unsafe { refuse((*data).rel, "use an index") }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn index_delete_tuples(
    relation: pg_sys::Relation,
    _state: *mut pg_sys::TM_IndexDeleteOp,
) -> pg_sys::TransactionId {
    // SAFETY: see insert.
    unsafe { refuse(relation, "use an index") }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn latest_tid(
    _scan: pg_sys::TableScanDesc,
    _tid: pg_sys::ItemPointer,
) {
}

#[pg_guard]
pub unsafe extern "C-unwind" fn satisfies_snapshot(
    relation: pg_sys::Relation,
    _slot: *mut pg_sys::TupleTableSlot,
    _snapshot: pg_sys::Snapshot,
) -> bool {
    // SAFETY: see insert.
    unsafe { read_only(relation) }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn needs_toast_table(_relation: pg_sys::Relation) -> bool {
    false
}
