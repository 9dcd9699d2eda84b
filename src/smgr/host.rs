//! The engine's world in the server: page maps, files, the registry.
//!
//! Nothing here raises a PostgreSQL error: failures come back as `io::Error`, and the caller
//! decides whom they hurt (D14).

use crate::fork::files::{db_dir, ensure_dir, segment_path, sync_dir, MAP_SEGMENT, SEGMENT_BLOCKS};
use crate::fork::{marks, merge};
use crate::pg::{disk, process};
use crate::shmem::{self, pagemap, registry, view};
use crate::smgr::{captured, handles, settle, sync, tail};
use crate::stop_point;
use pg_fork_core::engine::{FileOf, Found, Host};
use pg_fork_core::summary::{Bits, Summary};
use pg_fork_core::topology::{Layer, Node};
use pg_fork_core::types::{Block, DbOid, MapState, Page, RelFork, Space, PAGE_SIZE};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// This process, as the engine's host.
pub struct Server;

/// A hand-over under way, from before its first step until this is dropped.
pub struct HandOver(());

impl HandOver {
    pub fn begin() -> Self {
        if let Some(shared) = shmem::shared() {
            shared.hand_overs[0].fetch_add(1, Ordering::SeqCst);
        }
        HandOver(())
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        if let Some(shared) = shmem::shared() {
            shared.hand_overs[1].fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Host for Server {
    type Error = io::Error;
    type Held = marks::HeldLayer;

    fn generation(&self) -> u64 {
        registry::generation()
    }

    fn node(&self, oid: DbOid) -> Option<Rc<Node>> {
        view::node(oid)
    }

    fn map_state(&self, oid: DbOid, space: Space, rel: RelFork) -> io::Result<Option<MapState>> {
        pagemap::state(oid, space, rel)
    }

    fn remember_untouched(
        &self,
        oid: DbOid,
        space: Space,
        rel: RelFork,
        state: MapState,
    ) -> io::Result<()> {
        pagemap::remember_untouched(oid, space, rel, state)
    }

    fn set_state(
        &self,
        oid: DbOid,
        space: Space,
        rel: RelFork,
        state: MapState,
        replace: bool,
    ) -> io::Result<MapState> {
        let _marked = marks::hold_layer(oid)?;
        pagemap::set_state(oid, space, rel, state, replace)
    }

    fn bit(&self, oid: DbOid, space: Space, rel: RelFork, block: Block) -> io::Result<bool> {
        pagemap::bit(oid, space, rel, block)
    }

    fn set_bit(&self, oid: DbOid, space: Space, rel: RelFork, block: Block) -> io::Result<()> {
        let _marked = marks::hold_layer(oid)?;
        pagemap::set_bit(oid, space, rel, block)
    }

    fn read_file(&self, file: FileOf, block: Block, page: &mut Page) -> io::Result<Found> {
        let Some(from) = handles::open(file.oid, file.rel, block / SEGMENT_BLOCKS, false)? else {
            // A hand-over is under way (engine, `before_unlink`), or was cut short: look again, but let
            // it have the processor, or the engine gives up before it is done.
            std::thread::sleep(Duration::from_micros(100));
            return Ok(Found::Nothing);
        };
        let offset = u64::from(block % SEGMENT_BLOCKS) * PAGE_SIZE as u64;
        match from.read_exact_at(page, offset) {
            Ok(()) => Ok(Found::Page),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                // The file may be another by that name now: do not look at this one again.
                handles::forget(file.oid, file.rel);
                Ok(Found::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    fn write_file(&self, file: FileOf, block: Block, page: &Page) -> io::Result<()> {
        let _marked = marks::hold_layer(file.oid)?;
        stop_point::io("write-file")?;
        let segment = block / SEGMENT_BLOCKS;
        let to =
            handles::open(file.oid, file.rel, segment, true)?.ok_or(io::ErrorKind::NotFound)?;
        to.write_all_at(page, u64::from(block % SEGMENT_BLOCKS) * PAGE_SIZE as u64)?;
        sync::register(file.oid, file.rel, segment)
    }

    fn file_len(&self, file: FileOf) -> io::Result<Option<Block>> {
        let mut blocks = 0;
        for segment in 0.. {
            match fs::metadata(segment_path(file.oid, file.rel, segment)) {
                Ok(found) => {
                    let here = (found.len() / PAGE_SIZE as u64) as u32;
                    blocks += here;
                    if here < SEGMENT_BLOCKS {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if segment == 0 {
                        return Ok(None);
                    }
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(blocks))
    }

    fn save_all(
        &self,
        db: DbOid,
        layer: &Layer,
        rel: RelFork,
        first: Block,
        end: Block,
    ) -> io::Result<()> {
        tail::save(db, layer, rel, first, end)
    }

    fn hand_over(&self, db: DbOid, layer: &Layer, rel: RelFork, with_map: bool) -> io::Result<()> {
        let handed = rel.handed();
        let _marked = marks::hold_layer(layer.oid)?;
        ensure_dir(layer.oid, rel.spc)?;
        if with_map {
            // First the map, because a handed-over file without one is taken for whole.
            pagemap::expect(layer.space, handed);
            move_segment(db, layer.oid, rel, MAP_SEGMENT)?;
            pagemap::forget_state(layer.space, handed);
        }
        for segment in 0.. {
            if !move_segment(db, layer.oid, rel, segment)? {
                break;
            }
        }
        handles::forget(db, rel);
        Ok(())
    }

    fn next_bit(
        &self,
        oid: DbOid,
        _space: Space,
        rel: RelFork,
        block: Block,
        end: Block,
    ) -> io::Result<Option<Block>> {
        pagemap::next_bit(oid, rel, block, end)
    }

    fn share(&self, from: &Layer, into: &Layer, rel: RelFork, only_handed: bool) -> io::Result<()> {
        let _marked = marks::hold_layer(into.oid)?;
        ensure_dir(into.oid, rel.spc)?;
        let handed = rel.handed();
        // The maps last, because they tell of the files.
        let places: &[_] = if only_handed {
            &[handed]
        } else {
            &[handed, rel]
        };
        for rel in places {
            for segment in 0.. {
                if !share_file(from.oid, into.oid, *rel, segment)? {
                    break;
                }
            }
            stop_point::at("merge-files");
            pagemap::expect(into.space, *rel);
            share_file(from.oid, into.oid, *rel, MAP_SEGMENT)?;
            pagemap::forget_state(into.space, *rel);
        }
        sync_dir(&db_dir(into.oid, rel.spc))
    }

    fn merged(&self, from: FileOf, blocks: &[Block]) -> io::Result<bool> {
        merge::tell_merged(from, blocks)
    }

    fn changes(&self) -> u64 {
        pagemap::changes()
    }

    fn hold(&self, layer: DbOid) -> io::Result<marks::HeldLayer> {
        marks::hold_layer(layer)
    }

    fn hand_overs(&self) -> Option<u32> {
        let [begun, ended] = shmem::shared()?.hand_overs.each_ref();
        // First the ends: what ends between the two looks was under way.
        let ended = ended.load(Ordering::SeqCst);
        (begun.load(Ordering::SeqCst) == ended).then_some(ended)
    }

    fn merges(&self) -> u32 {
        shmem::shared().map_or(0, |shared| shared.merges.load(Ordering::SeqCst))
    }

    fn bits(&self, oid: DbOid, space: Space, rel: RelFork, block: Block) -> io::Result<Bits> {
        pagemap::bits(oid, space, rel, block)
    }

    fn summary(&self, space: Space, rel: RelFork, block: Block) -> Option<Summary> {
        pagemap::summary(space, rel, block)
    }

    fn put_summary(&self, space: Space, rel: RelFork, block: Block, summary: &Summary) {
        pagemap::put_summary(space, rel, block, summary);
    }

    fn captured(&self, layer: &Layer, rel: RelFork, block: Block) -> io::Result<Option<Block>> {
        captured::find(layer, rel, block)
    }

    fn stop_point(&self, name: &'static str) {
        stop_point::at(name);
    }

    fn settle(&self, layer: &Layer, rel: RelFork, block: Block, page: &mut Page) -> io::Result<()> {
        settle::settle(layer, rel, block, page)
    }
}

/// Asks the operating system to read the block ahead.
pub fn prefetch(file: FileOf, block: Block) -> io::Result<()> {
    let offset = u64::from(block % SEGMENT_BLOCKS) * PAGE_SIZE as u64;
    match handles::open(file.oid, file.rel, block / SEGMENT_BLOCKS, false)? {
        Some(from) => disk::will_need(&from, offset, PAGE_SIZE as u64),
        None => Ok(()),
    }
}

/// Gives a layer's file to another layer too; `false` if there is none. On a filesystem without
/// hard links it is copied.
fn share_file(from: u32, into: u32, rel: RelFork, segment: u32) -> io::Result<bool> {
    let [old, new] = [from, into].map(|oid| segment_path(oid, rel, segment));
    // Left by a merge cut short: no map told of it.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::hard_link(&old, &new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(_) => {
            fs::copy(&old, &new)?;
        }
        Ok(()) => {}
    }
    sync::register(into, rel, segment)?;
    Ok(true)
}

/// Renames one segment to be the layer's handed-over one; `false` if there is none.
///
/// One that the layer has stays: the other by its name was made by replay, which meets WAL of the
/// relation from before it was dropped, and goes with the relation.
fn move_segment(db: u32, layer: u32, rel: RelFork, segment: u32) -> io::Result<bool> {
    stop_point::io("rename-file")?;
    sync::forget(db, rel, segment);
    let to = segment_path(layer, rel.handed(), segment);
    if process::in_recovery() && to.exists() {
        return Ok(true);
    }
    match fs::rename(segment_path(db, rel, segment), to) {
        Ok(()) => {
            sync::register(layer, rel.handed(), segment)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
