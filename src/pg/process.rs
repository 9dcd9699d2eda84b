//! What a process can say of itself and of the others.

use pgrx::pg_sys;
use std::collections::HashSet;
use std::ffi::{c_char, CStr};
use std::sync::atomic::{AtomicBool, Ordering};

/// The process's number among all, or `None` for one without a `PGPROC` (the postmaster).
pub fn my_number() -> Option<usize> {
    // SAFETY: MyProc is this process's own entry, or null.
    unsafe { (!pg_sys::MyProc.is_null()).then(|| (*pg_sys::MyProc).pgprocno as usize) }
}

/// The database that this process works in; 0 for none.
pub fn my_database() -> u32 {
    // SAFETY: as above.
    unsafe {
        if pg_sys::MyProc.is_null() {
            0
        } else {
            (*pg_sys::MyProc).databaseId.to_u32()
        }
    }
}

/// Whether this process may stop here: it holds no LWLock (each holds interrupts off) and is in
/// no critical section (I5).
pub fn may_stop() -> bool {
    // SAFETY: plain counters of this process.
    unsafe { pg_sys::InterruptHoldoffCount == 0 && pg_sys::CritSectionCount == 0 }
}

/// Whether an error here would take the server down.
pub fn in_critical_section() -> bool {
    // SAFETY: a plain counter of this process.
    unsafe { pg_sys::CritSectionCount > 0 }
}

/// Whether this process replays WAL.
pub fn in_recovery() -> bool {
    // SAFETY: a plain flag of this process.
    unsafe { pg_sys::InRecovery }
}

/// Where the next WAL record will go. Not in recovery.
pub fn wal_position() -> u64 {
    // SAFETY: reads shared state of xlog.c.
    unsafe { pg_sys::GetXLogInsertRecPtr() }
}

/// Whether the server is recovering, whichever process asks.
pub fn server_in_recovery() -> bool {
    // Asked for each block. Never set in the postmaster, whose children inherit it.
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    if IS_OVER.load(Ordering::Relaxed) {
        return false;
    }
    // SAFETY: reads shared memory until it says no once, a plain flag from then on.
    let recovers = unsafe { pg_sys::RecoveryInProgress() };
    if !recovers && my_number().is_some() {
        IS_OVER.store(true, Ordering::Relaxed);
    }
    recovers
}

/// A process of a database.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub number: usize,
    pub pid: i32,
    pub wait_event: u32,
}

impl Peer {
    /// What it is and what it does, for messages. Not in the pause.
    pub fn describe(&self) -> String {
        // SAFETY: names that live as long as the process; a copy of the backend's public entry, or null.
        let text = |name: *const c_char| match name.is_null() {
            true => None,
            false => Some(
                unsafe { CStr::from_ptr(name) }
                    .to_string_lossy()
                    .into_owned(),
            ),
        };
        // SAFETY: as above.
        let (kind, event, class) = unsafe {
            let mut entries = (1..=pg_sys::pgstat_fetch_stat_numbackends())
                .map(|n| pg_sys::pgstat_fetch_stat_beentry(n))
                .filter(|entry| !entry.is_null());
            let kind = match entries.find(|entry| (**entry).st_procpid == self.pid) {
                None => None,
                Some(entry) if (*entry).st_backendType == pg_sys::BackendType::B_BG_WORKER => {
                    text(pg_sys::GetBackgroundWorkerTypeByPid(self.pid))
                }
                Some(entry) => text(pg_sys::GetBackendTypeDesc((*entry).st_backendType)),
            };
            let event = text(pg_sys::pgstat_get_wait_event(self.wait_event));
            (
                kind,
                event,
                text(pg_sys::pgstat_get_wait_event_type(self.wait_event)),
            )
        };
        let kind = kind.unwrap_or_else(|| "process".into());
        match (class, event) {
            (Some(class), Some(event)) => {
                format!("{} ({kind}, waits for {class}/{event})", self.pid)
            }
            _ => format!("{} ({kind}, runs)", self.pid),
        }
    }
}

/// What a background worker was registered as.
pub struct Worker {
    pub name: String,
    pub library: String,
    pub function: String,
}

/// What this process is, if it is a background worker of a library that is none of these.
pub fn foreign_worker(ours: &[&CStr]) -> Option<Worker> {
    // SAFETY: plain variables of this process; names that end with a zero byte.
    unsafe {
        let worker = pg_sys::MyBgworkerEntry;
        if pg_sys::MyBackendType != pg_sys::BackendType::B_BG_WORKER || worker.is_null() {
            return None;
        }
        let text = |name: &[c_char]| CStr::from_ptr(name.as_ptr());
        let library = text(&(*worker).bgw_library_name);
        if ours.contains(&library) {
            return None;
        }
        Some(Worker {
            name: text(&(*worker).bgw_name).to_string_lossy().into_owned(),
            library: library.to_string_lossy().into_owned(),
            function: text(&(*worker).bgw_function_name)
                .to_string_lossy()
                .into_owned(),
        })
    }
}

/// The most processes that there can be.
pub fn max_processes() -> usize {
    // SAFETY: set before shared memory is; our callers run later.
    unsafe { (*pg_sys::ProcGlobal).allProcCount as usize }
}

/// The databases that some process works in. One that has just ended may count yet.
pub fn databases_in_use() -> HashSet<u32> {
    let database = |number: usize| {
        // SAFETY: the array lives as long as the server; a look without a lock, which decides nothing for good.
        let (pid, db) = unsafe {
            let proc = (*pg_sys::ProcGlobal).allProcs.add(number);
            (
                std::ptr::read_volatile(&raw const (*proc).pid),
                std::ptr::read_volatile(&raw const (*proc).databaseId),
            )
        };
        // SAFETY: looks the pid up under ProcArrayLock.
        let lives = || !unsafe { pg_sys::BackendPidGetProc(pid) }.is_null();
        (pid != 0 && db.to_u32() != 0 && lives()).then(|| db.to_u32())
    };
    (0..max_processes()).filter_map(database).collect()
}

/// The processes that work in `database`, but this one. Prepared transactions have no process.
pub fn peers_in(database: u32) -> Vec<Peer> {
    let mut peers = Vec::new();
    for number in 0..max_processes() {
        // SAFETY: the array lives as long as the server; the fields are read without a lock on
        // purpose: who comes meanwhile is stopped when it opens its first relation.
        let (pid, db, wait_event, me) = unsafe {
            let proc = (*pg_sys::ProcGlobal).allProcs.add(number);
            (
                std::ptr::read_volatile(&raw const (*proc).pid),
                std::ptr::read_volatile(&raw const (*proc).databaseId),
                std::ptr::read_volatile(&raw const (*proc).wait_event_info),
                proc == pg_sys::MyProc,
            )
        };
        // A process that has ended leaves its entry as it was (proc.c, `ProcKill`), but leaves the
        // ProcArray, after which it changes no page.
        // SAFETY: looks the pid up under ProcArrayLock.
        let lives = || unsafe {
            pg_sys::BackendPidGetProc(pid) == (*pg_sys::ProcGlobal).allProcs.add(number)
        };
        if pid != 0 && db.to_u32() == database && !me && lives() {
            peers.push(Peer {
                number,
                pid,
                wait_event,
            });
        }
    }
    peers
}
