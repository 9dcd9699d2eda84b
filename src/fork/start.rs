//! What a start of the server finds: whether it ran without the library meanwhile, whether the
//! machine crashed, whether it is a copy of another server.
//!
//! PostgreSQL removes files named `pgsql_tmp…` in `base/pgsql_tmp` at each start (fd.c,
//! `RemovePgTempFiles`), with the library or without; only the library puts its witness back.

use crate::fork::{catalog, files, marks, pending, restart, rows, unlogged};
use crate::shmem::load::{self, invalidate};
use crate::shmem::pagemap;
use crate::shmem::registry::{self, ForkState};
use crate::smgr::{captured, handles, settle};
use pg_fork_core::format::server::Server;
use pgrx::pg_sys::{ControlFileData, DBState};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set in the postmaster by its first start; a crash of a backend makes it start again.
static BEGUN: AtomicBool = AtomicBool::new(false);
/// Set in the startup process once it has noted that the server runs.
static NOTED: AtomicBool = AtomicBool::new(false);

/// What we need of `pg_control`.
pub struct Control {
    pub shut_down: bool,
    /// Where the last checkpoint's record is, and where replay from it begins.
    pub checkpoint: u64,
    pub redo: u64,
}

impl Control {
    /// Reads `pg_control`, whose layout the server's own headers tell.
    pub fn read() -> io::Result<Control> {
        let bytes = fs::read("global/pg_control")?;
        let word = |at: usize| -> io::Result<u64> {
            let bytes = bytes.get(at..at + 8).ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(bytes
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)))
        };
        let state = word(offset_of!(ControlFileData, state))? as u32;
        Ok(Control {
            shut_down: [DBState::DB_SHUTDOWNED, DBState::DB_SHUTDOWNED_IN_RECOVERY]
                .contains(&state),
            checkpoint: word(offset_of!(ControlFileData, checkPoint))?,
            redo: word(offset_of!(ControlFileData, checkPointCopy))?,
        })
    }
}

fn server_file() -> PathBuf {
    Path::new(files::ROOT).join("server")
}

fn read_server() -> Option<Server> {
    Server::decode(&fs::read(server_file()).ok()?).ok()
}

fn write_server(server: &Server) -> io::Result<()> {
    files::make_root()?;
    let new = Path::new(files::ROOT).join("server.new");
    files::write_durably(&new, &server.encode())?;
    fs::rename(new, server_file())?;
    files::sync_dir(files::ROOT.as_ref())
}

fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16).map(|d| d as u8))
        .collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    id
}

/// In the postmaster, before recovery: at the server's start, and after each crash of a backend.
pub fn begin() {
    let first = !BEGUN.swap(true, Ordering::Relaxed);
    let copy = ["standby.signal", "recovery.signal"]
        .iter()
        .any(|f| Path::new(f).exists());
    if copy && first {
        forget_all_forks();
    }
    load::load();
    for (fork, _) in registry::all_forks() {
        if let Err(error) = files::link_version(fork.oid, fork.tablespace) {
            pgrx::log!(
                "pg_fork: nobody can connect to the fork with OID {}: {error}",
                fork.oid
            );
        }
    }
    let control = match Control::read() {
        Ok(control) => control,
        // The server will not start without it either.
        Err(error) => return pgrx::log!("pg_fork: could not read pg_control: {error}"),
    };
    if !copy {
        let found = read_server();
        if first {
            judge(&control, found);
        }
        let server = Server {
            running: false,
            settled: found.is_some_and(|found| found.settled),
            boot: boot_id(),
            checkpoint: control.checkpoint,
        };
        if let Err(error) = write_server(&server) {
            pgrx::log!(
                "pg_fork: could not write {}: {error}",
                server_file().display()
            );
        }
    }
    if !control.shut_down {
        restart::hide(&unlogged::reset_all());
    }
    // Its children must not inherit descriptors, nor what is kept by the numbers of spaces.
    handles::forget_all();
    captured::forget_all();
    settle::forget_all();
    pagemap::forget_seen();
}

