//! The way out of a fork is the session's, not the fork's owner's.
//!
//! `SELECT fork_detach()` finds the function by the search path, in schemas that the fork's owner may change
//! as he likes: he may put his own before ours, or rename the schema that ours is in. So in a session that is
//! away from home a call that looks like one of ours becomes ours, before anything of it runs: once the
//! statement has been analyzed. What cannot be made ours is refused (42883). `DISCARD ALL` names no function.
#![allow(unsafe_code)] // a hook that C calls, and query trees

use crate::attach::request;
use pgrx::pg_sys::panic::{pgrx_extern_c_guard, ErrorReport};
use pgrx::pg_sys::{self, Datum, Node, NodeTag, Oid};
use pgrx::prelude::*;
use std::ffi::{c_void, CStr};
use std::sync::OnceLock;

/// By name, and how many arguments each has.
const OURS: [(&CStr, i32); 3] = [
    (c"fork_attach", 1),
    (c"fork_detach", 0),
    (c"fork_current", 0),
];

/// The other way home.
pub const HINT: &str = "Leave the fork by DISCARD ALL.";

/// The language of C functions (pg_language.dat).
const C: u32 = 13;

static PREVIOUS: OnceLock<pg_sys::post_parse_analyze_hook_type> = OnceLock::new();

/// From `_PG_init`.
pub fn register() {
    // SAFETY: a hook variable, chained, while preloading.
    unsafe {
        let _ = PREVIOUS.set(pg_sys::post_parse_analyze_hook);
        pg_sys::post_parse_analyze_hook = Some(analyzed);
    }
}

/// Any process, for each statement that was analyzed. Not guarded as a whole: see `pg::raw`.
unsafe extern "C-unwind" fn analyzed(
    pstate: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: the caller's arguments, for another library's hook as well. The frame has nothing to drop.
    unsafe {
        if request::away() {
            pgrx_extern_c_guard(|| mend_query(pstate, query));
        }
        if let Some(Some(previous)) = PREVIOUS.get() {
            previous(pstate, query, jumble);
        }
    }
}

unsafe fn mend_query(pstate: *mut pg_sys::ParseState, query: *mut pg_sys::Query) {
    // SAFETY: an analyzed statement, cast to what the tags say.
    unsafe {
        // The statement that the documentation has, whatever type the other function is of: nothing else in
        // it refers to the result.
        let whole = (*query).commandType == pg_sys::CmdType::CMD_SELECT
            && (*query).setOperations.is_null()
            && (*query).sortClause.is_null()
            && (*query).groupClause.is_null()
            && (*query).distinctClause.is_null();
        if whole {
            let list = pgrx::PgList::<pg_sys::TargetEntry>::from_pg((*query).targetList);
            for entry in list.iter_ptr() {
                let expr = (*entry).expr.cast::<Node>();
                if !expr.is_null() && (*expr).type_ == NodeTag::T_FuncExpr {
                    let set = (*expr.cast::<pg_sys::FuncExpr>()).funcretset;
                    if mend_call(pstate, expr.cast(), true) && set && list.len() == 1 {
                        (*query).hasTargetSRFs = false;
                    }
                }
            }
        }
        walk(query.cast(), pstate.cast());
    }
}

/// Looks at a node and at all below it.
#[pg_guard]
unsafe extern "C-unwind" fn walk(node: *mut Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node of the tree, cast to what its tag says.
    unsafe {
        match (*node).type_ {
            NodeTag::T_Query => {
                let query = node.cast::<pg_sys::Query>();
                let utility = (*query).utilityStmt;
                if !utility.is_null() {
                    walk_utility(utility, context);
                }
                return pg_sys::query_tree_walker(query, Some(walk), context, 0);
            }
            NodeTag::T_FuncExpr => {
                mend_call(context.cast(), node.cast(), false);
            }
            NodeTag::T_Aggref => refuse_if_named((*node.cast::<pg_sys::Aggref>()).aggfnoid),
            NodeTag::T_WindowFunc => refuse_if_named((*node.cast::<pg_sys::WindowFunc>()).winfnoid),
            NodeTag::T_CoerceToDomain => {
                // A type's name called as a function, with a literal, is a cast to it.
                let cast = &*node.cast::<pg_sys::CoerceToDomain>();
                if cast.coercionformat == pg_sys::CoercionForm::COERCE_EXPLICIT_CALL {
                    refuse_type(cast.resulttype);
                }
            }
            _ => {}
        }
        pg_sys::expression_tree_walker(node, Some(walk), context)
    }
}

