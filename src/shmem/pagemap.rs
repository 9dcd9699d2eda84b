//! Page maps: the cache in shared memory over the map files (D9).
//!
//! Every change is made under the exclusive lock of the key's partition, first in
//! the file, then in the cache. So is the reading of a file into the cache. An entry is
//! therefore never older than the file.

use super::stats::{self, Often};
use super::{map_filter, page_map, shared};
use crate::fork::files::MAP_SEGMENT;
use crate::pg::lwlock::{hold, Held, Which};
use crate::smgr::{handles, sync};
use pg_fork_core::cache::{
    self, chunk_bit, set_chunk_bit, Key, Payload, CHUNK_BLOCKS, PAYLOAD_WORDS,
};
use pg_fork_core::format::map;
use pg_fork_core::summary::{Bits, Summary};
use pg_fork_core::types::{Block, MapState, RelFork, Space};
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

/// The cached header of a map that says nothing.
const NOTHING: u32 = 8;

fn pack(state: Option<MapState>) -> Payload {
    let (kind, len) = match state {
        Some(MapState::Untouched { len }) => (1, len),
        Some(MapState::Private) => (2, 0),
        Some(MapState::Own { inherited_len }) => (3, inherited_len),
        Some(MapState::Gone) => (4, 0),
        Some(MapState::Noted { len }) => (5, len),
        Some(MapState::Absent) => (6, 0),
        Some(MapState::HandedOver { len }) => (7, len),
        None => (NOTHING, 0),
    };
    let mut payload = [0; PAYLOAD_WORDS];
    (payload[0], payload[1]) = (kind, len);
    payload
}

fn unpack(payload: &Payload) -> Option<MapState> {
    let len = payload[1];
    Some(match payload[0] {
        1 => MapState::Untouched { len },
        2 => MapState::Private,
        3 => MapState::Own { inherited_len: len },
        4 => MapState::Gone,
        5 => MapState::Noted { len },
        6 => MapState::Absent,
        7 => MapState::HandedOver { len },
        _ => return None,
    })
}

/// How often any map said something new ([`pg_fork_core::engine::Host::changes`]).
pub fn changes() -> u64 {
    shared().map_or(0, |shared| shared.map_changes.load(Ordering::SeqCst))
}

/// Under the key's lock: a map says something new of its relation as a whole.
///
/// Nobody may see the new state while another still goes by the old one that it remembers: whoever sees it
/// may write a block and set its bit, and who remembers looks for the block where it was. So first the old one
/// goes, and who looks it up waits for the lock; second all forget it; third the new one comes.
fn replace_state(key: &Key, new: Option<MapState>) {
    page_map().remove(key);
    if let Some(shared) = shared() {
        shared.state_changes.fetch_add(1, Ordering::SeqCst);
    }
    if let Some(new) = new {
        page_map().put(key, &pack(Some(new)));
    }
    changed();
}

/// Forgets what this process remembers. In the postmaster, whose children inherit it: spaces are numbered anew
/// after a crash.
pub fn forget_seen() {
    SEEN.with(|seen| seen.iter().for_each(|place| place.set(None)));
}

/// A state as this process saw it last, for as long as no map's state changes: it is asked for with each
/// block, and changes but once or twice.
#[derive(Clone, Copy)]
struct Seen {
    space: Space,
    rel: RelFork,
    changes: u64,
    state: MapState,
}

const PLACES: usize = 64;

thread_local! {
    static SEEN: [Cell<Option<Seen>>; PLACES] = const { [const { Cell::new(None) }; PLACES] };
}

fn place(space: Space, rel: RelFork) -> usize {
    let number = space.wrapping_mul(31) ^ rel.rel ^ u32::from(rel.fork) << 4;
    number as usize % PLACES
}

fn state_changes() -> u64 {
    shared().map_or(0, |shared| shared.state_changes.load(Ordering::SeqCst))
}

/// A map says something new, and all processes see it.
fn changed() {
    if let Some(shared) = shared() {
        shared.map_changes.fetch_add(1, Ordering::SeqCst);
    }
}

fn lock(key: &Key) -> Held {
    hold(Which::Partition(page_map().partition(key)), true)
}

