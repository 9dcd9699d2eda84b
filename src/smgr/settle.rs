//! Settles inherited pages (D6): the core's work, with the server's multixacts and commit log.
#![allow(unsafe_code)] // calls into multixact.c and clog.c

use crate::fork::files;
use crate::pg::{checksum, disk};
use pg_fork_core::settle::{concerns, settle_page, InFlight, Multis, SettleError};
use pg_fork_core::topology::Layer;
use pg_fork_core::types::{Block, Page, RelFork};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

/// A cut, as settling needs it.
struct Cut {
    in_flight: InFlight,
    oldest_multi: u32,
}

thread_local! {
    static CUTS: RefCell<HashMap<u32, Rc<Cut>>> = RefCell::default();
}

/// Forgets all cuts: as [`super::captured::forget_all`].
pub fn forget_all() {
    CUTS.with_borrow_mut(HashMap::clear);
}

fn cut(layer: &Layer) -> io::Result<Rc<Cut>> {
    // The space is never reused, a layer's number may be.
    if let Some(cut) = CUTS.with(|cuts| cuts.borrow().get(&layer.space).cloned()) {
        return Ok(cut);
    }
    let meta = files::read_meta(layer.oid)?;
    let cut = Rc::new(Cut {
        in_flight: InFlight::new(meta.in_flight, meta.next_xid),
        oldest_multi: meta.oldest_multi,
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

/// Makes the page what crash recovery at the cut would have made of it.
pub fn settle(layer: &Layer, rel: RelFork, block: Block, page: &mut Page) -> io::Result<()> {
    if rel.fork & 3 != 0 {
        return Ok(());
    }
    let cut = cut(layer)?;
    if !concerns(page, &cut.in_flight, cut.oldest_multi) {
        return Ok(());
    }
    // A page that is not what was written stays as it is, for its reader to be told so. If the session ignores
    // that, it keeps the checksum that tells it.
    let right = checksum::is_right(page, block);
    if !right && !disk::is_verified(page, block) {
        return Ok(());
    }
    let changed = settle_page(page, &cut.in_flight, cut.oldest_multi, &mut Server)
        .map_err(|error| io::Error::other(error.to_string()))?;
    if changed && right {
        checksum::set(page, block);
    }
    Ok(())
}

struct Server;

impl Multis for Server {
    fn updater(&mut self, multi: u32) -> Result<Option<u32>, SettleError> {
        let mut members = std::ptr::null_mut();
        // SAFETY: an out pointer to a palloc'd array of as many members as returned. A multixact
        // whose members are gone raises an error, which the fork's reader gets.
        let updater = unsafe {
            let count = pg_sys::GetMultiXactIdMembers(multi.into(), &mut members, false, false);
            let found = (0..count.max(0) as usize)
                .map(|n| *members.add(n))
                .find(|member| {
                    member.status >= pg_sys::MultiXactStatus::MultiXactStatusNoKeyUpdate
                });
            if count > 0 {
                pg_sys::pfree(members.cast());
            }
            found
        };
        Ok(updater.map(|member| member.xid.into_inner()))
    }

    fn did_commit(&mut self, xid: u32) -> bool {
        // SAFETY: reads the commit log.
        unsafe { pg_sys::TransactionIdDidCommit(xid.into()) }
    }
}