/// Utility statements that hold a query which was analyzed with them (analyze.c, `transformStmt`).
unsafe fn walk_utility(node: *mut Node, context: *mut c_void) {
    // SAFETY: a parse node, cast to what its tag says.
    unsafe {
        let query = match (*node).type_ {
            NodeTag::T_ExplainStmt => (*node.cast::<pg_sys::ExplainStmt>()).query,
            NodeTag::T_CreateTableAsStmt => (*node.cast::<pg_sys::CreateTableAsStmt>()).query,
            NodeTag::T_DeclareCursorStmt => (*node.cast::<pg_sys::DeclareCursorStmt>()).query,
            NodeTag::T_CallStmt => (*node.cast::<pg_sys::CallStmt>()).funcexpr.cast(),
            _ => return,
        };
        walk(query, context);
    }
}

/// The function of ours that this one has the name of, if it is none of the server's.
unsafe fn namesake(function: Oid) -> Option<(&'static CStr, i32)> {
    if function.to_u32() < pg_sys::FirstNormalObjectId {
        return None;
    }
    // SAFETY: palloc'd, or null.
    unsafe {
        let name = pg_sys::get_func_name(function);
        if name.is_null() {
            return None;
        }
        OURS.into_iter()
            .find(|(ours, _)| CStr::from_ptr(name) == *ours)
    }
}

fn refuse_if_named(function: Oid) {
    // SAFETY: a function's number.
    if let Some((name, _)) = unsafe { namesake(function) } {
        refuse(name);
    }
}

fn refuse_type(number: Oid) {
    // SAFETY: a row of the catalog cache, held while it is looked at.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::TYPEOID as i32;
        let row = pg_sys::SearchSysCache1(cache, number.into());
        if row.is_null() {
            return;
        }
        let form = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_type>(row);
        let name = CStr::from_ptr(form.typname.data.as_ptr());
        let ours = OURS.into_iter().find(|(ours, _)| name == *ours);
        pg_sys::ReleaseSysCache(row);
        if let Some((name, _)) = ours {
            refuse(name);
        }
    }
}

fn refuse(name: &CStr) -> ! {
    let name = name.to_string_lossy();
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
        format!("function {name} of this database is not pg_fork's"),
        "pg_fork",
    )
    .set_detail("The session is in a fork, where something else has taken the function's name.")
    .set_hint(HINT)
    .report(PgLogLevel::ERROR);
    unreachable!()
}

/// Makes a call of a namesake, with as many arguments, one of ours. `any_type`: it may return what it likes.
/// Returns whether it has changed the call. Raises 42883 if it cannot.
unsafe fn mend_call(
    pstate: *mut pg_sys::ParseState,
    call: *mut pg_sys::FuncExpr,
    any_type: bool,
) -> bool {
    // SAFETY: an analyzed call, of which defaults are not filled in yet.
    unsafe {
        let Some((name, arguments)) = namesake((*call).funcid) else {
            return false;
        };
        let given = pgrx::PgList::<Node>::from_pg((*call).args);
        if given.len() != arguments as usize {
            return false;
        }
        let Some(real) = find(name) else { refuse(name) };
        if real == (*call).funcid {
            return false;
        }
        let same_type = (*call).funcresulttype == pg_sys::NAMEOID && !(*call).funcretset;
        if !same_type && !any_type {
            refuse(name);
        }
        if let Some(argument) = given.head() {
            let mut list = pgrx::PgList::<Node>::new();
            list.push(as_name(pstate, argument).unwrap_or_else(|| refuse(name)));
            (*call).args = list.into_pg();
            (*call).inputcollid = pg_sys::C_COLLATION_OID;
        }
        (*call).funcid = real;
        (*call).funcresulttype = pg_sys::NAMEOID;
        (*call).funccollid = pg_sys::C_COLLATION_OID;
        (*call).funcretset = false;
        (*call).funcvariadic = false;
        true
    }
}

