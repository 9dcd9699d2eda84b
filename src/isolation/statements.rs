//! Utility statements that reach out of the database that they run in. Those that never do are in `tags`;
//! what is neither there nor here is refused.
#![allow(unsafe_code)] // parse nodes

use crate::attach::request::is_fork;
use crate::fork::catalog;
use crate::isolation::{in_force, programs, refuse, reindex, shared, tags, writes};
use crate::pg::proc;
use pgrx::pg_sys::{self, NodeTag, ObjectType};
use std::ffi::{c_char, CStr};

unsafe fn text(value: *const c_char) -> String {
    if value.is_null() {
        return String::new();
    }
    // SAFETY: a parse node's string.
    unsafe { CStr::from_ptr(value) }
        .to_string_lossy()
        .into_owned()
}

/// The value of a String node.
unsafe fn string(node: *mut pg_sys::Node) -> String {
    // SAFETY: by the grammar, a String node where this is called.
    unsafe {
        if node.is_null() || (*node).type_ != NodeTag::T_String {
            return String::new();
        }
        text((*node.cast::<pg_sys::String>()).sval)
    }
}

/// Raises 42501 for a database that is no fork: of forks, the owner disposes as of any database.
fn only_forks(name: &str, what: &str) {
    if !catalog::database_oid(name).is_some_and(is_fork) {
        refuse(what);
    }
}

/// Raises 42501 if the statement reaches out of the fork that the session is in.
///
/// # Safety
/// `node` is a utility statement's parse node.
pub unsafe fn check(node: *mut pg_sys::Node) {
    if !in_force() {
        return;
    }
    // SAFETY: a parse node, cast to what its tag says.
    unsafe {
        match (*node).type_ {
            NodeTag::T_CreateRoleStmt
            | NodeTag::T_AlterRoleStmt
            | NodeTag::T_DropRoleStmt
            | NodeTag::T_GrantRoleStmt => refuse("change roles"),
            // They change what the role owns, or may do, outside of the database too.
            NodeTag::T_ReassignOwnedStmt => refuse("reassign what roles own"),
            NodeTag::T_DropOwnedStmt => refuse("drop what roles own"),
            NodeTag::T_AlterRoleSetStmt => {
                let database = text((*node.cast::<pg_sys::AlterRoleSetStmt>()).database);
                only_forks(&database, "change settings of roles");
            }
            NodeTag::T_CreatedbStmt => refuse("create a database"),
            NodeTag::T_DropdbStmt => only_forks(
                &text((*node.cast::<pg_sys::DropdbStmt>()).dbname),
                "drop a database that is not a fork",
            ),
            NodeTag::T_AlterDatabaseStmt => only_forks(
                &text((*node.cast::<pg_sys::AlterDatabaseStmt>()).dbname),
                "alter a database that is not a fork",
            ),
            NodeTag::T_AlterDatabaseSetStmt => only_forks(
                &text((*node.cast::<pg_sys::AlterDatabaseSetStmt>()).dbname),
                "alter a database that is not a fork",
            ),
            NodeTag::T_AlterDatabaseRefreshCollStmt => only_forks(
                &text((*node.cast::<pg_sys::AlterDatabaseRefreshCollStmt>()).dbname),
                "alter a database that is not a fork",
            ),
            NodeTag::T_CreateTableSpaceStmt
            | NodeTag::T_DropTableSpaceStmt
            | NodeTag::T_AlterTableSpaceOptionsStmt => refuse("change tablespaces"),
            NodeTag::T_AlterSystemStmt => refuse("change settings of the server"),
            NodeTag::T_CreateSubscriptionStmt
            | NodeTag::T_AlterSubscriptionStmt
            | NodeTag::T_DropSubscriptionStmt => refuse("change subscriptions"),
            NodeTag::T_RenameStmt => {
                let statement = &*node.cast::<pg_sys::RenameStmt>();
                shared_object(statement.renameType, &text(statement.subname));
            }
            NodeTag::T_AlterOwnerStmt => {
                let statement = &*node.cast::<pg_sys::AlterOwnerStmt>();
                shared_object(statement.objectType, &string(statement.object));
            }
            NodeTag::T_CommentStmt => {
                let statement = &*node.cast::<pg_sys::CommentStmt>();
                shared_object(statement.objtype, &string(statement.object));
            }
            NodeTag::T_SecLabelStmt => {
                let statement = &*node.cast::<pg_sys::SecLabelStmt>();
                shared_object(statement.objtype, &string(statement.object));
            }
            NodeTag::T_GrantStmt => {
                let statement = &*node.cast::<pg_sys::GrantStmt>();
                let objects = pgrx::PgList::<pg_sys::Node>::from_pg(statement.objects);
                for object in objects.iter_ptr() {
                    if !object.is_null() && (*object).type_ == NodeTag::T_String {
                        shared_object(statement.objtype, &string(object));
                    }
                }
                if statement.objtype == ObjectType::OBJECT_PARAMETER_ACL {
                    refuse("change rights on settings");
                }
            }
            NodeTag::T_CopyStmt => {
                let statement = &*node.cast::<pg_sys::CopyStmt>();
                if statement.is_program {
                    refuse("run programs with COPY");
                }
                // An extension's script reads what came with the extension.
                let scripted = statement.is_from && pg_sys::creating_extension;
                if !statement.filename.is_null() && !scripted {
                    refuse("use files of the server with COPY");
                }
                if statement.is_from && !statement.relation.is_null() {
                    writes::check_range(statement.relation);
                }
            }
            NodeTag::T_CreateFunctionStmt => {
                language((*node.cast::<pg_sys::CreateFunctionStmt>()).options);
            }
            NodeTag::T_DoStmt => language((*node.cast::<pg_sys::DoStmt>()).args),
            NodeTag::T_CreatePLangStmt => {
                let trusted = (*node.cast::<pg_sys::CreatePLangStmt>()).pltrusted;
                if !trusted && !pg_sys::creating_extension {
                    refuse("create an untrusted language");
                }
            }
            NodeTag::T_LockStmt => shared::check_lock(&*node.cast()),
            NodeTag::T_ReindexStmt => reindex::check(&*node.cast()),
            NodeTag::T_VacuumStmt => programs::check_analyze(&*node.cast()),
            tag if tags::are_own(tag) => {}
            _ => refuse("run a statement that pg_fork does not know"),
        }
    }
}

/// Raises 42501 for an object that all databases share, but a fork.
fn shared_object(kind: ObjectType::Type, name: &str) {
    match kind {
        ObjectType::OBJECT_DATABASE => only_forks(name, "alter a database that is not a fork"),
        ObjectType::OBJECT_ROLE => refuse("change roles"),
        ObjectType::OBJECT_TABLESPACE => refuse("change tablespaces"),
        ObjectType::OBJECT_SUBSCRIPTION => refuse("change subscriptions"),
        _ => {}
    }
}

/// Raises 42501 for code in a language that can do anything, but that of an extension's script.
unsafe fn language(options: *mut pg_sys::List) {
    // SAFETY: a list of DefElem nodes.
    unsafe {
        if pg_sys::creating_extension {
            return;
        }
        let options = pgrx::PgList::<pg_sys::DefElem>::from_pg(options);
        let Some(option) = options
            .iter_ptr()
            .find(|option| CStr::from_ptr((**option).defname) == c"language")
        else {
            return; // SQL, or PL/pgSQL
        };
        let name = CStr::from_ptr(pg_sys::defGetString(option));
        // Where there is none, the statement says so itself.
        if proc::is_trusted(name) == Some(false) {
            refuse("use an untrusted language");
        }
    }
}
