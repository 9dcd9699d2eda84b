//! What may surround the call: nothing. The session moves when the transaction has committed, so the
//! call must be the whole of it.
#![allow(unsafe_code)] // looks at portals and plans

use crate::attach::refuse;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::c_void;

const ALONE: &str = "Send it as a statement of its own: SELECT fork_attach('name').";

/// Raises 25001 unless the running call is all that its statement and its transaction do.
///
/// # Safety
/// `call` is the call data of the running function.
pub unsafe fn must_stand_alone(call: pg_sys::FunctionCallInfo, name: &str) {
    let active = PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION;
    // SAFETY: plain questions about this process's transaction.
    unsafe {
        pg_sys::PreventCommandIfParallelMode(c"fork_attach()".as_ptr());
        if pg_sys::IsTransactionBlock() || pg_sys::IsSubTransaction() {
            refuse(
                active,
                format!("{name}() cannot run inside a transaction block"),
                "Commit or roll back first, and send it by itself. Drivers that open transactions on their own have an autocommit mode.",
            );
        }
        if pg_sys::MyXactFlags as u32 & pg_sys::XACT_FLAGS_PIPELINING != 0 {
            refuse(
                active,
                format!("{name}() cannot be executed within a pipeline"),
                ALONE,
            );
        }
        if !is_whole_statement(call) {
            refuse(
                active,
                format!("{name}() cannot be a part of another statement or run inside a function"),
                ALONE,
            );
        }
        // Commit at once, also when the client has sent more before it says Sync (xact.c).
        pg_sys::PreventInTransactionBlock(true, c"fork_attach()".as_ptr());
    }
}

/// Whether the running statement is `SELECT f(…)` or `SELECT * FROM f(…)`, and this call is that `f`.
unsafe fn is_whole_statement(call: pg_sys::FunctionCallInfo) -> bool {
    // SAFETY: portals and plans are this process's own, and live as long as the call. The executor
    // hands a function the very node of the plan that it is called for (execExpr.c, `ExecInitFunc`).
    unsafe {
        let flinfo = (*call).flinfo;
        let portal = pg_sys::ActivePortal;
        if flinfo.is_null() || (*flinfo).fn_expr.is_null() || portal.is_null() {
            return false;
        }
        let me = (*flinfo).fn_expr.cast::<c_void>();
        // EXECUTE runs in a portal of its own inside of another (portalmem.c, `CreateNewPortal`), and
        // a cursor WITH HOLD runs when its transaction commits.
        let name = std::ffi::CStr::from_ptr((*portal).name).to_bytes();
        if (*portal).strategy != pg_sys::PortalStrategy::PORTAL_ONE_SELECT
            || name.starts_with(b"<unnamed portal")
            || (*portal).cursorOptions as u32 & pg_sys::CURSOR_OPT_HOLD != 0
        {
            return false;
        }
        let stmts = pgrx::PgList::<pg_sys::PlannedStmt>::from_pg((*portal).stmts);
        let Some(stmt) = stmts.head().filter(|_| stmts.len() == 1) else {
            return false;
        };
        let plan = (*stmt).planTree;
        if (*stmt).commandType != pg_sys::CmdType::CMD_SELECT
            || !(*stmt).subplans.is_null()
            || plan.is_null()
            || !(*plan).lefttree.is_null()
            || !(*plan).righttree.is_null()
        {
            return false;
        }
        match (*plan).type_ {
            pg_sys::NodeTag::T_Result => {
                let list = pgrx::PgList::<pg_sys::TargetEntry>::from_pg((*plan).targetlist);
                list.len() == 1
                    && list
                        .head()
                        .is_some_and(|entry| (*entry).expr.cast::<c_void>() == me)
            }
            pg_sys::NodeTag::T_FunctionScan => {
                let functions = (*plan.cast::<pg_sys::FunctionScan>()).functions;
                let list = pgrx::PgList::<pg_sys::RangeTblFunction>::from_pg(functions);
                list.len() == 1
                    && list
                        .head()
                        .is_some_and(|function| (*function).funcexpr.cast::<c_void>() == me)
            }
            _ => false,
        }
    }
}