/// Reads up to the buffer's length; the rest stays zero.
fn read_at(oid: u32, rel: RelFork, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let Some(file) = handles::open(oid, rel, MAP_SEGMENT, false)? else {
        return Ok(0);
    };
    crate::stop_point::io("read-map")?;
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

fn write_at(oid: u32, rel: RelFork, offset: u64, bytes: &[u8]) -> io::Result<()> {
    write(oid, rel, offset, bytes)?;
    sync_later(oid, rel)
}

/// A map was written to: the next checkpoint syncs it.
pub fn sync_later(oid: u32, rel: RelFork) -> io::Result<()> {
    sync::register(oid, rel, MAP_SEGMENT)
}

fn write(oid: u32, rel: RelFork, offset: u64, bytes: &[u8]) -> io::Result<()> {
    crate::stop_point::io("write-map")?;
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    handles::open(oid, rel, MAP_SEGMENT, true)?
        .ok_or_else(missing)?
        .write_all_at(bytes, offset)
}

fn read_state(oid: u32, rel: RelFork) -> io::Result<Option<MapState>> {
    let mut bytes = [0; map::HEADER_SIZE];
    if read_at(oid, rel, 0, &mut bytes)? == 0 {
        return Ok(None);
    }
    map::decode(&bytes)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What the map says of the relation fork; `None`: nothing.
pub fn state(oid: u32, space: Space, rel: RelFork) -> io::Result<Option<MapState>> {
    if map_filter().has_none(space, rel) {
        return Ok(None);
    }
    // Before the look: what changes meanwhile is not remembered for long.
    let changes = state_changes();
    let place = place(space, rel);
    let seen = SEEN.with(|seen| seen[place].get());
    if let Some(seen) =
        seen.filter(|seen| seen.changes == changes && seen.space == space && seen.rel == rel)
    {
        stats::count_often(Often::MapHits);
        return Ok(Some(seen.state));
    }
    let state = look_up_state(oid, space, rel)?;
    if let Some(state) = state {
        let seen = Seen {
            space,
            rel,
            changes,
            state,
        };
        SEEN.with(|all| all[place].set(Some(seen)));
    }
    Ok(state)
}

fn look_up_state(oid: u32, space: Space, rel: RelFork) -> io::Result<Option<MapState>> {
    let key = Key::header(space, rel);
    if let Some(payload) = page_map().lookup(&key) {
        stats::count_often(Often::MapHits);
        return Ok(unpack(&payload));
    }
    stats::count_often(Often::MapMisses);
    let _held = lock(&key);
    load_state(&key, oid, space, rel)
}

/// Under the lock: the state as cached, or from the file, then cached.
fn load_state(key: &Key, oid: u32, space: Space, rel: RelFork) -> io::Result<Option<MapState>> {
    if map_filter().has_none(space, rel) {
        return Ok(None);
    }
    if let Some(payload) = page_map().lookup(key) {
        return Ok(unpack(&payload));
    }
    let state = read_state(oid, rel)?;
    page_map().put(key, &pack(state));
    Ok(state)
}

/// Caches that the map says nothing, and what that comes to.
pub fn remember_untouched(oid: u32, space: Space, rel: RelFork, state: MapState) -> io::Result<()> {
    let key = Key::header(space, rel);
    let _held = lock(&key);
    if load_state(&key, oid, space, rel)?.is_none() {
        page_map().put(&key, &pack(Some(state)));
        // So that it is looked for.
        map_filter().note(space, rel);
    }
    Ok(())
}

/// Makes `new` the state, on disk and in the cache, if there is none yet or if `replace`.
pub fn set_state(
    oid: u32,
    space: Space,
    rel: RelFork,
    new: MapState,
    replace: bool,
) -> io::Result<MapState> {
    let key = Key::header(space, rel);
    let _held = lock(&key);
    let old = load_state(&key, oid, space, rel)?;
    if let (Some(old), false) = (old, replace) {
        if !matches!(old, MapState::Untouched { .. } | MapState::Private) {
            return Ok(old);
        }
    }
    map_filter().note(space, rel);
    if let Some(bytes) = map::encode(new) {
        write_at(oid, rel, 0, &bytes)?;
    }
    replace_state(&key, Some(new));
    Ok(new)
}

/// A map of the relation is about to come by a rename or a link: from now on it is looked for.
pub fn expect(space: Space, rel: RelFork) {
    map_filter().note(space, rel);
}

/// Forgets the state of a map whose file is gone or was put in place by a rename.
pub fn forget_state(space: Space, rel: RelFork) {
    let key = Key::header(space, rel);
    let _held = lock(&key);
    replace_state(&key, None);
}

fn load_chunk(key: &Key, oid: u32, rel: RelFork, block: Block) -> io::Result<Payload> {
    if let Some(payload) = page_map().lookup(key) {
        return Ok(payload);
    }
    let mut bytes = [0; PAYLOAD_WORDS * 4];
    let first = block / CHUNK_BLOCKS * CHUNK_BLOCKS;
    read_at(oid, rel, map::bit_offset(first), &mut bytes)?;
    let mut payload = [0; PAYLOAD_WORDS];
    for (word, from) in payload.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes([from[0], from[1], from[2], from[3]]);
    }
    page_map().put(key, &payload);
    Ok(payload)
}

/// Whether the block's bit is set.
pub fn bit(oid: u32, space: Space, rel: RelFork, block: Block) -> io::Result<bool> {
    let key = Key::chunk_of(space, rel, block);
    if let Some(payload) = page_map().lookup(&key) {
        stats::count_often(Often::MapHits);
        return Ok(chunk_bit(&payload, block));
    }
    stats::count_often(Often::MapMisses);
    let _held = lock(&key);
    Ok(chunk_bit(&load_chunk(&key, oid, rel, block)?, block))
}

/// The bits of the block's group.
pub fn bits(oid: u32, space: Space, rel: RelFork, block: Block) -> io::Result<Bits> {
    let key = Key::chunk_of(space, rel, block);
    if let Some(payload) = page_map().lookup(&key) {
        return Ok(cache::chunk_group(&payload, block));
    }
    let _held = lock(&key);
    Ok(cache::chunk_group(
        &load_chunk(&key, oid, rel, block)?,
        block,
    ))
}

/// The summary of the block's group for a cut, if it is cached.
pub fn summary(space: Space, rel: RelFork, block: Block) -> Option<Summary> {
    let payload = page_map().lookup(&Key::summary_of(space, rel, block))?;
    Some(cache::unpack_summary(&payload))
}

/// Caches it.
pub fn put_summary(space: Space, rel: RelFork, block: Block, summary: &Summary) {
    let key = Key::summary_of(space, rel, block);
    let _held = lock(&key);
    page_map().put(&key, &cache::pack_summary(summary));
}

/// The first block from `block` on, and below `end`, whose bit is set, by the file: the cache holds
/// no more than it.
pub fn next_bit(oid: u32, rel: RelFork, block: Block, end: Block) -> io::Result<Option<Block>> {
    let mut bytes = [0; 4096];
    let mut block = block;
    while block < end {
        let first = block / 8 * 8;
        let read = read_at(oid, rel, map::bit_offset(first), &mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        let last = end.min(first.saturating_add(read as u32 * 8));
        let set = |block: &u32| {
            let at = block - first;
            bytes[(at / 8) as usize] & 1 << (at % 8) != 0
        };
        if let Some(found) = (block..last).find(set) {
            return Ok(Some(found));
        }
        block = last;
    }
    Ok(None)
}

/// Sets the block's bit: first in the file, because the cache may forget it at once.
pub fn set_bit(oid: u32, space: Space, rel: RelFork, block: Block) -> io::Result<()> {
    let key = Key::chunk_of(space, rel, block);
    let _held = lock(&key);
    let mut payload = load_chunk(&key, oid, rel, block)?;
    if chunk_bit(&payload, block) {
        return Ok(());
    }
    set_chunk_bit(&mut payload, block);
    let in_chunk = block % CHUNK_BLOCKS;
    let word = payload[(in_chunk / 32) as usize].to_le_bytes();
    let byte = word[(in_chunk % 32 / 8) as usize];
    write_at(oid, rel, map::bit_offset(block), &[byte])?;
    page_map().put(&key, &payload);
    changed();
    Ok(())
}

/// Sets the bits of a run of blocks, as [`set_bit`] does; the caller sees to [`sync_later`].
pub fn set_bits(oid: u32, space: Space, rel: RelFork, blocks: Range<Block>) -> io::Result<()> {
    let mut at = blocks.start;
    while at < blocks.end {
        let first = at / CHUNK_BLOCKS * CHUNK_BLOCKS;
        let last = blocks.end.min(first.saturating_add(CHUNK_BLOCKS));
        let key = Key::chunk_of(space, rel, at);
        let _held = lock(&key);
        let mut payload = load_chunk(&key, oid, rel, at)?;
        for block in at..last {
            set_chunk_bit(&mut payload, block);
        }
        let bytes: Vec<u8> = payload.iter().flat_map(|word| word.to_le_bytes()).collect();
        write(oid, rel, map::bit_offset(first), &bytes)?;
        page_map().put(&key, &payload);
        at = last;
    }
    changed();
    Ok(())
}
