//! What a crash of a process costs prod: the server's start does not look through our folders.
//!
//! Before it replays WAL the server syncs each file of the data directory (fd.c, `SyncDataDirectory`), and goes
//! through each folder of a database, which it syncs, too (reinit.c, `ResetUnloggedRelations`). Thousands of forks
//! would make that minutes. So our folders cannot be listed until the worker runs, and a fork has no link in `base`
//! until someone needs it: replay of its own WAL, a session, at last the worker.
//!
//! What is not synced there the worker syncs, in its own time. Until it has, a note says so, and after a crash of the
//! machine all forks are invalid.

use crate::fork::files;
use crate::shmem::{self, registry};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Entries may be looked up and made, but not listed.
const HIDDEN: u32 = 0o300;
const SEEN: u32 = 0o700;

fn note() -> PathBuf {
    Path::new(files::ROOT).join("unsynced")
}

/// Whether files of ours may not be on disk, whatever the marks say.
pub fn is_unsynced() -> bool {
    note().exists()
}

fn set_modes(mode: u32) {
    for spc in files::tablespaces() {
        let root = files::root_dir(spc);
        if root.is_dir() {
            if let Err(error) = fs::set_permissions(&root, Permissions::from_mode(mode)) {
                pgrx::log!("pg_fork: could not change {}: {error}", root.display());
            }
        }
    }
}

/// In the postmaster, before anything of ours is looked for: what a start that was cut short has left.
pub fn show_folders() {
    set_modes(SEEN);
}

/// In the postmaster, after a crash, before recovery. The forks in `visible` have unlogged tables of their own, which
/// the server has to reset.
pub fn hide(visible: &BTreeSet<u32>) {
    let ours: Vec<u32> = registry::read(|table| table.iter().map(|slot| slot.oid).collect());
    let Some(shared) = shmem::shared().filter(|_| !ours.is_empty()) else {
        return;
    };
    // First the note, because what it says is true as soon as nobody can list the folders.
    let noted =
        files::write_durably(&note(), b"").and_then(|()| files::sync_dir(files::ROOT.as_ref()));
    if let Err(error) = noted {
        return pgrx::log!("pg_fork: could not write {}: {error}", note().display());
    }
    // Second that links are to be made, because who misses one asks for that.
    shared.hidden.store(1, Ordering::SeqCst);
    for oid in ours.iter().filter(|oid| !visible.contains(oid)) {
        let link = files::db_dir(*oid, files::DEFAULT_TABLESPACE);
        if link
            .symlink_metadata()
            .is_ok_and(|found| found.is_symlink())
        {
            let _ = fs::remove_file(link);
        }
    }
    set_modes(HIDDEN);
    // Whoever has looked at a fork before looks again, and makes its link.
    registry::change(|_| ());
}

/// Whether links may be missing.
#[inline]
pub fn are_hidden() -> bool {
    shmem::shared().is_some_and(|shared| shared.hidden.load(Ordering::Relaxed) != 0)
}

/// Makes the link of a fork or layer.
pub fn show(oid: u32) {
    if let Err(error) = files::link(oid) {
        pgrx::log!("pg_fork: could not make the link to the folder of {oid}: {error}");
    }
}

/// Makes all links, and lets the folders be listed. The worker, and whoever logs in before it has done so.
pub fn show_all() {
    if !are_hidden() {
        return;
    }
    let ours: Vec<u32> = registry::read(|table| table.iter().map(|slot| slot.oid).collect());
    for oid in ours {
        // A creation cut short, or a drop, need not have its folder.
        if files::real_dir(oid, files::DEFAULT_TABLESPACE).is_dir() {
            show(oid);
        }
    }
    set_modes(SEEN);
    if let Some(shared) = shmem::shared() {
        shared.hidden.store(0, Ordering::SeqCst);
    }
}

thread_local! {
    /// What is to be synced yet; not known before the first look.
    static LEFT: RefCell<Option<Vec<PathBuf>>> = const { RefCell::new(None) };
    static FAILED: Cell<bool> = const { Cell::new(false) };
}

/// How long the worker syncs before it looks what else there is to do: each sync is in the way of somebody's commit.
const SPELL: Duration = Duration::from_millis(100);

/// The worker: syncs what the server's start has left out. Whether that was all of it.
pub fn sync_some(until_done: bool) -> bool {
    if FAILED.get() || !is_unsynced() {
        return true;
    }
    let began = Instant::now();
    let mut left = LEFT.take().unwrap_or_else(all_files);
    while let Some(path) = left.pop() {
        match File::open(&path).and_then(|file| file.sync_all()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // The note stays.
                pgrx::log!("pg_fork: could not sync {}: {error}", path.display());
                FAILED.set(true);
            }
            _ => {}
        }
        if !until_done && began.elapsed() > SPELL {
            LEFT.set(Some(left));
            return false;
        }
    }
    if !FAILED.get() {
        crate::stop_point::at("restart-synced");
        let gone = fs::remove_file(note()).and_then(|()| files::sync_dir(files::ROOT.as_ref()));
        if let Err(error) = gone {
            pgrx::log!("pg_fork: could not remove {}: {error}", note().display());
        }
    }
    true
}

/// All files and folders of ours; a folder before what is in it, because it is synced after that.
fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for spc in files::tablespaces() {
        found.push(files::tablespace_dir(spc));
        let mut folders = vec![files::root_dir(spc)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(kind) if kind.is_file() => found.push(entry.path()),
                    _ => {}
                }
            }
            found.push(folder);
        }
    }
    found
}
