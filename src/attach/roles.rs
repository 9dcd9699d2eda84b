//! Who is `pg_database_owner` depends on the database. acl.c keeps the roles that the user is a member
//! of, and forgets them when the row of the login's database changes; here, of any.
#![allow(unsafe_code)] // a callback that C calls

use pgrx::pg_guard;
use pgrx::pg_sys;
use std::cell::Cell;
use std::sync::Once;

thread_local! {
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Once for each session that attaches.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a function that lives as long as the process; inval.c has room for 64.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(
                pg_sys::SysCacheIdentifier::DATABASEOID as i32,
                Some(changed),
                pg_sys::Datum::from(0),
            );
        }
    });
}

/// A row of pg_database has changed. Hash value 0 tells every callback that all rows may have.
#[pg_guard]
unsafe extern "C-unwind" fn changed(_arg: pg_sys::Datum, cache: i32, hash: u32) {
    if hash == 0 || BUSY.replace(true) {
        return;
    }
    // SAFETY: what inval.c does for each message; callbacks only mark caches.
    unsafe { pg_sys::CallSyscacheCallbacks(cache, 0) };
    BUSY.set(false);
}
