//! The engine against plain whole copies: random writes, truncations, drops, cuts, forks of forks,
//! merges cut short, with pages that are dirty in memory at the cut.

use crate::engine::*;
use crate::format::captured::Captured;
use crate::summary::{Bits, Summary, GROUP_BLOCKS, GROUP_WORDS};
use crate::topology::{fates, Fate, Layer, LayerLife, Node, Origin};
use crate::types::{Block, DbOid, MapState, Page, RelFork, Space, PAGE_SIZE};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// A page is its LSN and a value.
type Content = (u64, u64);
type File = Vec<Content>;

#[derive(Default)]
struct Disk {
    files: BTreeMap<(DbOid, RelFork), File>,
    maps: BTreeMap<(DbOid, RelFork), (MapState, BTreeSet<Block>)>,
}

#[derive(Default)]
struct World {
    disk: RefCell<Disk>,
    nodes: HashMap<DbOid, Node>,
    generation: u64,
    merges: Cell<u32>,
    summaries: RefCell<HashMap<(Space, RelFork, u32), Summary>>,
    asked: Cell<u32>,
    /// Operations that succeed until one fails; `None`: all do.
    patience: Cell<Option<u32>>,
    /// By layer: the place of a captured page in its file.
    captured: HashMap<DbOid, Captured>,
    /// For which layers' cuts pages were settled.
    settled: RefCell<Vec<DbOid>>,
}

#[derive(Debug, PartialEq, Eq)]
struct CutShort;

