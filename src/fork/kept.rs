//! Outcomes are kept by us (D18): segments of the commit log and of multixacts that readers of a cut may ask for.
//!
//! A segment is written in place and removed by unlink (slru.c), so a hard link keeps its bytes when the server
//! truncates. What is linked for a cut is all that its inherited pages can name: from the source's `datfrozenxid` and
//! `datminmxid`, which the fork's row has until this is done, up to the cut. From then on readers of the cut ask these
//! and not the server, and the fork's row may move on.
#![allow(unsafe_code)] // rows of a catalog

use crate::fork::files;
use crate::pg::tuple::Catalog;
use crate::shmem::registry::{self, ForkState, Slot};
use crate::smgr::outcomes;
use pg_fork_core::format::kept::{Kept, Kind, Segment};
use pg_fork_core::slru::{self, Segments};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The file in a layer's folder that tells what is kept for it.
const FILE: &str = "pgsql_tmp_kept";

/// Where the segments of all layers are.
fn folder() -> PathBuf {
    Path::new(files::ROOT).join("kept")
}

fn file(layer: u32) -> PathBuf {
    files::real_dir(layer, files::DEFAULT_TABLESPACE).join(FILE)
}

/// Whether all that readers of the cut may ask for is kept.
pub fn is_there(layer: u32) -> bool {
    file(layer).exists()
}

/// What is kept for the layer.
pub fn read(layer: u32) -> io::Result<Kept> {
    let bytes = fs::read(file(layer))?;
    Kept::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The bytes of a kept segment.
pub fn bytes(segment: &Segment) -> io::Result<Vec<u8>> {
    fs::read(folder().join(segment.name()))
}

/// The server's own file of a segment (slru.c, `SlruFileName`).
fn servers(kind: Kind, number: u32) -> PathBuf {
    let folder = match kind {
        Kind::Outcomes => "pg_xact",
        Kind::Offsets => "pg_multixact/offsets",
        Kind::Members => "pg_multixact/members",
    };
    Path::new(folder).join(format!("{number:04X}"))
}

/// The server's own files.
struct Now;

impl Segments for Now {
    type Error = io::Error;

    fn read(&mut self, kind: Kind, number: u32) -> io::Result<Rc<Vec<u8>>> {
        fs::read(servers(kind, number)).map(Rc::new)
    }
}

/// A cut whose outcomes are about to be kept.
#[derive(Clone, Copy)]
struct Begun {
    next_multi: u32,
    next_member: u32,
}

thread_local! {
    /// By the layer's space.
    static BEGUN: RefCell<HashMap<u32, Begun>> = RefCell::default();
    /// What is kept for which layer; `None` before the first look.
    static KEPT: RefCell<Option<HashMap<u32, Vec<Segment>>>> = const { RefCell::new(None) };
}

/// The worker, now and then.
pub fn tend() {
    let layers: Vec<(Slot, Option<u32>)> = registry::read(|table| {
        let ready = |slot: &&Slot| slot.state == ForkState::Ready;
        let forks = table.iter().filter(|slot| slot.is_fork()).filter(ready);
        let forks: HashMap<u32, u32> = forks.map(|fork| (fork.layer, fork.oid)).collect();
        let fork = |layer: u32| forks.get(&layer).copied();
        let layers = table.iter().filter(|slot| slot.is_layer());
        layers
            .map(|layer| match layer.kept {
                0 if layer.forks > 0 && ready(&layer) => (*layer, fork(layer.oid)),
                _ => (*layer, None),
            })
            .collect()
    });
    keep(&layers);
    release(&layers);
}

/// Keeps what is not kept yet. In two steps, a round apart: who makes a multixact takes its number first and writes
/// it a moment later, and where it begins is where the one before ends.
fn keep(layers: &[(Slot, Option<u32>)]) {
    let missing = layers
        .iter()
        .filter_map(|(layer, fork)| Some((layer, (*fork)?)));
    let missing: Vec<(&Slot, u32)> = missing.collect();
    let begun = BEGUN.take();
    let (old, new): (Vec<_>, Vec<_>) = missing
        .into_iter()
        .partition(|(layer, _)| begun.contains_key(&layer.space));
    if !new.is_empty() {
        let (next_multi, next_member) = outcomes::next_multi();
        let now = Begun {
            next_multi,
            next_member,
        };
        BEGUN.set(new.iter().map(|(layer, _)| (layer.space, now)).collect());
    }
    if old.is_empty() {
        return;
    }
    let rows = BackgroundWorker::transaction(frozen_ids);
    outcomes::write_out();
    let mut done = Vec::new();
    for (layer, fork) in old {
        let (Some(row), Some(begun)) = (rows.get(&fork), begun.get(&layer.space)) else {
            continue;
        };
        match keep_for(layer, *row, *begun) {
            Ok(kept) => {
                done.push(layer.oid);
                KEPT.with_borrow_mut(|all| {
                    let all = all.get_or_insert_default();
                    all.insert(layer.oid, kept.segments);
                });
            }
            Err(error) => pgrx::log!(
                "pg_fork: could not keep the outcomes of transactions for layer {}: {error}",
                layer.oid
            ),
        }
    }
    registry::change(|table| {
        for layer in &done {
            table.update(*layer, |slot| slot.kept = 1);
        }
    });
}

/// Of each database, from where on its pages may name transactions and multixacts. In a transaction.
pub fn frozen_ids() -> HashMap<u32, (u32, u32)> {
    let mut found = HashMap::new();
    Catalog::read(pg_sys::DatabaseRelationId.to_u32()).all(0, |row| {
        // SAFETY: pg_database.
        let form = unsafe { row.fixed::<pg_sys::FormData_pg_database>() };
        let ids = (form.datfrozenxid.into_inner(), form.datminmxid.into_inner());
        found.insert(form.oid.to_u32(), ids);
    });
    found
}

fn keep_for(layer: &Slot, row: (u32, u32), begun: Begun) -> io::Result<Kept> {
    let (first_xid, first_multi) = row;
    let mut wanted = Vec::new();
    let mut want = |kind, numbers: Vec<u32>| {
        wanted.extend(numbers.into_iter().map(|number| (kind, number)));
    };
    want(
        Kind::Outcomes,
        slru::numbers(Kind::Outcomes, first_xid, layer.next_xid),
    );
    if first_multi != begun.next_multi {
        want(
            Kind::Offsets,
            slru::numbers(Kind::Offsets, first_multi, begun.next_multi),
        );
        let members = match slru::first_member(&mut Now, first_multi) {
            Ok(Some(first)) => slru::numbers(Kind::Members, first, begun.next_member),
            // It was never made: all that there are.
            _ => there_are(Kind::Members)?,
        };
        want(Kind::Members, members);
    }
    files::make_root()?;
    fs::create_dir_all(folder())?;
    let segments = wanted.into_iter().map(|(kind, number)| link(kind, number));
    let kept = Kept {
        next_multi: begun.next_multi,
        next_member: begun.next_member,
        segments: segments.collect::<io::Result<_>>()?,
    };
    // First what it tells of, because once it is there nobody asks the server any more.
    files::sync_dir(&folder())?;
    let path = file(layer.oid);
    let new = path.with_extension("new");
    files::write_durably(&new, &kept.encode())?;
    fs::rename(new, &path)?;
    files::sync_dir(&files::real_dir(layer.oid, files::DEFAULT_TABLESPACE))?;
    Ok(kept)
}

fn there_are(kind: Kind) -> io::Result<Vec<u32>> {
    let folder = servers(kind, 0);
    let folder = folder.parent().unwrap_or(Path::new("."));
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        numbers.extend(
            name.to_str()
                .and_then(|name| u32::from_str_radix(name, 16).ok()),
        );
    }
    Ok(numbers)
}

