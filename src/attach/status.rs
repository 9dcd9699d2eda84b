//! What others see of the session: its entry in `pg_stat_activity`, its process title, the name of the
//! database in its log lines.
#![allow(unsafe_code)] // shared state of backend_status.c, and the port

use pgrx::pg_sys;
use std::ffi::{c_char, CStr, CString};
use std::sync::atomic::{fence, Ordering};

/// `Port` of libpq-be.h, which pgrx does not bind, up to the user's name (PostgreSQL 15).
#[repr(C)]
struct Port {
    sock: i32,
    noblock: bool,
    proto: u32,
    laddr: pg_sys::SockAddr,
    raddr: pg_sys::SockAddr,
    remote_host: *mut c_char,
    remote_hostname: *mut c_char,
    remote_hostname_resolv: i32,
    remote_hostname_errcode: i32,
    remote_port: *mut c_char,
    can_accept: u32,
    database_name: *mut c_char,
    user_name: *mut c_char,
}

unsafe fn text(value: *const c_char) -> String {
    if value.is_null() {
        return String::new();
    }
    // SAFETY: a C string of the port.
    unsafe { CStr::from_ptr(value) }
        .to_string_lossy()
        .into_owned()
}

/// The name of the database that the session is in, as it came there.
pub fn database() -> CString {
    // SAFETY: this process's own port, if it has one.
    unsafe {
        let port = pg_sys::MyProcPort.cast::<Port>();
        if port.is_null() || (*port).database_name.is_null() {
            return CString::default();
        }
        CStr::from_ptr((*port).database_name).to_owned()
    }
}

/// Says that the session is in this database. `name` lives as long as the session; the last one is
/// freed.
pub fn tell(oid: pg_sys::Oid, name: *mut c_char) {
    // SAFETY: the port and the status entry are this process's own.
    unsafe {
        let entry = pg_sys::MyBEEntry;
        if !entry.is_null() {
            // The writer's side of backend_status.h's protocol: a reader that sees an odd count, or
            // another one after, reads again. Nothing can fail between the two.
            let count = &raw mut (*entry).st_changecount;
            count.write_volatile(count.read_volatile().wrapping_add(1));
            fence(Ordering::SeqCst);
            (&raw mut (*entry).st_databaseid).write_volatile(oid);
            fence(Ordering::SeqCst);
            count.write_volatile(count.read_volatile().wrapping_add(1));
        }
        let port = pg_sys::MyProcPort.cast::<Port>();
        if port.is_null() {
            // A background worker's title names no database.
            return pg_sys::pfree(name.cast());
        }
        let last = std::mem::replace(&mut (*port).database_name, name);
        pg_sys::pfree(last.cast());
        // As `BackendInitialize` (postmaster.c) has it.
        let (user, host, at) = (
            text((*port).user_name),
            text((*port).remote_host),
            text((*port).remote_port),
        );
        let at = if at.is_empty() { at } else { format!("({at})") };
        let title = format!("{user} {} {host}{at}", text(name));
        if let Ok(title) = CString::new(title) {
            pg_sys::init_ps_display(title.as_ptr());
        }
    }
}