impl World {
    fn step(&self) -> Result<(), CutShort> {
        match self.patience.get() {
            Some(0) => Err(CutShort),
            Some(left) => {
                self.patience.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn page_of((lsn, value): Content) -> Page {
    let mut page = [0; PAGE_SIZE];
    page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
    page[8..16].copy_from_slice(&value.to_le_bytes());
    page
}

fn content_of(page: &Page) -> Content {
    let mut value = [0; 8];
    value.copy_from_slice(&page[8..16]);
    (page_lsn(page), u64::from_le_bytes(value))
}

impl Host for World {
    type Error = CutShort;
    type Held = ();

    fn generation(&self) -> u64 {
        self.generation
    }

    fn node(&self, oid: DbOid) -> Option<Rc<Node>> {
        self.nodes.get(&oid).cloned().map(Rc::new)
    }

    fn map_state(&self, oid: DbOid, _: Space, rel: RelFork) -> Result<Option<MapState>, CutShort> {
        self.step()?;
        Ok(self.disk.borrow().maps.get(&(oid, rel)).map(|map| map.0))
    }

    fn remember_untouched(
        &self,
        _: DbOid,
        _: Space,
        _: RelFork,
        _: MapState,
    ) -> Result<(), CutShort> {
        Ok(())
    }

    fn set_state(
        &self,
        oid: DbOid,
        _: Space,
        rel: RelFork,
        state: MapState,
        replace: bool,
    ) -> Result<MapState, CutShort> {
        self.step()?;
        if matches!(state, MapState::Private | MapState::Untouched { .. }) {
            return Ok(state);
        }
        let mut disk = self.disk.borrow_mut();
        let fresh = !disk.maps.contains_key(&(oid, rel));
        let map = disk
            .maps
            .entry((oid, rel))
            .or_insert((state, BTreeSet::new()));
        if fresh || replace {
            map.0 = state;
        }
        Ok(map.0)
    }

    fn bit(&self, oid: DbOid, _: Space, rel: RelFork, block: Block) -> Result<bool, CutShort> {
        self.step()?;
        let disk = self.disk.borrow();
        Ok(disk
            .maps
            .get(&(oid, rel))
            .is_some_and(|map| map.1.contains(&block)))
    }

    fn set_bit(&self, oid: DbOid, _: Space, rel: RelFork, block: Block) -> Result<(), CutShort> {
        self.step()?;
        let mut disk = self.disk.borrow_mut();
        let map = disk.maps.get_mut(&(oid, rel)).expect("a state first");
        map.1.insert(block);
        Ok(())
    }

    fn read_file(&self, file: FileOf, block: Block, page: &mut Page) -> Result<Found, CutShort> {
        self.step()?;
        let disk = self.disk.borrow();
        let found = disk.files.get(&(file.oid, file.rel));
        match found.and_then(|file| file.get(block as usize)) {
            Some(content) => {
                *page = page_of(*content);
                Ok(Found::Page)
            }
            None => Ok(Found::Nothing),
        }
    }

    fn write_file(&self, file: FileOf, block: Block, page: &Page) -> Result<(), CutShort> {
        self.step()?;
        put(
            &mut self.disk.borrow_mut(),
            file.oid,
            file.rel,
            block,
            content_of(page),
        );
        Ok(())
    }

    fn file_len(&self, file: FileOf) -> Result<Option<Block>, CutShort> {
        let disk = self.disk.borrow();
        Ok(disk
            .files
            .get(&(file.oid, file.rel))
            .map(|file| file.len() as u32))
    }

    fn save_all(
        &self,
        db: DbOid,
        layer: &Layer,
        rel: RelFork,
        first: Block,
        end: Block,
    ) -> Result<(), CutShort> {
        for block in first..end {
            self.step()?;
            let mut disk = self.disk.borrow_mut();
            if disk.maps[&(layer.oid, rel)].1.contains(&block) {
                continue;
            }
            let content = disk.files[&(db, rel)][block as usize];
            put(&mut disk, layer.oid, rel, block, content);
            drop(disk);
            self.set_bit(layer.oid, layer.space, rel, block)?;
        }
        Ok(())
    }

    fn hand_over(
        &self,
        db: DbOid,
        layer: &Layer,
        rel: RelFork,
        with_map: bool,
    ) -> Result<(), CutShort> {
        self.step()?;
        let handed = (layer.oid, rel.handed());
        if with_map {
            let mut disk = self.disk.borrow_mut();
            if let Some(map) = disk.maps.remove(&(db, rel)) {
                disk.maps.insert(handed, map);
            }
        }
        self.step()?;
        let mut disk = self.disk.borrow_mut();
        if let Some(file) = disk.files.remove(&(db, rel)) {
            disk.files.insert(handed, file);
        }
        Ok(())
    }

    fn next_bit(
        &self,
        oid: DbOid,
        _: Space,
        rel: RelFork,
        block: Block,
        end: Block,
    ) -> Result<Option<Block>, CutShort> {
        self.step()?;
        let disk = self.disk.borrow();
        let map = disk.maps.get(&(oid, rel));
        Ok(map.and_then(|map| map.1.range(block..end.max(block)).next().copied()))
    }

    fn share(
        &self,
        from: &Layer,
        into: &Layer,
        rel: RelFork,
        only_handed: bool,
    ) -> Result<(), CutShort> {
        let places = if only_handed {
            vec![rel.handed()]
        } else {
            vec![rel.handed(), rel]
        };
        for rel in places {
            self.step()?;
            let file = self.disk.borrow().files.get(&(from.oid, rel)).cloned();
            if let Some(file) = file {
                self.disk.borrow_mut().files.insert((into.oid, rel), file);
            }
            self.step()?;
            let map = self.disk.borrow().maps.get(&(from.oid, rel)).cloned();
            if let Some(map) = map {
                self.disk.borrow_mut().maps.insert((into.oid, rel), map);
            }
        }
        Ok(())
    }

    fn merged(&self, from: FileOf, blocks: &[Block]) -> Result<bool, CutShort> {
        self.step()?;
        self.merges.set(self.merges.get() + 1);
        // Nobody may look at them any more.
        let mut disk = self.disk.borrow_mut();
        if let Some(file) = disk.files.get_mut(&(from.oid, from.rel)) {
            for block in blocks {
                file[*block as usize] = (u64::MAX, u64::MAX);
            }
        }
        Ok(!blocks[0].is_multiple_of(3))
    }

    fn changes(&self) -> u64 {
        // In every other read something may have changed.
        self.asked.set(self.asked.get() + 1);
        u64::from(self.asked.get() / 2)
    }

    fn hold(&self, _: DbOid) -> Result<(), CutShort> {
        self.step()
    }

    fn hand_overs(&self) -> Option<u32> {
        Some(0)
    }

    fn merges(&self) -> u32 {
        self.merges.get()
    }

    fn bits(&self, oid: DbOid, _: Space, rel: RelFork, block: Block) -> Result<Bits, CutShort> {
        self.step()?;
        let disk = self.disk.borrow();
        let set = &disk.maps[&(oid, rel)].1;
        let first = block / GROUP_BLOCKS * GROUP_BLOCKS;
        let mut bits = [0; GROUP_WORDS];
        for block in set.range(first..first + GROUP_BLOCKS) {
            let bit = block - first;
            bits[(bit / 32) as usize] |= 1 << (bit % 32);
        }
        Ok(bits)
    }

    fn summary(&self, space: Space, rel: RelFork, block: Block) -> Option<Summary> {
        let key = (space, rel, block / GROUP_BLOCKS);
        // Some are forgotten.
        self.asked.set(self.asked.get() + 1);
        if self.asked.get().is_multiple_of(7) {
            self.summaries.borrow_mut().remove(&key);
        }
        self.summaries.borrow().get(&key).copied()
    }

    fn put_summary(&self, space: Space, rel: RelFork, block: Block, summary: &Summary) {
        let key = (space, rel, block / GROUP_BLOCKS);
        self.summaries.borrow_mut().insert(key, *summary);
    }

    fn captured(
        &self,
        layer: &Layer,
        rel: RelFork,
        block: Block,
    ) -> Result<Option<Block>, CutShort> {
        self.step()?;
        Ok(self.captured[&layer.oid].find(rel, block))
    }

    fn settle(&self, at: &Layer, _: RelFork, _: Block, _: &mut Page) -> Result<(), CutShort> {
        self.settled.borrow_mut().push(at.oid);
        Ok(())
    }
}

fn put(disk: &mut Disk, oid: DbOid, rel: RelFork, block: Block, content: Content) {
    let file = disk.files.entry((oid, rel)).or_default();
    if file.len() <= block as usize {
        // A hole reads as a new page.
        file.resize(block as usize + 1, (0, 0));
    }
    file[block as usize] = content;
}

/// The storage manager's part (`smgr/ops.rs`), a buffer pool, and the whole copies.
#[derive(Default)]
struct Server {
    /// Dropped, and in some database on disk all the same.
    leaked: BTreeSet<RelFork>,
    world: World,
    dirty: BTreeMap<(DbOid, RelFork, Block), Content>,
    model: BTreeMap<DbOid, BTreeMap<RelFork, Vec<u64>>>,
    /// A fork's layer, to know when that is dead.
    cut_of: HashMap<DbOid, DbOid>,
    lsn: u64,
    next: u32,
}

impl Server {
    fn node(&self, db: DbOid) -> Node {
        self.world.nodes.get(&db).cloned().unwrap_or_default()
    }

    fn is_fork(&self, db: DbOid) -> bool {
        self.node(db).origin.is_some()
    }

    fn create(&mut self, db: DbOid, rel: RelFork) {
        let node = self.node(db);
        note(&self.world, db, &node, rel).unwrap();
        if self.is_fork(db) {
            before_own_write(&self.world, db, &node, rel).unwrap();
        }
        self.world
            .disk
            .borrow_mut()
            .files
            .insert((db, rel), Vec::new());
        self.model.get_mut(&db).unwrap().insert(rel, Vec::new());
    }

    fn write_out(&mut self, db: DbOid, rel: RelFork, block: Block, content: Content) {
        let node = self.node(db);
        self.write_out_as(&node, db, rel, block, content);
    }

    /// By who saw `node` when it began.
    fn write_out_as(
        &mut self,
        node: &Node,
        db: DbOid,
        rel: RelFork,
        block: Block,
        content: Content,
    ) {
        before_overwrite(&self.world, db, node, rel, block).unwrap();
        if self.is_fork(db) {
            let inherited = before_own_write(&self.world, db, node, rel).unwrap();
            put(&mut self.world.disk.borrow_mut(), db, rel, block, content);
            if block < inherited {
                self.world.set_bit(db, 0, rel, block).unwrap();
            }
        } else {
            put(&mut self.world.disk.borrow_mut(), db, rel, block, content);
        }
    }

    fn write(&mut self, db: DbOid, rel: RelFork, block: Block, value: u64) {
        self.lsn += 1;
        let copy = self.model.get_mut(&db).unwrap().get_mut(&rel).unwrap();
        if block as usize == copy.len() {
            copy.push(value);
            self.write_out(db, rel, block, (self.lsn, 0));
        } else {
            copy[block as usize] = value;
        }
        self.dirty.insert((db, rel, block), (self.lsn, value));
    }

    fn flush(&mut self, db: DbOid, rel: RelFork, block: Block) {
        if let Some(content) = self.dirty.remove(&(db, rel, block)) {
            self.write_out(db, rel, block, content);
        }
    }

    fn truncate(&mut self, db: DbOid, rel: RelFork, blocks: Block) {
        self.dirty
            .retain(|(d, r, b), _| *d != db || *r != rel || *b < blocks);
        let node = self.node(db);
        before_truncate(&self.world, db, &node, rel, blocks).unwrap();
        if self.is_fork(db) && before_own_write(&self.world, db, &node, rel).unwrap() > blocks {
            let state = MapState::Own {
                inherited_len: blocks,
            };
            self.world.set_state(db, 0, rel, state, true).unwrap();
        }
        if let Some(file) = self.world.disk.borrow_mut().files.get_mut(&(db, rel)) {
            file.truncate(blocks as usize);
        }
        let copy = self.model.get_mut(&db).unwrap().get_mut(&rel).unwrap();
        copy.truncate(blocks as usize);
    }

    /// Drops a relation. With a patience a crash may come between, after which nobody goes on: all is
    /// on disk, and stays there.
    fn unlink(&mut self, db: DbOid, rel: RelFork, patience: Option<u32>) {
        if patience.is_some() {
            let dirty: Vec<_> = self.dirty.keys().copied().collect();
            for (db, rel, block) in dirty {
                self.flush(db, rel, block);
            }
        }
        self.dirty.retain(|(d, r, _), _| *d != db || *r != rel);
        let node = self.node(db);
        self.world.patience.set(patience);
        let done = before_unlink(&self.world, db, &node, rel);
        self.world.patience.set(None);
        if done.is_err() {
            self.leaked.insert(rel);
            self.model.get_mut(&db).unwrap().remove(&rel);
            return;
        }
        if self.is_fork(db) {
            let state = fork_state(&self.world, db, &node, rel).unwrap();
            if matches!(state, MapState::Untouched { .. } | MapState::Own { .. }) {
                self.world
                    .set_state(db, 0, rel, MapState::Gone, true)
                    .unwrap();
            }
        }
        self.world.disk.borrow_mut().files.remove(&(db, rel));
        self.model.get_mut(&db).unwrap().remove(&rel);
    }

    /// A cut that fails late: its layer stays, and someone who was not stopped, and looked before
    /// there was that layer, writes a block after it.
    fn fail_cut(&mut self, db: DbOid, rel: RelFork, block: Block, value: u64, rels: &[RelFork]) {
        let before = self.node(db);
        self.add_layer(db, false);
        self.check(rels);
        self.dirty.remove(&(db, rel, block));
        self.lsn += 1;
        let content = (self.lsn, value);
        let copy = self.model.get_mut(&db).unwrap().get_mut(&rel).unwrap();
        copy[block as usize] = value;
        self.write_out_as(&before, db, rel, block, content);
    }

    /// A fork, with what is dirty captured (fork/capture.rs).
    fn cut(&mut self, db: DbOid) {
        let layer = self.add_layer(db, true);
        let fork = self.next;
        self.next += 1;
        self.world.nodes.insert(
            fork,
            Node {
                origin: Some(Origin {
                    parent: db,
                    seq: u64::from(layer),
                }),
                ..Node::default()
            },
        );
        self.cut_of.insert(fork, layer);
        self.model.insert(fork, self.model[&db].clone());
    }

    fn add_layer(&mut self, db: DbOid, sound: bool) -> DbOid {
        let layer = self.next;
        self.next += 1;
        // Of a cut that fails nothing is written.
        let dirty = self.dirty.iter().filter(|(key, _)| key.0 == db && sound);
        let (keys, pages): (Vec<_>, Vec<Content>) = dirty
            .map(|((_, rel, block), content)| ((*rel, *block), *content))
            .unzip();
        let captured = !keys.is_empty();
        if captured {
            let index = Captured::new(keys.into_iter());
            let mut file = vec![(0, 0); index.encode().len() / PAGE_SIZE];
            file.extend(pages);
            let place = (layer, RelFork::CAPTURED);
            self.world.disk.borrow_mut().files.insert(place, file);
            self.world.captured.insert(layer, index);
        }
        self.world
            .nodes
            .entry(db)
            .or_default()
            .layers
            .push(Rc::new(Layer {
                oid: layer,
                space: layer,
                seq: u64::from(layer),
                cut_lsn: self.lsn,
                kept: false,
                sound,
                captured,
            }));
        self.world.generation += 1;
        layer
    }

    fn drop_fork(&mut self, fork: DbOid, rels: &[RelFork]) {
        let parent = self.node(fork).origin.unwrap().parent;
        self.dirty.retain(|key, _| key.0 != fork);
        self.world.nodes.remove(&fork);
        self.forget(fork);
        self.cut_of.remove(&fork);
        self.model.remove(&fork);
        self.world.generation += 1;
        // Whatever is dead of the fork's own layers goes with it.
        self.clean_up(parent, None, rels);
    }

    fn forget(&mut self, oid: DbOid) {
        let mut disk = self.world.disk.borrow_mut();
        disk.files.retain(|key, _| key.0 != oid);
        disk.maps.retain(|key, _| key.0 != oid);
    }

    /// Removes and merges dead layers, unless cut short.
    fn clean_up(&mut self, db: DbOid, patience: Option<u32>, rels: &[RelFork]) {
        let layers = self.node(db).layers;
        let live = |oid: DbOid| self.cut_of.values().any(|layer| *layer == oid);
        let lives: Vec<_> = layers
            .iter()
            .map(|layer| LayerLife {
                oid: layer.oid,
                live: live(layer.oid),
            })
            .collect();
        for fate in fates(&lives) {
            let gone = match fate {
                Fate::Remove(oid) => oid,
                Fate::Merge { from, into } => {
                    let find = |oid| layers.iter().find(|layer| layer.oid == oid).unwrap();
                    let maps: Vec<RelFork> = {
                        let disk = self.world.disk.borrow();
                        let maps = disk.maps.keys().filter(|key| key.0 == from);
                        maps.map(|key| key.1).filter(|rel| rel.fork < 4).collect()
                    };
                    self.world.patience.set(patience);
                    let merged = maps.into_iter().try_for_each(|rel| {
                        let mut next = Some(0);
                        while let Some(first) = next {
                            next = merge(&self.world, find(from), find(into), rel, first)?;
                        }
                        Ok(())
                    });
                    self.world.patience.set(None);
                    match merged {
                        Ok(()) => {
                            // Some look while both layers are there yet.
                            if from % 3 == 0 {
                                self.check(rels);
                            }
                            self.world.merges.set(self.world.merges.get() + 1);
                            if from % 5 == 0 {
                                self.check(rels);
                            }
                            from
                        }
                        Err(EngineError::Host(CutShort)) => return,
                        Err(error) => panic!("{error:?}"),
                    }
                }
            };
            let node = self.world.nodes.get_mut(&db).unwrap();
            node.layers.retain(|layer| layer.oid != gone);
            self.world.generation += 1;
            self.forget(gone);
        }
    }

    fn read(&self, db: DbOid, rel: RelFork, block: Block) -> u64 {
        if let Some(content) = self.dirty.get(&(db, rel, block)) {
            return content.1;
        }
        let node = self.node(db);
        let mut page = [0; PAGE_SIZE];
        if self.is_fork(db) {
            let inherited = match fork_state(&self.world, db, &node, rel).unwrap() {
                MapState::Untouched { len } => block < len,
                MapState::Own { inherited_len } => {
                    block < inherited_len && !self.world.bit(db, 0, rel, block).unwrap()
                }
                _ => false,
            };
            if inherited {
                read_inherited(&self.world, &node, rel, block, &mut page).unwrap();
                return content_of(&page).1;
            }
        }
        let file = FileOf { oid: db, rel };
        assert_eq!(
            self.world.read_file(file, block, &mut page),
            Ok(Found::Page)
        );
        content_of(&page).1
    }

    fn check(&self, rels: &[RelFork]) {
        for (db, copy) in &self.model {
            let node = self.node(*db);
            for rel in rels {
                let wanted = copy.get(rel);
                if wanted.is_none() && self.leaked.contains(rel) {
                    continue;
                }
                let len = current_len(&self.world, *db, &node, *rel).unwrap();
                assert_eq!(
                    len,
                    wanted.map(|copy| copy.len() as u32),
                    "length of {rel:?} in {db}"
                );
                for (block, value) in wanted.into_iter().flatten().enumerate() {
                    assert_eq!(
                        self.read(*db, *rel, block as u32),
                        *value,
                        "block {block} of {rel:?} in {db}"
                    );
                }
            }
        }
    }
}

/// With up to `most` databases, in two of three steps of the first, and a look at all of them each
/// `look` steps.
fn run(seed: u64, steps: u32, most: usize, look: u32) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut server = Server {
        next: 10,
        ..Server::default()
    };
    server.model.insert(1, BTreeMap::new());
    let mut rels: Vec<RelFork> = Vec::new();
    for step in 0..steps {
        let dbs: Vec<DbOid> = server.model.keys().copied().collect();
        let db = match random(3) {
            0 => dbs[random(dbs.len())],
            _ => 1,
        };
        let present: Vec<RelFork> = server.model[&db].keys().copied().collect();
        let rel = (!present.is_empty()).then(|| present[random(present.len().max(1))]);
        let len = rel.map_or(0, |rel| server.model[&db][&rel].len());
        match (random(20), rel) {
            // A number is never used twice, as after `GetNewRelFileNode`.
            (0, _) if rels.len() < 12 => {
                let rel = RelFork {
                    spc: 1663,
                    rel: rels.len() as u32,
                    fork: 0,
                };
                rels.push(rel);
                server.create(db, rel);
            }
            (1..=8, Some(rel)) if len > 0 => {
                server.write(db, rel, random(len) as u32, u64::from(step))
            }
            (9 | 10, Some(rel)) => server.write(db, rel, len as u32, u64::from(step)),
            (11..=13, _) => {
                let dirty: Vec<_> = server.dirty.keys().copied().collect();
                for _ in 0..dirty.len().min(4) {
                    let (db, rel, block) = dirty[random(dirty.len())];
                    server.flush(db, rel, block);
                }
            }
            (14, Some(rel)) => server.truncate(db, rel, random(len + 1) as u32),
            (15, Some(rel)) if random(3) == 0 => {
                let patience = (random(3) == 0).then(|| random(8) as u32);
                server.unlink(db, rel, patience)
            }
            (16, Some(rel)) if len > 0 && random(5) == 0 => {
                server.fail_cut(db, rel, random(len) as u32, u64::from(step), &rels)
            }
            (16, _) if dbs.len() < most => server.cut(db),
            (17 | 18, _) => {
                let db = dbs[random(dbs.len())];
                if !server.is_fork(db) {
                    continue;
                }
                let parents = server
                    .world
                    .nodes
                    .values()
                    .filter_map(|n| n.origin.as_ref());
                if parents.into_iter().all(|origin| origin.parent != db) {
                    server.drop_fork(db, &rels);
                }
            }
            (19, _) => server.clean_up(db, Some(random(30) as u32), &rels),
            _ => {}
        }
        if step % look == 0 {
            server.check(&rels);
        }
    }
    server.check(&rels);
}

#[test]
fn behaves_like_whole_copies() {
    for seed in 0..150 {
        let (most, look) = [(9, 7), (14, 2), (20, 23)][seed as usize % 3];
        let outcome = std::panic::catch_unwind(|| run(seed, 600, most, look));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

#[test]
fn a_block_is_settled_for_each_cut_on_its_way_innermost_first() {
    let rel = RelFork {
        spc: 1663,
        rel: 1,
        fork: 0,
    };
    // Of the source 1 the fork 2, of that 3, of that 4; their cuts have the layers 11, 12, 13.
    let node = |oid: DbOid| {
        let layer = Layer {
            oid: 10 + oid,
            space: 10 + oid,
            seq: oid.into(),
            cut_lsn: 5,
            kept: true,
            sound: true,
            captured: false,
        };
        Node {
            space: oid,
            origin: (oid > 1).then(|| Origin {
                parent: oid - 1,
                seq: (oid - 1).into(),
            }),
            layers: vec![Rc::new(layer)],
        }
    };
    let world = World {
        nodes: (1..=4).map(|oid| (oid, node(oid))).collect(),
        ..World::default()
    };
    put(&mut world.disk.borrow_mut(), 1, rel, 0, (5, 70));
    let read = || {
        let mut page = [0; PAGE_SIZE];
        let found = read_inherited(&world, &world.nodes[&4], rel, 0, &mut page);
        (found.map(|_| content_of(&page).1), world.settled.take())
    };
    assert_eq!(read(), (Ok(70), vec![11, 12, 13]));
    // A block of the nearest one's own is no business of the cuts before it.
    assert_eq!(before_own_write(&world, 3, &world.nodes[&3], rel), Ok(1));
    put(&mut world.disk.borrow_mut(), 3, rel, 0, (5, 71));
    world.set_bit(3, 3, rel, 0).expect("set");
    assert_eq!(read(), (Ok(71), vec![13]));
}