/// Keeps one segment, durably as far as it is written. Where there are no hard links, by a copy: what the cut's
/// readers ask for is in it.
fn link(kind: Kind, number: u32) -> io::Result<Segment> {
    let from = servers(kind, number);
    let inode = fs::metadata(&from)?.ino();
    let segment = Segment {
        kind,
        number,
        inode,
    };
    let to = folder().join(segment.name());
    match fs::hard_link(&from, &to) {
        Ok(()) => {}
        Err(_) if fs::metadata(&to).is_ok_and(|found| found.ino() == inode) => {}
        Err(_) => {
            let new = to.with_extension("new");
            fs::copy(&from, &new)?;
            fs::rename(new, &to)?;
        }
    }
    File::open(&to)?.sync_all()?;
    Ok(segment)
}

/// Removes what no layer needs any more.
fn release(layers: &[(Slot, Option<u32>)]) {
    let there: HashSet<u32> = layers.iter().map(|(layer, _)| layer.oid).collect();
    let needed: Option<HashSet<String>> = KEPT.with_borrow_mut(|kept| {
        let first = kept.is_none();
        let kept = kept.get_or_insert_default();
        if first {
            for (layer, _) in layers.iter().filter(|(layer, _)| layer.kept != 0) {
                let segments = read(layer.oid).map(|kept| kept.segments);
                kept.insert(layer.oid, segments.unwrap_or_default());
            }
        }
        let before = kept.len();
        kept.retain(|layer, _| there.contains(layer));
        let names = || kept.values().flatten().map(Segment::name).collect();
        (first || kept.len() < before).then(names)
    });
    let Some(needed) = needed else {
        return;
    };
    for entry in fs::read_dir(folder()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_none_or(|name| !needed.contains(name)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    if needed.is_empty() {
        let _ = fs::remove_dir(folder());
    }
}
