//! What a session may have that cannot follow it into another database: each is refused by name,
//! before anything happens.
#![allow(unsafe_code)] // looks at the session's state

use crate::attach::{idle, plpgsql, refuse, temp};
use pgrx::pg_sys;
use pgrx::prelude::*;

/// Raises 55006 if the session listens. Also between transactions: UNLISTEN takes effect at commit.
pub fn refuse_listening() {
    // SAFETY: looks at this process's list.
    if unsafe { listens() } {
        refuse(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            "cannot leave the database while the session listens for notifications",
            "Stop that first: UNLISTEN *.",
        );
    }
}

/// Raises an error if the session has what cannot follow it. `resetting`: DISCARD ALL has run just now.
pub fn refuse_what_stays(resetting: bool) {
    let unsupported = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
    let in_use = PgSqlErrorCode::ERRCODE_OBJECT_IN_USE;
    // SAFETY: plain state of this process.
    unsafe {
        if pg_sys::MyProcPort.is_null()
            || pg_sys::whereToSendOutput != pg_sys::CommandDest::DestRemote
            || pg_sys::MyBackendType != pg_sys::BackendType::B_BACKEND
        {
            refuse(
                unsupported,
                "only a client's session can attach to a fork",
                "Background workers connect to the fork by its name.",
            );
        }
        if pg_sys::am_walsender {
            refuse(
                unsupported,
                "a replication connection cannot attach to a fork",
                "Connect to the fork by its name.",
            );
        }
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        if context != 0 {
            refuse(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "cannot attach to a fork with another role's rights",
                "Call it with the session's own rights, outside of any function.",
            );
        }
        if !pg_sys::ThereAreNoReadyPortals() {
            refuse(
                PgSqlErrorCode::ERRCODE_INVALID_CURSOR_STATE,
                "cannot leave the database while cursors are open",
                "Close them first: CLOSE ALL.",
            );
        }
        if idle::holds_advisory_locks() {
            refuse(
                in_use,
                "cannot leave the database while the session holds advisory locks",
                "Release them first: SELECT pg_advisory_unlock_all().",
            );
        }
        if !resetting {
            refuse_listening();
        }
        if !pg_sys::MyReplicationSlot.is_null() || has_slots() {
            refuse(
                in_use,
                "cannot leave the database while the session uses a replication slot",
                "Drop the temporary slot first, or connect to the fork by its name.",
            );
        }
        if pg_sys::replorigin_session_origin != 0 {
            refuse(
                in_use,
                "cannot leave the database while a replication origin is set up",
                "Call pg_replication_origin_session_reset() first.",
            );
        }
    }
    temp::refuse_objects();
    plpgsql::check();
}

/// Whether the session listens on any channel: `pg_listening_channels()` (async.c) returns a row.
unsafe fn listens() -> bool {
    // SAFETY: the call data of a function that returns its rows one by one, as the executor makes it;
    // what it allocates is freed with the expression context's callbacks or the transaction.
    unsafe {
        let econtext = pg_sys::CreateStandaloneExprContext();
        let mut flinfo = pg_sys::FmgrInfo::default();
        pg_sys::fmgr_info(pg_sys::Oid::from(3035), &mut flinfo);
        let mut result = pg_sys::ReturnSetInfo {
            type_: pg_sys::NodeTag::T_ReturnSetInfo,
            econtext,
            allowedModes: pg_sys::SetFunctionReturnMode::SFRM_ValuePerCall as i32,
            returnMode: pg_sys::SetFunctionReturnMode::SFRM_ValuePerCall,
            ..Default::default()
        };
        let mut call = pg_sys::FunctionCallInfoBaseData {
            flinfo: &mut flinfo,
            resultinfo: (&raw mut result).cast(),
            ..Default::default()
        };
        if let Some(function) = flinfo.fn_addr {
            pg_sys::ffi::pg_guard_ffi_boundary(|| function(&mut call));
        }
        pg_sys::FreeExprContext(econtext, true);
        result.isDone != pg_sys::ExprDoneCond::ExprEndResult
    }
}

/// Whether a replication slot is this session's: temporary slots are.
unsafe fn has_slots() -> bool {
    // SAFETY: the array lives as long as the server; entries of this process change by its own hand.
    unsafe {
        let slots = (*pg_sys::ReplicationSlotCtl).replication_slots.as_ptr();
        (0..pg_sys::max_replication_slots as usize).any(|n| {
            let slot = slots.add(n);
            (*slot).in_use && (*slot).active_pid == pg_sys::MyProcPid
        })
    }
}
