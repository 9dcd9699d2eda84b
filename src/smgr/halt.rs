//! How a process of the source stops for a cut where the signal arrives (D25).
//!
//! A process in foreign code (PL/Python, a library's loop, a wait of another extension), or in a COPY that waits for
//! its client, absorbs no barrier for seconds. But SIGUSR1 reaches it at once. Whoever changes a page holds a
//! lightweight lock or is in a critical section; so a process that does neither may as well sleep in the signal's
//! handler until the cut is done. The server's own handler runs after that, as ever.
//!
//! What makes it right:
//! 1. Interrupts are not held off, no critical section is open, no lightweight lock is held by its own list either (an
//!    error lets go of the first two before the third), and this is the process's own main thread.
//! 2. Nobody comes to the database meanwhile ([`crate::fork::gate`]).
//! 3. No other signal is served in the handler, but SIGQUIT and faults: one may end the process.
//! 4. It leaves by itself at a deadline, because it may hold a spinlock that others wait for; it says so before
//!    it goes, and the cut counts only if nobody has said so until its end.
//! 5. Nobody stops who delays checkpoints, nor within our own callbacks that change files: what those have found
//!    out of layers and lengths must hold until they are done.
//! 6. The cutter waits for no buffer header without bound ([`crate::fork::capture`]).
//!
//! The handler calls nothing that allocates, locks or raises an error.
#![allow(unsafe_code)] // a signal handler