/// A standby, or a server that recovers from an archive, has no forks: those on disk are of another
/// life of it, and its source's files may become other ones (D13).
fn forget_all_forks() {
    for meta in files::read_metas() {
        pgrx::log!(
            "pg_fork: removing the fork or layer with OID {}: this server recovers as a copy",
            meta.oid
        );
        files::remove(meta.oid, true);
    }
    let _ = fs::remove_file(server_file());
}

fn judge(control: &Control, found: Option<Server>) {
    let forks = registry::all_forks();
    if forks.is_empty() {
        return;
    }
    let foreign = match found {
        Some(server) if server.running => !files::witness().exists(),
        // It was ended before it had put its witness back. Any other start that wrote something has
        // made a checkpoint since.
        Some(server) => server.checkpoint != control.checkpoint,
        None => true,
    };
    let machine = found.is_some_and(|server| server.boot != boot_id()) && !control.shut_down;
    for (fork, _) in &forks {
        if foreign {
            invalidate(fork.oid, "the server ran without pg_fork meanwhile");
        } else if machine && (restart::is_unsynced() || marks::any(fork.oid)) {
            let reason = "the machine crashed before all that the fork rests on was on disk";
            invalidate(fork.oid, reason);
        }
    }
}

/// From the startup process, before the first block is replayed, and from the worker: the server
/// runs with the library.
pub fn note_running(settled: bool) {
    if !settled && NOTED.swap(true, Ordering::Relaxed) {
        return;
    }
    let note = || {
        let forks = registry::all_forks();
        let spaces: BTreeSet<u32> = forks.iter().map(|(fork, _)| fork.tablespace).collect();
        // First the witness, because a note without it tells of a start without the library. Where there is no
        // fork to lose, fork_create puts it there.
        if !forks.is_empty() {
            files::ensure_version_file(files::DEFAULT_TABLESPACE)?;
            files::sync_witness()?;
        }
        // Only where a fork needs it, because a tablespace that has it looks used.
        for spc in spaces {
            if let Err(error) = files::ensure_version_file(spc) {
                pgrx::log!("pg_fork: nobody can connect to forks in tablespace {spc}: {error}");
            }
        }
        let Some(mut server) = read_server() else {
            return Ok(());
        };
        server.running = true;
        server.settled |= settled;
        write_server(&server)
    };
    if let Err(error) = note() {
        pgrx::log!("pg_fork: could not note that the server runs: {error}");
    }
}

/// In the worker's transaction, after recovery: a fork lives if and only if its row does, and the
/// other way around. Returns a database in which to remove rows of forks that are not here, if there
/// are such: that needs catalogs which a process of no database cannot open.
pub fn settle() -> Option<u32> {
    for (fork, _) in registry::all_forks() {
        let decided = matches!(fork.state, ForkState::Ready | ForkState::Invalid);
        if decided && catalog::database_name(fork.oid).is_none() {
            pgrx::log!(
                "pg_fork: removing the fork with OID {}: it has no row in pg_database",
                fork.oid
            );
            pending::abandon(fork.oid);
        }
    }
    let lost = strangers();
    let ours = read_server().is_some_and(|server| server.settled);
    if ours {
        for oid in &lost {
            load::insert_lost(*oid, "its files were lost when the machine crashed");
        }
    }
    if read_server().is_none() {
        let server = Server {
            boot: boot_id(),
            ..Server::default()
        };
        if let Err(error) = write_server(&server) {
            pgrx::log!(
                "pg_fork: could not write {}: {error}",
                server_file().display()
            );
        }
    }
    if ours || lost.is_empty() {
        return None;
    }
    rows::database_to_work_in()
}

/// The databases that are labelled as forks but are not in the registry.
fn strangers() -> Vec<u32> {
    let mut labelled = rows::labelled();
    labelled.retain(|oid| registry::slot(*oid).is_none());
    labelled
}

/// In a transaction, in some database: on a promoted standby, or a restored server, forks ended with
/// the server that had them.
pub fn remove_strangers() {
    for oid in strangers() {
        pgrx::log!("pg_fork: removing the row of the fork with OID {oid}: it is not here");
        catalog::lock_for_drop(oid);
        rows::remove(oid);
    }
}
