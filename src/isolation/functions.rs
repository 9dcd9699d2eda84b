//! Functions that reach out of the database that they are called in.
//!
//! Two hooks bring them here before they are called. The executor tells of each function when it prepares
//! an expression, an aggregate, a fast-path call or CALL (`OAT_FUNCTION_EXECUTE`), whether or not the
//! expression is compiled later. The function manager asks for each that is not built in when it looks it
//! up (`hooks::lookups`): so are triggers, event triggers and the support functions of types found.
#![allow(unsafe_code)] // a hook that C calls, and rows of catalogs

use crate::isolation::classes::libraries::{self, Function};
use crate::isolation::classes::server::{self, Class};
use crate::isolation::{in_force, may_be_in_force, refuse, writes};
use crate::pg::proc::{self, Proc};
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::pg_sys::{self, ObjectAccessType, Oid};
use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::OnceLock;

static PREVIOUS: OnceLock<pg_sys::object_access_hook_type> = OnceLock::new();

/// From `_PG_init`, in the postmaster.
pub fn install() {
    // SAFETY: a hook variable, chained, while preloading.
    unsafe {
        let _ = PREVIOUS.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(object_access);
    }
}

/// Any access to a catalog object; of interest are functions that are about to be called, and TRUNCATE.
unsafe extern "C-unwind" fn object_access(
    access: ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    sub: i32,
    arg: *mut c_void,
) {
    // SAFETY: another library's hook, with the caller's arguments, unguarded: see `pg::raw`. The frame
    // has nothing to drop.
    unsafe {
        if let Some(Some(previous)) = PREVIOUS.get() {
            previous(access, class, object, sub, arg);
        }
    }
    let of_interest = matches!(
        access,
        ObjectAccessType::OAT_FUNCTION_EXECUTE | ObjectAccessType::OAT_TRUNCATE
    );
    if of_interest && may_be_in_force() {
        // SAFETY: a panic becomes a PostgreSQL error here.
        unsafe { pgrx_extern_c_guard(move || check_access(access, object)) };
    }
}

fn check_access(access: ObjectAccessType::Type, object: Oid) {
    match access {
        ObjectAccessType::OAT_FUNCTION_EXECUTE => check(object),
        _ if in_force() => writes::check_relation(object),
        _ => {}
    }
}

/// Raises 42501 if the function must not be called in the database that the session is in.
pub fn check(function: Oid) {
    if !in_force() {
        return;
    }
    if function.to_u32() < pg_sys::FirstNormalObjectId {
        check_built_in(function);
    } else if let Some(proc) = Proc::find(function) {
        check_other(&proc);
    }
}

/// Functions of the server that were found to be harmless: their classes are the same in all databases.
struct Known([u64; pg_sys::FirstNormalObjectId as usize / 64]);

thread_local! {
    static HARMLESS: RefCell<Known> = const { RefCell::new(Known([0; _])) };
}

fn check_built_in(function: Oid) {
    let (word, bit) = (function.to_u32() as usize / 64, function.to_u32() % 64);
    if HARMLESS.with_borrow(|known| known.0[word] >> bit & 1 == 1) {
        return;
    }
    let Some(proc) = Proc::find(function) else {
        return;
    };
    match server::class(&proc.name()) {
        Some(Class::Refused(what)) => refuse(what),
        // A new version's, that nobody has looked at.
        None if proc.is_volatile() => refuse_call(&proc),
        Some(Class::Own | Class::Checked) | None => {}
    }
    HARMLESS.with_borrow_mut(|known| known.0[word] |= 1 << bit);
}

fn check_other(proc: &Proc) {
    match proc.language() {
        proc::SQL => {}
        // Another name for one of the server's.
        proc::INTERNAL => {
            if let Some(same) = proc.built_in() {
                check_built_in(same);
            }
        }
        proc::C => {
            let (Some(file), Some(symbol)) = (proc.file(), proc.source()) else {
                return;
            };
            let function = Function {
                file: &file,
                symbol: &symbol,
                name: &proc.name(),
                volatile: proc.is_volatile(),
                immutable: proc.is_immutable(),
            };
            if !libraries::may_be_called(&function) {
                refuse_call(proc);
            }
        }
        language => {
            // PL/pgSQL's handler is one of the server's.
            let handler = proc::handler(language)
                .filter(|handler| handler.to_u32() >= pg_sys::FirstNormalObjectId);
            let file = handler.and_then(Proc::find).and_then(|proc| proc.file());
            if file.is_some_and(|file| !libraries::language_may_be_called(&file)) {
                refuse_call(proc);
            }
        }
    }
}

fn refuse_call(proc: &Proc) -> ! {
    refuse(&format!("call {}()", proc.name()))
}