use crate::shmem;
use pgrx::pg_sys;
use std::ffi::{c_int, c_void};
use std::ptr::addr_of;
use std::sync::atomic::{compiler_fence, AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// What the cutter and those that stop here share.
#[repr(C)]
pub struct Halt {
    /// The number of the cut that asks for it, or 0. Those that stopped sleep on this word (futex).
    pub wanted: AtomicU32,
    /// Numbers given so far.
    pub last: AtomicU32,
    /// Until when, by the machine's clock in nanoseconds.
    pub until: AtomicU64,
}

extern "C" {
    /// procsignal.c
    fn procsignal_sigusr1_handler(signal: c_int);
}

/// lwlock.c, `ForEachLWLockHeldByMe`. Minors before 15.18 lack it, so it is looked up.
type ForEachLock = unsafe extern "C" fn(
    unsafe extern "C" fn(*mut pg_sys::LWLock, c_int, *mut c_void),
    *mut c_void,
);

static FOR_EACH_LOCK: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// Within a callback that changes files.
static BUSY: AtomicBool = AtomicBool::new(false);

/// From here until [`leave`] this process does not stop where a signal arrives. An error may jump over that: the end
/// of the transaction makes up for it.
#[inline]
pub fn enter() {
    BUSY.store(true, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
}

#[inline]
pub fn leave() {
    compiler_fence(Ordering::SeqCst);
    BUSY.store(false, Ordering::Relaxed);
}

/// Nanoseconds since the machine's start; the same for all processes.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes to `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Puts our handler before the server's, if the server's is there: when the process has come to a database, and each
/// time it absorbs a barrier, because code of others may have put it back.
pub fn install() {
    // SAFETY: asks and sets this process's action. The name is the server's own function's.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let servers = procsignal_sigusr1_handler as *const () as usize;
        if libc::sigaction(libc::SIGUSR1, std::ptr::null(), &mut action) != 0
            || action.sa_sigaction != servers
        {
            return;
        }
        let found = libc::dlsym(libc::RTLD_DEFAULT, c"ForEachLWLockHeldByMe".as_ptr());
        if found.is_null() {
            return;
        }
        FOR_EACH_LOCK.store(found, Ordering::Relaxed);
        action.sa_sigaction = handler as *const () as usize;
        libc::sigfillset(&mut action.sa_mask);
        for signal in [
            libc::SIGQUIT,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGABRT,
            libc::SIGTRAP,
        ] {
            libc::sigdelset(&mut action.sa_mask, signal);
        }
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
    }
}

/// Any thread of any process with a database, at any instruction.
unsafe extern "C" fn handler(signal: c_int) {
    // SAFETY: what the calls of a handler change besides; the server's handler with its own argument.
    unsafe {
        let number = *libc::__errno_location();
        sleep_through_cut();
        *libc::__errno_location() = number;
        procsignal_sigusr1_handler(signal);
    }
}

unsafe extern "C" fn note(_lock: *mut pg_sys::LWLock, _mode: c_int, found: *mut c_void) {
    // SAFETY: `may_sleep`'s own variable.
    unsafe { *found.cast::<bool>() = true };
}

/// Whether this process may stop at this very instruction.
unsafe fn may_sleep(proc: *mut pg_sys::PGPROC) -> bool {
    // SAFETY: plain variables of this process, read as they are in memory; its own entry.
    unsafe {
        let (me, pid) = (libc::getpid(), addr_of!(pg_sys::MyProcPid).read_volatile());
        if me != pid || libc::syscall(libc::SYS_gettid) != i64::from(me) {
            return false;
        }
        if addr_of!(pg_sys::InterruptHoldoffCount).read_volatile() != 0
            || addr_of!(pg_sys::CritSectionCount).read_volatile() != 0
            || addr_of!((*proc).delayChkptFlags).read_volatile() != 0
            || BUSY.load(Ordering::Relaxed)
        {
            return false;
        }
        let each = FOR_EACH_LOCK.load(Ordering::Relaxed);
        if each.is_null() {
            return false;
        }
        let each: ForEachLock = std::mem::transmute(each);
        let mut holds = false;
        each(note, (&raw mut holds).cast());
        !holds
    }
}

/// Sleeps until the cut of this process's database is done, if there is one and this process may.
unsafe fn sleep_through_cut() {
    let Some(shared) = shmem::shared() else {
        return;
    };
    let halt = &shared.halt;
    let wanted = halt.wanted.load(Ordering::SeqCst);
    if wanted == 0 {
        return;
    }
    // SAFETY: this process's own entry, or null.
    unsafe {
        let proc = addr_of!(pg_sys::MyProc).read_volatile();
        if proc.is_null() {
            return;
        }
        let db = addr_of!((*proc).databaseId).read_volatile().to_u32();
        let number = addr_of!((*proc).pgprocno).read_volatile() as usize;
        let Some(flag) = shmem::halted_flag(number) else {
            return;
        };
        if db == 0 || db != shared.cut_db.load(Ordering::SeqCst) || !may_sleep(proc) {
            return;
        }
        if now() >= halt.until.load(Ordering::SeqCst) {
            return;
        }
        flag.store(wanted, Ordering::SeqCst);
        while halt.wanted.load(Ordering::SeqCst) == wanted {
            let left = halt.until.load(Ordering::SeqCst).saturating_sub(now());
            if left == 0 {
                break;
            }
            let time = libc::timespec {
                tv_sec: (left / 1_000_000_000) as libc::time_t,
                tv_nsec: (left % 1_000_000_000) as libc::c_long,
            };
            libc::syscall(
                libc::SYS_futex,
                halt.wanted.as_ptr(),
                libc::FUTEX_WAIT,
                wanted,
                &time,
            );
        }
        // Before the first step that it takes: the cutter looks at the end.
        flag.store(0, Ordering::SeqCst);
    }
}

/// A cut asks the source's processes to stop where the signal arrives, until this is dropped. Its process holds the
/// cut's lock exclusively: there is one at a time.
pub struct Halting(u32);

impl Halting {
    /// They leave by themselves after so long.
    pub fn begin(longest: std::time::Duration) -> Option<Self> {
        let halt = &shmem::shared()?.halt;
        let number = match halt.last.fetch_add(1, Ordering::SeqCst).wrapping_add(1) {
            0 => halt.last.fetch_add(1, Ordering::SeqCst).wrapping_add(1),
            number => number,
        };
        let until = now() + longest.as_nanos() as u64;
        halt.until.store(until, Ordering::SeqCst);
        halt.wanted.store(number, Ordering::SeqCst);
        Some(Halting(number))
    }

    pub fn number(&self) -> u32 {
        self.0
    }

    /// Sends the signal to a process's main thread: to the process, another thread might serve it.
    pub fn ask(&self, pid: i32) {
        // SAFETY: SIGUSR1 means nothing without a reason in shared memory (procsignal.c).
        unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGUSR1) };
    }
}

impl Drop for Halting {
    fn drop(&mut self) {
        if let Some(shared) = shmem::shared() {
            shared.halt.wanted.store(0, Ordering::SeqCst);
            // SAFETY: a word of ours.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    shared.halt.wanted.as_ptr(),
                    libc::FUTEX_WAKE,
                    i32::MAX,
                )
            };
        }
    }
}
