//! Settles inherited pages for good (D6, D18): the core's work, with how transactions have ended.
//!
//! Nothing here raises an error of the server's: in a critical section, where a truncation saves pages, it would be
//! a PANIC.

use crate::fork::{files, kept};
use crate::pg::{checksum, disk, process};
use crate::shmem::registry;
use crate::smgr::{classes, outcomes};
use pg_fork_core::format::kept::{Kept, Kind, Segment};
use pg_fork_core::settle::for_good::{freeze_map, settle_for_good, tells};
use pg_fork_core::settle::{settle_page, InFlight, Multis, SettleError};
use pg_fork_core::slru::{self, Segments, SlruError};
use pg_fork_core::topology::Layer;
use pg_fork_core::types::{Block, Page, RelFork};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

/// A cut, as settling needs it.
struct Cut {
    in_flight: InFlight,
    oldest_multi: u32,
    /// The file of pg_class.
    class: u32,
    kept: Option<Rc<Kept>>,
}

/// A segment, by the layer's space too: the newest one of a cut is longer for a later cut.
type Of = (u32, Segment);

/// Segments that a process remembers, of 256 kB each.
const MOST_SEGMENTS: usize = 16;

thread_local! {
    static CUTS: RefCell<HashMap<u32, Rc<Cut>>> = RefCell::default();
    static SEGMENTS: RefCell<HashMap<Of, Rc<Vec<u8>>>> = RefCell::default();
}

/// Forgets all cuts: as [`super::captured::forget_all`].
pub fn forget_all() {
    CUTS.with_borrow_mut(HashMap::clear);
    SEGMENTS.with_borrow_mut(HashMap::clear);
}

fn cut(layer: &Layer) -> io::Result<Rc<Cut>> {
    // The space is never reused, a layer's number may be.
    let known = CUTS.with(|cuts| cuts.borrow().get(&layer.space).cloned());
    if let Some(cut) = known.filter(|cut| cut.kept.is_some() || !layer.kept) {
        return Ok(cut);
    }
    let meta = files::read_meta(layer.oid)?;
    let kept = layer.kept.then(|| kept::read(layer.oid)).transpose()?;
    let kept = kept.map(Rc::new);
    let cut = Rc::new(Cut {
        in_flight: InFlight::new(meta.in_flight, meta.next_xid),
        oldest_multi: meta.oldest_multi,
        class: classes::file(layer.oid)?,
        kept,
    });
    CUTS.with(|cuts| {
        let mut cuts = cuts.borrow_mut();
        if cuts.len() > 256 {
            cuts.clear();
        }
        cuts.insert(layer.space, cut.clone());
    });
    Ok(cut)
}

/// Makes the page what crash recovery at the cut would have made of it, and what it says of transactions good for
/// ever.
pub fn settle(layer: &Layer, rel: RelFork, block: Block, page: &mut Page) -> io::Result<()> {
    /// `VISIBILITYMAP_FORKNUM`.
    const MAP: u8 = 2;
    match rel.fork & 3 {
        0 if tells(page) => {}
        MAP => {}
        _ => return Ok(()),
    }
    // A page that is not what was written stays as it is, for its reader to be told so. If the session ignores
    // that, it keeps the checksum that tells it.
    let right = checksum::is_right(page, block);
    if !right && !disk::is_verified(page, block) {
        return Ok(());
    }
    let changed = match rel.fork & 3 {
        MAP => freeze_map(page),
        _ => {
            let cut = cut(layer)?;
            let mut ends = Ends {
                layer,
                cut: cut.clone(),
            };
            let failed = |error: SettleError| io::Error::other(error.to_string());
            let in_flight =
                settle_page(page, &cut.in_flight, cut.oldest_multi, &mut ends).map_err(failed)?;
            settle_for_good(page, &mut ends).map_err(failed)? || in_flight
        }
    };
    if changed && right {
        checksum::set(page, block);
    }
    Ok(())
}

