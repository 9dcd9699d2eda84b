//! The directories of forks and layers, and the `meta` file in each (D10).
//!
//! All paths are relative to the data directory, which every server process works in.

use crate::pg::disk;
use pg_fork_core::format::meta::Meta;
use pg_fork_core::types::{RelFork, HANDED};
use pgrx::pg_sys;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{symlink, DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The folder of all that is ours. Base backups skip names with this beginning (basebackup.c,
/// `sendDir`, `PG_TEMP_FILE_PREFIX`).
pub const ROOT: &str = "pgsql_tmp_pg_fork";
/// The tablespace `pg_default`.
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// The name that a fork's `PG_VERSION` links to. `RemovePgTempFiles` (fd.c) removes it at each start
/// of a server, with the library or without, and only the library puts it back.
const VERSION_FILE: &str = "pgsql_tmp/pgsql_tmp_pg_fork_PG_VERSION";

/// How the names of our own files in a fork's or layer's folder begin. pg_checksums and the like, which
/// follow the link in `base`, pass over such names.
pub const OUR_PREFIX: &str = "pgsql_tmp_";
const MAP_PREFIX: &str = "pgsql_tmp_map_";
/// What a folder is: the file that each has.
pub const META: &str = "pgsql_tmp_meta";

/// The pages that a layer's cut found dirty in memory ([`crate::fork::capture`]).
const CAPTURED: &str = "pgsql_tmp_captured";

/// The name in a folder of the link that leads to it. Nobody follows it there.
const LINK: &str = "pgsql_tmp_link";

/// The segment number that stands for the page map file.
pub const MAP_SEGMENT: u32 = 2_147_483_647;
/// What is added to the segment numbers of handed-over files.
pub const HANDED_SEGMENT: u32 = 1 << 30;
/// What is added to the segment numbers of init forks.
const INIT_SEGMENT: u32 = 1 << 29;

/// Blocks in a segment (`RELSEG_SIZE`).
pub const SEGMENT_BLOCKS: u32 = pg_sys::RELSEG_SIZE;

/// Where databases lie in a tablespace.
pub fn tablespace_dir(spc: u32) -> PathBuf {
    if spc == DEFAULT_TABLESPACE {
        "base".into()
    } else {
        format!("pg_tblspc/{spc}/PG_15_{}", pg_sys::CATALOG_VERSION_NO).into()
    }
}

/// The folder of a database, fork or layer in a tablespace (`GetDatabasePath`).
pub fn db_dir(oid: u32, spc: u32) -> PathBuf {
    tablespace_dir(spc).join(oid.to_string())
}

/// Where the folders of forks and layers are in a tablespace.
pub fn root_dir(spc: u32) -> PathBuf {
    match spc {
        DEFAULT_TABLESPACE => ROOT.into(),
        _ => tablespace_dir(spc).join(ROOT),
    }
}

/// The real folder behind a fork's or layer's link, in a tablespace.
pub fn real_dir(oid: u32, spc: u32) -> PathBuf {
    root_dir(spc).join(oid.to_string())
}

/// The relation fork and segment number under which md's file tags reach a file of data.
///
/// Nothing of ours but a fork's own init fork may be called `_init`: `ResetUnloggedRelations`
/// (reinit.c) takes it for one after a crash, and copies it over the main fork. So what layers keep of
/// init forks goes by numbers of the main fork.
pub fn segment_number(oid: u32, rel: RelFork, segment: u32) -> (u8, u32) {
    let fork = rel.fork & 3;
    let handed = rel.fork & HANDED != 0;
    let init = fork == 3 && (handed || is_layer_dir(oid));
    let number = segment + u32::from(handed) * HANDED_SEGMENT + u32::from(init) * INIT_SEGMENT;
    (if init { 0 } else { fork }, number)
}

/// Whether the folder is a layer's. Asked for init forks only; a layer is not in the registry yet
/// while its cut is taken, a fork always is.
fn is_layer_dir(oid: u32) -> bool {
    let is_fork = crate::shmem::registry::slot(oid).is_some_and(|slot| !slot.is_layer());
    !is_fork && real_dir(oid, DEFAULT_TABLESPACE).exists()
}

/// The file of the pages that were captured at a layer's cut.
pub fn captured_path(layer: u32) -> PathBuf {
    real_dir(layer, DEFAULT_TABLESPACE).join(CAPTURED)
}

/// The relation fork whose map file this is.
pub fn parse_map(spc: u32, name: &str) -> Option<RelFork> {
    let (rel, fork) = name.strip_prefix(MAP_PREFIX)?.split_once('_')?;
    Some(RelFork {
        spc,
        rel: rel.parse().ok()?,
        fork: fork.parse().ok()?,
    })
}

/// Whether the fork has blocks of a main relation fork: a file of its own, or a map that tells of some.
pub fn has_main_blocks(fork: u32) -> bool {
    let is_main = |spc: u32, name: &str| match parse_map(spc, name) {
        Some(rel) => rel.fork == 0,
        None => name.starts_with(|c: char| c.is_ascii_digit()) && !name.contains('_'),
    };
    tablespaces().into_iter().any(|spc| {
        let entries = fs::read_dir(real_dir(fork, spc)).into_iter().flatten();
        let mut names = entries.flatten().map(|entry| entry.file_name());
        names.any(|name| name.to_str().is_some_and(|name| is_main(spc, name)))
    })
}

/// The relation whose init fork, or what a layer keeps of it, this file holds.
pub fn parse_init(name: &str) -> Option<u32> {
    if let Some(rel) = name.strip_suffix("_init") {
        return rel.parse().ok();
    }
    if let Some(rel) = parse_map(0, name) {
        return (rel.fork & 3 == 3).then_some(rel.rel);
    }
    let (rel, number) = name.split_once('.')?;
    let number: u32 = number.parse().ok()?;
    (number & INIT_SEGMENT != 0)
        .then(|| rel.parse().ok())
        .flatten()
}

/// The path of a segment, or of the map file, of a relation (`GetRelationPath`, `_mdfd_segpath`).
pub fn segment_path(oid: u32, rel: RelFork, segment: u32) -> PathBuf {
    if rel == RelFork::CAPTURED {
        return captured_path(oid);
    }
    if segment == MAP_SEGMENT {
        let name = format!("{MAP_PREFIX}{}_{}", rel.rel, rel.fork);
        return dir_of(oid, rel.spc).join(name);
    }
    let (fork, number) = segment_number(oid, rel, segment);
    numbered_path(oid, RelFork { fork, ..rel }, number)
}

/// The folder of a database, and of what is ours without the link, which is not there yet when recovery begins
/// ([`crate::fork::restart`]).
fn dir_of(oid: u32, spc: u32) -> PathBuf {
    match crate::shmem::registry::slot(oid) {
        Some(_) => real_dir(oid, spc),
        None => db_dir(oid, spc),
    }
}

/// The path of a segment by the fork and number that md's file tags have.
pub fn numbered_path(oid: u32, rel: RelFork, number: u32) -> PathBuf {
    let suffix = ["", "_fsm", "_vm", "_init"][usize::from(rel.fork)];
    let mut name = format!("{}{suffix}", rel.rel);
    if number > 0 {
        name.push_str(&format!(".{number}"));
    }
    dir_of(oid, rel.spc).join(name)
}

/// Makes the fork's or layer's folder in a tablespace, and the link to it. Made already: fine.
///
/// The link is made in the folder, which is this caller's alone, and gets its name in `base` after that:
/// there nobody waits while another's inode is looked for.
pub fn ensure_dir(oid: u32, spc: u32) -> io::Result<()> {
    crate::stop_point::io("make-dir")?;
    let real = real_dir(oid, spc);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&real)?;
    if spc == DEFAULT_TABLESPACE {
        return link(oid);
    }
    let link = db_dir(oid, spc);
    // Elsewhere the folder must be empty when nothing of the database's is left in the tablespace.
    match symlink(format!("{ROOT}/{oid}"), link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes the link in `base` to a fork's or layer's folder, which is there. Made already: fine.
pub fn link(oid: u32) -> io::Result<()> {
    let make = |path: &Path| symlink(format!("../{ROOT}/{oid}"), path);
    let first = real_dir(oid, DEFAULT_TABLESPACE).join(LINK);
    link_or(&first, &db_dir(oid, DEFAULT_TABLESPACE), make)
}

/// Makes the file that forks' `PG_VERSION` points at, in the tablespace of the fork.
pub fn ensure_version_file(spc: u32) -> io::Result<()> {
    let path = tablespace_dir(spc).join(VERSION_FILE);
    if path.exists() {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    fs::write(path, "15\n")
}

/// Makes the link `PG_VERSION` in a fork's folder, if it is not there.
pub fn link_version(oid: u32, spc: u32) -> io::Result<()> {
    let up = if spc == DEFAULT_TABLESPACE {
        "../../base"
    } else {
        "../.."
    };
    let real = real_dir(oid, spc);
    let first = real.with_file_name("PG_VERSION");
    link_or(&first, &real.join("PG_VERSION"), |path| {
        symlink(format!("{up}/{VERSION_FILE}"), path)
    })
}

/// Makes `path` a hard link to `first`, which is made first if it is not there: to find a free inode
/// is most of what a new file costs. Where the filesystem has no (more) hard links to it, `path` is
/// made as `first` is. There already: fine.
pub fn link_or(
    first: &Path,
    path: &Path,
    make: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let there = |made: io::Result<()>| match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    let mut linked = fs::hard_link(first, path);
    if matches!(&linked, Err(error) if error.kind() == io::ErrorKind::NotFound) {
        there(make(first))?;
        linked = fs::hard_link(first, path);
    }
    there(linked).or_else(|_| there(make(path)))
}

/// Removes the links `PG_VERSION` of all forks: pg_checksums takes a link for a folder. Needs no shared
/// memory.
pub fn unlink_versions() {
    for spc in tablespaces() {
        let entries = fs::read_dir(root_dir(spc));
        for entry in entries.into_iter().flatten().flatten() {
            let link = entry.path().join("PG_VERSION");
            if link
                .symlink_metadata()
                .is_ok_and(|found| found.is_symlink())
            {
                let _ = fs::remove_file(link);
            }
        }
    }
}

/// Makes the folder of all that is ours. Folders come and go in it all the time: they should not all lie
/// where the inodes of those before them were.
pub fn make_root() -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(ROOT)?;
    disk::spread(Path::new(ROOT));
    Ok(())
}

/// The file that tells whether the server was started with the library ([`crate::fork::start`]).
pub fn witness() -> PathBuf {
    tablespace_dir(DEFAULT_TABLESPACE).join(VERSION_FILE)
}

/// Removes what is in `base/pgsql_tmp` and its like of ours. While there is no fork.
pub fn remove_witness() {
    for spc in tablespaces() {
        let _ = fs::remove_file(tablespace_dir(spc).join(VERSION_FILE));
    }
}

/// Makes the witness durable, if it is there.
pub fn sync_witness() -> io::Result<()> {
    let path = witness();
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?.sync_all()?,
    }
    let base = tablespace_dir(DEFAULT_TABLESPACE);
    sync_dir(path.parent().unwrap_or(&base))?;
    sync_dir(&base)
}

/// Makes a fork's or layer's folder durable, with the files that it has from the beginning, but for
/// its place among the others ([`sync_places`]).
pub fn sync_folder(oid: u32, spc: u32) -> io::Result<()> {
    for spc in BTreeSet::from([spc, DEFAULT_TABLESPACE]) {
        let real = real_dir(oid, spc);
        for name in [META, "pg_filenode.map", CAPTURED] {
            match File::open(real.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => file?.sync_all()?,
            }
        }
        if real.exists() {
            sync_dir(&real)?;
        }
    }
    Ok(())
}

/// Makes the folders and links that were made in these tablespaces, and in the default one, durable.
pub fn sync_places(mut spaces: BTreeSet<u32>) -> io::Result<()> {
    // The first fork has put it there.
    sync_witness()?;
    spaces.insert(DEFAULT_TABLESPACE);
    for spc in spaces {
        let root = root_dir(spc);
        if root.exists() {
            sync_dir(&root)?;
        }
        sync_dir(&tablespace_dir(spc))?;
    }
    Ok(())
}

/// Writes a file that only the server may read.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    open_private(path)?.write_all(bytes)
}

fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true);
    options.mode(0o600).open(path)
}

