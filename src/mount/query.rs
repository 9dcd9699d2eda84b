//! The query of a view that shows a partitioned table, as parse analysis would leave it.
#![allow(unsafe_code)] // parse trees

use super::build::Made;
use pgrx::pg_sys::{self, Oid, Query};
use pgrx::{PgBox, PgList};
use std::ffi::CString;

/// A column of the view: its name, its type, modifier and collation, and its number in each of the partitions.
pub struct Column {
    pub name: CString,
    pub kind: Oid,
    pub modifier: i32,
    pub collation: Oid,
    pub numbers: Vec<i16>,
}

/// `SELECT … FROM p1 UNION ALL SELECT … FROM p2 …`.
///
/// # Safety
/// Tables that this transaction has made, with these columns.
pub unsafe fn of(columns: &[Column], partitions: &[&Made]) -> *mut Query {
    // SAFETY: tables and columns that exist; all nodes are palloc'd.
    unsafe {
        let queries: Vec<*mut Query> = partitions
            .iter()
            .enumerate()
            .map(|(n, made)| one(columns, n, made.relation))
            .collect();
        match queries.as_slice() {
            [] => nothing(columns),
            [one] => *one,
            all => union(columns, all),
        }
    }
}

fn select() -> PgBox<Query, pgrx::AllocatedByRust> {
    // SAFETY: a node of that type.
    let mut query = unsafe { PgBox::<Query>::alloc_node(pg_sys::NodeTag::T_Query) };
    query.commandType = pg_sys::CmdType::CMD_SELECT;
    query.canSetTag = true;
    query
}

unsafe fn target(n: usize, column: &Column, value: *mut pg_sys::Expr) -> *mut pg_sys::TargetEntry {
    // SAFETY: the name is copied.
    unsafe {
        let name = pg_sys::pstrdup(column.name.as_ptr());
        pg_sys::makeTargetEntry(value, n as i16 + 1, name, false)
    }
}

/// The column `number` of range table entry `entry`.
unsafe fn var(entry: i32, number: i16, column: &Column) -> *mut pg_sys::Expr {
    // SAFETY: palloc'd.
    unsafe {
        pg_sys::makeVar(
            entry,
            number,
            column.kind,
            column.modifier,
            column.collation,
            0,
        )
        .cast()
    }
}

fn reference(entry: i32) -> *mut pg_sys::Node {
    // SAFETY: a node of that type.
    let mut node =
        unsafe { PgBox::<pg_sys::RangeTblRef>::alloc_node(pg_sys::NodeTag::T_RangeTblRef) };
    node.rtindex = entry;
    node.into_pg().cast()
}

unsafe fn one(columns: &[Column], partition: usize, relation: Oid) -> *mut Query {
    // SAFETY: by the caller's promise; this transaction made the table, and holds its lock.
    unsafe {
        let open = pg_sys::relation_open(relation, pg_sys::NoLock as i32);
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        let mode = pg_sys::AccessShareLock as i32;
        let alias = std::ptr::null_mut();
        let entry = pg_sys::addRangeTableEntryForRelation(state, open, mode, alias, false, true);
        pg_sys::relation_close(open, pg_sys::NoLock as i32);
        let entry = (*entry).p_rte;
        let mut targets = PgList::<pg_sys::TargetEntry>::new();
        for (n, column) in columns.iter().enumerate() {
            let number = column.numbers[partition];
            let bit = i32::from(number) - pg_sys::FirstLowInvalidHeapAttributeNumber;
            (*entry).selectedCols = pg_sys::bms_add_member((*entry).selectedCols, bit);
            targets.push(target(n, column, var(1, number, column)));
        }
        let mut from = PgList::<pg_sys::Node>::new();
        from.push(reference(1));
        let mut query = select();
        query.rtable = (*state).p_rtable;
        query.targetList = targets.into_pg();
        query.jointree = pg_sys::makeFromExpr(from.into_pg(), std::ptr::null_mut());
        query.into_pg()
    }
}

/// Of a table without partitions: no rows.
unsafe fn nothing(columns: &[Column]) -> *mut Query {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut targets = PgList::<pg_sys::TargetEntry>::new();
        for (n, column) in columns.iter().enumerate() {
            let null = pg_sys::makeNullConst(column.kind, column.modifier, column.collation);
            targets.push(target(n, column, null.cast()));
        }
        let mut query = select();
        query.targetList = targets.into_pg();
        let never = pg_sys::makeBoolConst(false, false);
        query.jointree = pg_sys::makeFromExpr(std::ptr::null_mut(), never);
        query.into_pg()
    }
}

unsafe fn union(columns: &[Column], queries: &[*mut Query]) -> *mut Query {
    // SAFETY: by the caller's promise.
    unsafe {
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        for (n, query) in queries.iter().enumerate() {
            let name = CString::new(format!("*SELECT* {}", n + 1)).unwrap_or_default();
            let alias = pg_sys::makeAlias(name.as_ptr(), std::ptr::null_mut());
            pg_sys::addRangeTableEntryForSubquery(state, *query, alias, false, false);
        }
        let mut targets = PgList::<pg_sys::TargetEntry>::new();
        for (n, column) in columns.iter().enumerate() {
            targets.push(target(n, column, var(1, n as i16 + 1, column)));
        }
        let mut query = select();
        query.rtable = (*state).p_rtable;
        query.targetList = targets.into_pg();
        query.jointree = pg_sys::makeFromExpr(std::ptr::null_mut(), std::ptr::null_mut());
        query.setOperations = branch(columns, 1, queries.len() as i32);
        query.into_pg()
    }
}

/// The entries from one to another, halved again and again: who goes down the tree must not run out of stack.
unsafe fn branch(columns: &[Column], first: i32, last: i32) -> *mut pg_sys::Node {
    if first == last {
        return reference(first);
    }
    // SAFETY: by the caller's promise.
    unsafe {
        let middle = first + (last - first) / 2;
        let tag = pg_sys::NodeTag::T_SetOperationStmt;
        let mut node = PgBox::<pg_sys::SetOperationStmt>::alloc_node(tag);
        (node.op, node.all) = (pg_sys::SetOperation::SETOP_UNION, true);
        node.larg = branch(columns, first, middle);
        node.rarg = branch(columns, middle + 1, last);
        for column in columns {
            node.colTypes = pg_sys::lappend_oid(node.colTypes, column.kind);
            node.colTypmods = pg_sys::lappend_int(node.colTypmods, column.modifier);
            node.colCollations = pg_sys::lappend_oid(node.colCollations, column.collation);
        }
        node.into_pg().cast()
    }
}
