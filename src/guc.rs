//! The settings.
#![allow(unsafe_code)] // asks who calls

use pgrx::{pg_sys, GucContext, GucFlags, GucRegistry, GucSetting};
use std::time::Duration;

/// Forks that can exist at a time (restart needed).
pub static MAX_FORKS: GucSetting<i32> = GucSetting::<i32>::new(1000);
/// How long a cut tries to stop the source's backends, in milliseconds.
static CUT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(500);
/// As long as that at most for a caller who is no superuser, whatever the setting is: others wait for his tries.
const CUT_TIMEOUT_OF_OTHERS: i32 = 1000;
/// How long a cut may hold them once they have stopped, in milliseconds.
pub static MAX_PAUSE: GucSetting<i32> = GucSetting::<i32>::new(10);
/// The page-map cache, in kilobytes (restart needed).
pub static PAGE_MAP_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(64 * 1024);

/// The disk floor in megabytes; -1 for 5 % of the filesystem or 1 GB, whichever is less.
pub static MIN_FREE_DISK: GucSetting<i32> = GucSetting::<i32>::new(-1);

/// Whether standbys, and servers restored from the archive, have pg_fork loaded too (D13).
pub static STANDBYS_READY: GucSetting<bool> = GucSetting::<bool>::new(false);

/// How long the caller's cut may try to stop the source's backends.
pub fn cut_timeout() -> Duration {
    let wanted = CUT_TIMEOUT.get();
    // SAFETY: a look-up.
    let trusted = wanted <= CUT_TIMEOUT_OF_OTHERS || unsafe { pg_sys::superuser() };
    let allowed = if trusted {
        wanted
    } else {
        CUT_TIMEOUT_OF_OTHERS
    };
    Duration::from_millis(allowed as u64)
}

/// From `_PG_init`, in the postmaster.
pub fn register() {
    GucRegistry::define_int_guc(
        c"pg_fork.max_forks",
        c"Forks that can exist at a time.",
        c"Sizes the registry in shared memory.",
        &MAX_FORKS,
        1,
        100_000,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_fork.cut_timeout",
        c"How long fork_create tries to stop the source's backends.",
        c"Past it, fork_create fails and names the processes that did not answer. At most 1 s for roles that are no superusers.",
        &CUT_TIMEOUT,
        1,
        60_000,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_fork.max_pause",
        c"How long a cut may pause the source's backends once they have stopped.",
        c"",
        &MAX_PAUSE,
        1,
        10_000,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_fork.page_map_memory",
        c"Memory for the page maps' cache.",
        c"The page map files hold all of it; what does not fit is read again.",
        &PAGE_MAP_MEMORY,
        256,
        i32::MAX / 2,
        GucContext::Postmaster,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_fork.min_free_disk",
        c"Free disk space below which no forks are made, and the largest ones end.",
        c"-1 means 5 % of the filesystem or 1 GB, whichever is less.",
        &MIN_FREE_DISK,
        -1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_bool_guc(
        c"pg_fork.standbys_ready",
        c"All standbys, and all servers restored from backups, have pg_fork loaded.",
        c"A server without it stops at the first WAL record of a fork that it cannot replay.",
        &STANDBYS_READY,
        GucContext::Sighup,
        GucFlags::default(),
    );
}