/// Writes a file and makes it durable.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = open_private(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
/// Makes a folder's entries durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes the `meta` file: a new one, renamed over the old. If `durable`, both are synced.
pub fn write_meta(meta: &Meta, durable: bool) -> io::Result<()> {
    crate::stop_point::io("write-meta")?;
    let dir = real_dir(meta.oid, DEFAULT_TABLESPACE);
    let new = dir.join("pgsql_tmp_meta.new");
    if durable {
        write_durably(&new, &meta.encode())?;
    } else {
        write_private(&new, &meta.encode())?;
    }
    fs::rename(new, dir.join(META))?;
    if durable {
        sync_dir(&dir)?;
    }
    Ok(())
}

/// Reads one `meta` file.
pub fn read_meta(oid: u32) -> io::Result<Meta> {
    let bytes = fs::read(real_dir(oid, DEFAULT_TABLESPACE).join(META))?;
    Meta::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes the `meta` file where there may be no room for a new one: then in the old one, with the reason that is
/// there.
fn rewrite_meta(meta: &Meta, durable: bool) -> io::Result<()> {
    write_meta(meta, durable).or_else(|_| {
        let path = real_dir(meta.oid, DEFAULT_TABLESPACE).join(META);
        // As long as before. What is half written cannot be read, so nobody trusts it.
        let reason = read_meta(meta.oid)?.reason;
        let same = Meta {
            reason,
            ..meta.clone()
        };
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.write_all(&same.encode())?;
        if durable {
            file.sync_all()?;
        }
        Ok(())
    })
}

/// Writes a dropped fork's tombstone. Where there is no room, its folder is to be one without a `meta` file: that
/// says as much.
pub fn write_tombstone(meta: &Meta, durable: bool) -> io::Result<()> {
    rewrite_meta(meta, durable).or_else(|_| {
        let dir = real_dir(meta.oid, DEFAULT_TABLESPACE);
        match fs::remove_file(dir.join(META)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match durable {
            true => sync_dir(&dir),
            false => Ok(()),
        }
    })
}

/// Notes on disk that a fork is invalid; where that fails, by removing its `meta` file.
pub fn note_invalid(oid: u32, reason: &str) {
    let path = real_dir(oid, DEFAULT_TABLESPACE).join(META);
    let noted = read_meta(oid).and_then(|mut meta| {
        meta.state = pg_fork_core::format::meta::State::Invalid;
        meta.reason = reason.into();
        rewrite_meta(&meta, true)
    });
    match noted {
        Ok(()) => {}
        // A fork that is being made: its creation fails.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            pgrx::log!("pg_fork: could not note that the fork with OID {oid} is invalid: {error}");
            removed(fs::remove_file(&path), &path);
        }
    }
}

/// All readable `meta` files. A folder without one is a fork_create cut short: removed, and said so.
pub fn read_metas() -> Vec<Meta> {
    let mut metas = Vec::new();
    for entry in fs::read_dir(ROOT).into_iter().flatten().flatten() {
        let Some(oid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        match read_meta(oid) {
            Ok(meta) if meta.oid == oid => metas.push(meta),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                pgrx::log!("pg_fork: removing {ROOT}/{oid}: it was not finished, or served to read a fork as it was at its cut");
                remove(oid, true);
            }
            // Not to be opened, nor taken for a database of its own, by a session or by recovery.
            other => {
                let reason = match other {
                    Ok(_) => "its meta file is of another fork".to_string(),
                    Err(error) => format!("its meta file cannot be read: {error}"),
                };
                pgrx::log!("pg_fork: {ROOT}/{oid}: {reason}");
                let state = pg_fork_core::format::meta::State::Invalid;
                metas.push(Meta {
                    oid,
                    state,
                    reason,
                    tablespace: DEFAULT_TABLESPACE,
                    ..Meta::default()
                });
            }
        }
    }
    metas
}

/// The tablespaces there are.
pub fn tablespaces() -> Vec<u32> {
    let links = fs::read_dir("pg_tblspc").into_iter().flatten().flatten();
    let others = links.filter_map(|entry| {
        entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
    });
    std::iter::once(DEFAULT_TABLESPACE).chain(others).collect()
}

/// Removes a fork's or layer's files in all tablespaces; with `whole`, its `meta` file, the folder
/// and the links too. Whether nothing of that is left; what is, is logged.
pub fn remove(oid: u32, whole: bool) -> bool {
    let mut gone = true;
    // The default tablespace last, and there `meta`: it tells the next start what the rest was.
    for spc in tablespaces().into_iter().rev() {
        let real = real_dir(oid, spc);
        for entry in fs::read_dir(&real).into_iter().flatten().flatten() {
            if entry.file_name() != META {
                let path = entry.path();
                // No folder of ours, but in the way of removing ours.
                let result = match entry.file_type().is_ok_and(|found| found.is_dir()) {
                    true => fs::remove_dir(&path),
                    false => fs::remove_file(&path),
                };
                gone &= removed(result, &path);
                crate::stop_point::at("remove-file");
            }
        }
        if whole && gone {
            // The link before the folder, because a folder without its link is found again.
            for path in [db_dir(oid, spc), real.join(META), real] {
                let result = match fs::symlink_metadata(&path) {
                    Ok(found) if found.is_dir() => fs::remove_dir(&path),
                    Ok(_) => fs::remove_file(&path),
                    Err(_) => Ok(()),
                };
                gone &= removed(result, &path);
            }
        }
    }
    gone
}

/// Whether the path is what the forks' `PG_VERSION` in a tablespace are linked to: a link to nothing as
/// soon as the server is down.
pub fn is_first_version(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "PG_VERSION")
}