/// What a page of pg_class says of the age of tables, as a fork inherits it: its tables are as young as what it has
/// written to them. So nobody vacuums them because of what they were at the source.
///
/// Whatever a table's pages say of transactions is settled for good as they are read; the fork's own changes came
/// after the cut, and after the row of the fork was moved on ([`crate::fork::age`]). Tables that all databases share
/// stay as they are.
pub fn make_young(layer: &Layer, fork: u32, rel: RelFork, block: Block, page: &mut Page) {
    if rel.fork != 0 || process::in_recovery() {
        return;
    }
    let is_class = cut(layer).is_ok_and(|cut| cut.class == rel.rel);
    let Some(slot) = is_class.then(|| registry::slot(fork)).flatten() else {
        return;
    };
    let Some(cut) = registry::slot(layer.oid) else {
        return;
    };
    let later = |a: u32, b: u32| match (b.wrapping_sub(a) as i32) > 0 && b != 0 {
        true => b,
        false => a,
    };
    let xid = later(cut.next_xid, slot.row_xid);
    let multi = later(cut.oldest_multi, slot.row_multi);
    if checksum::is_right(page, block) && classes::make_young(page, xid, multi) {
        checksum::set(page, block);
    }
}

/// How those have ended whom pages of a cut name.
struct Ends<'a> {
    layer: &'a Layer,
    cut: Rc<Cut>,
}

impl Ends<'_> {
    /// What is kept, if the server is not to be asked, or has no answer: what it had was kept before it went, which
    /// this process may not have heard of yet.
    fn kept<T>(&self, server: impl FnOnce() -> Option<T>) -> io::Result<Result<T, Rc<Kept>>> {
        if let Some(kept) = &self.cut.kept {
            return Ok(Err(kept.clone()));
        }
        match server() {
            Some(answer) => Ok(Ok(answer)),
            None => kept::read(self.layer.oid).map(|kept| Err(Rc::new(kept))),
        }
    }
}

impl Multis for Ends<'_> {
    fn updater(&mut self, multi: u32) -> Result<Option<u32>, SettleError> {
        let failed = |reason: String| SettleError::Multi { multi, reason };
        let answer = self.kept(|| outcomes::updater(multi));
        match answer.map_err(|error| failed(error.to_string()))? {
            Ok(updater) => Ok(updater),
            Err(kept) => {
                let (next, member) = (kept.next_multi, kept.next_member);
                slru::updater(&mut Files(self.layer, &kept), multi, next, member)
                    .map_err(|error| failed(why(error)))
            }
        }
    }

    fn did_commit(&mut self, xid: u32) -> Result<bool, SettleError> {
        let failed = |reason: String| SettleError::Outcome { xid, reason };
        let answer = self.kept(|| outcomes::committed(xid));
        match answer.map_err(|error| failed(error.to_string()))? {
            Ok(committed) => Ok(committed),
            Err(kept) => slru::committed(&mut Files(self.layer, &kept), xid)
                .map_err(|error| failed(why(error))),
        }
    }
}

fn why(error: SlruError<io::Error>) -> String {
    match error {
        SlruError::Read(error) => error.to_string(),
        SlruError::Damaged => "it is not in the segment that was kept".into(),
    }
}

/// The segments that were kept for a cut.
struct Files<'a>(&'a Layer, &'a Kept);

impl Segments for Files<'_> {
    type Error = io::Error;

    fn read(&mut self, kind: Kind, number: u32) -> io::Result<Rc<Vec<u8>>> {
        let none = || io::Error::other(format!("segment {number:04X} was not kept"));
        let segment = self.1.segment(kind, number).ok_or_else(none)?;
        let key = (self.0.space, *segment);
        if let Some(bytes) = SEGMENTS.with_borrow(|known| known.get(&key).cloned()) {
            return Ok(bytes);
        }
        // What the cut's readers ask for was all there when it was kept; the rest is not looked at.
        let bytes = Rc::new(kept::bytes(segment)?);
        SEGMENTS.with_borrow_mut(|known| {
            if known.len() >= MOST_SEGMENTS {
                known.clear();
            }
            known.insert(key, bytes.clone());
        });
        Ok(bytes)
    }
}
