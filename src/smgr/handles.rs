//! Open files of other databases and of layers: few, cached, and let go when anything changes.
//!
//! They are plain descriptors beside fd.c's own. fd.c leaves room for a few such
//! (`NUM_RESERVED_FDS` and the headroom of `set_max_safe_fds`), so the cache is small.

use crate::fork::files::{ensure_dir, segment_path};
use pg_fork_core::types::RelFork;
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;

const MOST: usize = 16;

type Name = (u32, RelFork, u32);

thread_local! {
    /// Most recently used last.
    static OPEN: RefCell<Vec<(Name, Rc<File>)>> = const { RefCell::new(Vec::new()) };
}

/// Closes all.
pub fn forget_all() {
    OPEN.with(|open| open.borrow_mut().clear());
}

/// Closes the files of one relation.
pub fn forget(oid: u32, rel: RelFork) {
    OPEN.with(|open| {
        open.borrow_mut()
            .retain(|((o, r, _), _)| *o != oid || *r != rel)
    });
}

/// The file of a segment; `None` if there is none and `create` is not asked for.
pub fn open(oid: u32, rel: RelFork, segment: u32, create: bool) -> io::Result<Option<Rc<File>>> {
    let name = (oid, rel, segment);
    let cached = OPEN.with(|open| {
        let mut open = open.borrow_mut();
        if let Some((_, file)) = open.last().filter(|(last, _)| *last == name) {
            return Some(file.clone());
        }
        let at = open.iter().rposition(|(cached, _)| *cached == name)?;
        let entry = open.remove(at);
        let file = entry.1.clone();
        open.push(entry);
        Some(file)
    });
    if cached.is_some() {
        return Ok(cached);
    }
    crate::stop_point::io("open-file")?;
    let path = segment_path(oid, rel, segment);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).mode(0o600);
    let file = match options.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !create {
                return Ok(None);
            }
            ensure_dir(oid, rel.spc)?;
            options.open(&path)?
        }
        other => other?,
    };
    let file = Rc::new(file);
    OPEN.with(|open| {
        let mut open = open.borrow_mut();
        if open.len() >= MOST {
            open.remove(0);
        }
        open.push((name, file.clone()));
    });
    Ok(Some(file))
}