/// The argument as it was written, as a `name`: what was made of it for the other function is taken off, for
/// that may call functions too.
unsafe fn as_name(pstate: *mut pg_sys::ParseState, mut node: *mut Node) -> Option<*mut Node> {
    let implicit = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
    // SAFETY: an analyzed expression, cast to what the tags say.
    unsafe {
        loop {
            node = match (*node).type_ {
                NodeTag::T_CoerceToDomain => (*node.cast::<pg_sys::CoerceToDomain>()).arg.cast(),
                NodeTag::T_RelabelType => (*node.cast::<pg_sys::RelabelType>()).arg.cast(),
                NodeTag::T_CoerceViaIO => (*node.cast::<pg_sys::CoerceViaIO>()).arg.cast(),
                NodeTag::T_FuncExpr
                    if (*node.cast::<pg_sys::FuncExpr>()).funcformat == implicit =>
                {
                    let args = (*node.cast::<pg_sys::FuncExpr>()).args;
                    pgrx::PgList::<Node>::from_pg(args).head()?
                }
                NodeTag::T_ArrayExpr => {
                    let elements = (*node.cast::<pg_sys::ArrayExpr>()).elements;
                    let elements = pgrx::PgList::<Node>::from_pg(elements);
                    elements.head().filter(|_| elements.len() == 1)?
                }
                _ => break,
            };
        }
        let from = pg_sys::exprType(node);
        // The server's own strings only: casts from others are their owners'.
        let known = [
            pg_sys::NAMEOID,
            pg_sys::TEXTOID,
            pg_sys::VARCHAROID,
            pg_sys::BPCHAROID,
            pg_sys::UNKNOWNOID,
        ];
        if !known.contains(&from) {
            return None;
        }
        let node = pg_sys::coerce_to_target_type(
            pstate,
            node,
            from,
            pg_sys::NAMEOID,
            -1,
            pg_sys::CoercionContext::COERCION_IMPLICIT,
            implicit,
            -1,
        );
        (!node.is_null()).then_some(node)
    }
}

/// The function in this database that is pg_fork's: in C, which takes a superuser to make.
unsafe fn find(name: &CStr) -> Option<Oid> {
    let mut found = None;
    // SAFETY: the list is held while its rows are looked at.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32;
        let none = Datum::from(0usize);
        let key = Datum::from(name.as_ptr());
        let list = pg_sys::SearchSysCacheList(cache, 1, key, none, none);
        let members = (*list).members.as_slice((*list).n_members as usize);
        for member in members {
            let row = &raw mut (**member).tuple;
            let form = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_proc>(row);
            let text = |column: u32| {
                let mut null = false;
                let datum = pg_sys::SysCacheGetAttr(cache, row, column as i16, &mut null);
                (!null).then(|| CStr::from_ptr(pg_sys::text_to_cstring(datum.cast_mut_ptr())))
            };
            if form.prolang.to_u32() != C {
                continue;
            }
            let source = text(pg_sys::Anum_pg_proc_prosrc).map(CStr::to_bytes);
            let library = text(pg_sys::Anum_pg_proc_probin).map(CStr::to_bytes);
            let ours = source.and_then(|source| source.strip_suffix(b"_c"))
                == Some(name.to_bytes())
                && library.is_some_and(|path| {
                    path.rsplit(|byte| *byte == b'/').next() == Some(b"pg_fork")
                });
            if ours {
                found = Some(form.oid);
            }
        }
        pg_sys::ReleaseCatCacheList(list);
    }
    found
}