/// Removes the folders of forks and layers in a tablespace, all of them empty, and the links to them.
/// What stays is in the way of dropping the tablespace, and reported then.
pub fn leave_tablespace(spc: u32) {
    let root = tablespace_dir(spc).join(ROOT);
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let _ = fs::remove_file(tablespace_dir(spc).join(entry.file_name()));
        let _ = match is_first_version(&entry.path()) {
            true => fs::remove_file(entry.path()),
            false => fs::remove_dir(entry.path()),
        };
    }
    let _ = fs::remove_file(tablespace_dir(spc).join(VERSION_FILE));
}

/// Whether a file in a fork's folder is a relation's, or a relation's map.
pub fn is_relation(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.first().is_some_and(u8::is_ascii_digit) || bytes.starts_with(MAP_PREFIX.as_bytes())
}

/// Removes the relations of a fork and their maps; what a session needs to log in stays.
pub fn remove_relations(oid: u32) {
    for spc in tablespaces() {
        for entry in fs::read_dir(real_dir(oid, spc))
            .into_iter()
            .flatten()
            .flatten()
        {
            if is_relation(&entry.file_name()) {
                removed(fs::remove_file(entry.path()), &entry.path());
            }
        }
    }
}

fn removed(result: io::Result<()>, path: &Path) -> bool {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            pgrx::log!("pg_fork: could not remove {}: {error}", path.display());
            false
        }
        _ => true,
    }
}

/// Whether the database has a folder, or a link to one, in any tablespace.
pub fn database_is_here(oid: u32) -> bool {
    tablespaces()
        .into_iter()
        .any(|spc| db_dir(oid, spc).symlink_metadata().is_ok())
}

/// Whether there is a fork's or layer's folder, or a link to it, in one of these tablespaces.
pub fn is_anywhere(oid: u32, spaces: &[u32]) -> bool {
    let mut paths = spaces
        .iter()
        .flat_map(|spc| [db_dir(oid, *spc), real_dir(oid, *spc)]);
    paths.any(|path| path.symlink_metadata().is_ok())
}

/// Folders of forks, layers and tombstones there are.
pub fn count() -> usize {
    fs::read_dir(ROOT).map_or(0, |entries| entries.flatten().count())
}
