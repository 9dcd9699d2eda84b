//! Work shared among a few threads of this process, where it is no more than reading memory.
//!
//! PostgreSQL's processes have one thread, and its code runs in no other: the work calls none of it, raises
//! no error, and allocates with Rust's allocator only. The threads serve no signal, and end before the call does.
#![allow(unsafe_code)] // the signal mask

/// The most threads that share in some work.
const MOST: usize = 8;

/// How many processors there are, up to [`MOST`].
pub fn processors() -> usize {
    // SAFETY: no more than a question.
    let found = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    (found.max(1) as usize).min(MOST)
}

/// What each of the parts comes to, in order. The first is done here; where there can be no thread, all are.
pub fn share<R: Send>(parts: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let work = &work;
    std::thread::scope(|scope| {
        // A thread has the mask of who starts it.
        let threads: Vec<_> = with_signals_blocked(|| {
            let start = |part| {
                let thread = std::thread::Builder::new();
                (part, thread.spawn_scoped(scope, move || work(part)).ok())
            };
            (1..parts).map(start).collect()
        });
        let first = work(0);
        let rest = threads.into_iter().map(|(part, thread)| {
            let done = thread.and_then(|thread| thread.join().ok());
            done.unwrap_or_else(|| work(part))
        });
        std::iter::once(first).chain(rest).collect()
    })
}

fn with_signals_blocked<R>(what: impl FnOnce() -> R) -> R {
    // SAFETY: sets of our own; the mask is put back as it was.
    unsafe {
        let mut all = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = what();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        result
    }
}
