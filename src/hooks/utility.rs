//! Database commands that concern forks or their sources.
#![allow(unsafe_code)] // a hook that C calls, and parse nodes

use crate::attach::request;
use crate::fork::{catalog, drop};
use crate::hooks::tablespace;
use crate::isolation;
use crate::mount::{change, members, vacuum, watch};
use crate::pg::raw;
use crate::shmem::{any_live, registry};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{pgrx_extern_c_guard, ErrorReport};
use pgrx::prelude::*;
use std::ffi::{c_char, CStr};
use std::sync::OnceLock;

type Hook = pg_sys::ProcessUtility_hook_type;
static PREVIOUS: OnceLock<Hook> = OnceLock::new();

/// From `_PG_init`.
pub fn register() {
    // SAFETY: while preloading, in the postmaster.
    unsafe {
        let _ = PREVIOUS.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

/// Any process that runs statements. Not guarded as a whole: see `pg::raw`.
#[allow(clippy::too_many_arguments)] // the hook's type
unsafe extern "C-unwind" fn process_utility(
    mut statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    dest: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the arguments are the caller's, or a copy of the statement. The frame has nothing to drop.
    unsafe {
        let node = (*statement).utilityStmt;
        // Asked now: the statement's memory may be gone when it is done.
        let resets = is_discard_all(node, context);
        if pgrx_extern_c_guard(|| before(node, context)) {
            return;
        }
        match pgrx_extern_c_guard(|| vacuum::without_mounted(statement)) {
            Some(nothing) if nothing.is_null() => return,
            Some(other) => statement = other,
            None => {}
        }
        match pgrx_extern_c_guard(|| isolation::without_shared(statement)) {
            Some(nothing) if nothing.is_null() => return,
            Some(other) => statement = other,
            None => {}
        }
        let copies = pgrx_extern_c_guard(|| before_copy(node));
        let next = match PREVIOUS.get() {
            Some(Some(previous)) => *previous,
            _ => raw::standard_ProcessUtility,
        };
        next(
            statement,
            query,
            read_only,
            context,
            params,
            environment,
            dest,
            completion,
        );
        if copies {
            pgrx_extern_c_guard(|| pg_sys::PopActiveSnapshot());
        }
        if resets {
            // Poolers send it before they hand a session to the next client.
            pgrx_extern_c_guard(request::ask_home_or_end);
        }
    }
}

unsafe fn before_copy(node: *mut pg_sys::Node) -> bool {
    // SAFETY: a parse node, cast to what its tag says.
    unsafe {
        (*node).type_ == pg_sys::NodeTag::T_CopyStmt
            && watch::before_copy(&*node.cast::<pg_sys::CopyStmt>())
    }
}

unsafe fn is_discard_all(
    node: *mut pg_sys::Node,
    context: pg_sys::ProcessUtilityContext::Type,
) -> bool {
    // SAFETY: a parse node, cast to what its tag says.
    unsafe {
        (*node).type_ == pg_sys::NodeTag::T_DiscardStmt
            && (*node.cast::<pg_sys::DiscardStmt>()).target == pg_sys::DiscardMode::DISCARD_ALL
            && context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL
    }
}

/// What comes before the statement; `true` if it is done with that.
unsafe fn before(node: *mut pg_sys::Node, context: pg_sys::ProcessUtilityContext::Type) -> bool {
    // SAFETY: a parse node.
    unsafe {
        if (*node).type_ != pg_sys::NodeTag::T_TransactionStmt {
            request::refuse_while_waiting();
        }
        isolation::check_statement(node);
        if isolation::reindexed_without_shared(node, context) {
            return true;
        }
        members::before_drop(node);
        change::before_statement(node);
        // What dropped forks left may be in the way when none is live any more, and one may be on its way.
        let always = matches!(
            (*node).type_,
            pg_sys::NodeTag::T_DropdbStmt
                | pg_sys::NodeTag::T_DropTableSpaceStmt
                | pg_sys::NodeTag::T_AlterDatabaseStmt
        );
        (any_live() || always) && intercept(node, context)
    }
}

unsafe fn text(value: *const c_char) -> String {
    // SAFETY: a parse node's string.
    unsafe { CStr::from_ptr(value) }
        .to_string_lossy()
        .into_owned()
}

/// The string values of a list of `DefElem`.
unsafe fn options(list: *mut pg_sys::List) -> Vec<(String, Option<String>)> {
    // SAFETY: a parse node's list of DefElem nodes.
    unsafe {
        let list = pgrx::PgList::<pg_sys::DefElem>::from_pg(list);
        let value = |element: *mut pg_sys::DefElem| {
            if (*element).arg.is_null() {
                return None;
            }
            Some(text(pg_sys::defGetString(element)))
        };
        list.iter_ptr()
            .map(|element| (text((*element).defname), value(element)))
            .collect()
    }
}

fn refuse(code: PgSqlErrorCode, message: String, detail: String, hint: &str) {
    ErrorReport::new(code, message, "pg_fork")
        .set_detail(detail)
        .set_hint(hint)
        .report(PgLogLevel::ERROR);
}

/// Does the statement's work if it is ours to do; raises an error if it must not be done.
unsafe fn intercept(node: *mut pg_sys::Node, context: pg_sys::ProcessUtilityContext::Type) -> bool {
    // SAFETY: a parse node, cast to what its tag says.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_DropdbStmt => {
                let statement = &*node.cast::<pg_sys::DropdbStmt>();
                let name = text(statement.dbname);
                let Some(oid) = catalog::database_oid(&name) else {
                    return false;
                };
                let top = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL;
                pg_sys::PreventInTransactionBlock(top, c"DROP DATABASE".as_ptr());
                if registry::fork(oid).is_some() {
                    // What standard_ProcessUtility would have checked first.
                    pg_sys::PreventCommandIfReadOnly(c"DROP DATABASE".as_ptr());
                    pg_sys::PreventCommandDuringRecovery(c"DROP DATABASE".as_ptr());
                    let force = options(statement.options)
                        .iter()
                        .any(|(name, _)| name == "force");
                    drop::drop_fork(&name, force, statement.missing_ok);
                    return true;
                }
                // Under the lock that dropdb takes: a fork_create under way holds a weaker one until
                // it has committed, and its fork is to be seen here then.
                if catalog::owns(oid) {
                    catalog::lock_for_drop(oid);
                }
                let forks = registry::forks_of(oid);
                if !forks.is_empty() {
                    refuse(
                        PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                        format!("cannot drop database \"{name}\" because it has forks"),
                        format!("Its forks: {}.", drop::names_of(&forks)),
                        "Drop them with fork_drop first.",
                    );
                }
            }
            pg_sys::NodeTag::T_DropTableSpaceStmt => {
                let statement = &*node.cast::<pg_sys::DropTableSpaceStmt>();
                let spc = pg_sys::get_tablespace_oid(statement.tablespacename, true);
                if spc != pg_sys::InvalidOid {
                    tablespace::vacate(spc);
                }
            }
            pg_sys::NodeTag::T_CreatedbStmt => {
                let options = options((*node.cast::<pg_sys::CreatedbStmt>()).options);
                let get = |wanted: &str| {
                    options
                        .iter()
                        .find(|(name, _)| name == wanted)
                        .and_then(|(_, v)| v.clone())
                };
                let Some(strategy) = get("strategy") else {
                    return false;
                };
                let template = get("template").unwrap_or("template1".into());
                let fork = catalog::database_oid(&template).and_then(registry::fork);
                if fork.is_some() && strategy.eq_ignore_ascii_case("file_copy") {
                    refuse(
                        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                        format!("cannot copy the files of fork \"{template}\""),
                        "Most of a fork's blocks are not in its own files.".into(),
                        "Use STRATEGY wal_log, which makes a full copy of its own.",
                    );
                }
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt => {
                let statement = &*node.cast::<pg_sys::AlterDatabaseStmt>();
                let name = text(statement.dbname);
                let Some(oid) = catalog::database_oid(&name) else {
                    return false;
                };
                let moves = options(statement.options)
                    .iter()
                    .any(|(name, _)| name == "tablespace");
                if moves && catalog::owns(oid) {
                    // Under the lock that movedb takes, for the same reason as above.
                    let top = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL;
                    pg_sys::PreventInTransactionBlock(
                        top,
                        c"ALTER DATABASE SET TABLESPACE".as_ptr(),
                    );
                    catalog::lock_for_drop(oid);
                }
                if moves && (registry::fork(oid).is_some() || !registry::forks_of(oid).is_empty()) {
                    refuse(
                        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                        format!("cannot move database \"{name}\" to another tablespace"),
                        "It is a fork, or has forks.".into(),
                        "Drop the forks first.",
                    );
                }
            }
            _ => {}
        }
    }
    false
}
