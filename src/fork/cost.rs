//! What forks cost on disk: each file counts once, so the sum is what all of them take; and what the end of
//! one gives back.

use crate::fork::files;
use crate::shmem::registry::{self, ForkState, Slot, Use};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What one fork costs, in bytes of storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Its own files, and those of its base.
    pub private: i64,
    /// The pre-images of its cut; of forks that share a cut the oldest has them.
    pub preimages: i64,
    /// What is free again once it is dropped: nothing as long as it has forks of its own.
    pub freed: i64,
}

/// What lies in a folder.
#[derive(Default)]
struct Folder {
    all: i64,
    /// What goes with it, because no other folder has a link to it.
    alone: i64,
    /// Of that, relations and their maps: what an invalid fork lets go of.
    relations: i64,
    /// Files to which there are other links.
    linked: Vec<Linked>,
}

/// A file with several links.
#[derive(Clone, Copy)]
struct Linked {
    file: (u64, u64),
    links: u64,
    bytes: i64,
}

/// What goes with all of these folders.
fn alone(folders: &[&Folder]) -> i64 {
    let mut found: HashMap<(u64, u64), u64> = HashMap::new();
    let mut bytes = folders.iter().map(|folder| folder.alone).sum();
    for linked in folders.iter().flat_map(|folder| &folder.linked) {
        let links = found.entry(linked.file).or_default();
        *links += 1;
        if *links == linked.links {
            bytes += linked.bytes;
        }
    }
    bytes
}

/// Measures folders, and counts a file with several links once.
struct Scale {
    spaces: Vec<u32>,
    /// Only what lies on this filesystem.
    device: Option<u64>,
    linked: HashSet<(u64, u64)>,
}

impl Scale {
    fn weigh(&mut self, oid: u32) -> Folder {
        let mut folder = Folder::default();
        for at in 0..self.spaces.len() {
            let path = files::real_dir(oid, self.spaces[at]);
            let Ok(found) = fs::metadata(&path) else {
                continue;
            };
            if self.device.is_none_or(|device| device == found.dev()) {
                self.weigh_in(&path, &found, &mut folder);
            }
        }
        folder
    }

    fn weigh_in(&mut self, path: &Path, found: &fs::Metadata, folder: &mut Folder) {
        let bytes = |found: &fs::Metadata| found.blocks() as i64 * 512;
        folder.all += bytes(found);
        folder.alone += bytes(found);
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.nlink() > 1 {
                let linked = Linked {
                    file: (found.dev(), found.ino()),
                    links: found.nlink(),
                    bytes: bytes(&found),
                };
                if self.linked.insert(linked.file) {
                    folder.all += linked.bytes;
                }
                if linked.bytes > 0 {
                    folder.linked.push(linked);
                }
                continue;
            }
            folder.all += bytes(&found);
            folder.alone += bytes(&found);
            if files::is_relation(&entry.file_name()) {
                folder.relations += bytes(&found);
            }
        }
    }
}

/// All forks and layers, each with what lies in its folder.
struct Inventory {
    slots: HashMap<u32, Slot>,
    folders: HashMap<u32, Folder>,
    /// By source, oldest first.
    layers: HashMap<u32, Vec<u32>>,
    /// By source: those that are not being dropped.
    forks: HashMap<u32, Vec<u32>>,
    /// By layer, oldest first.
    cut_at: HashMap<u32, Vec<u32>>,
}

impl Inventory {
    /// Looks into each folder once. May be cancelled.
    fn take(device: Option<u64>) -> Self {
        let mut all: Vec<Slot> = registry::read(|table| table.iter().copied().collect());
        // Layers first, because what they share with forks is theirs.
        all.sort_by_key(|slot| (!slot.is_layer(), slot.seq, slot.oid));
        let mut scale = Scale {
            spaces: files::tablespaces(),
            device,
            linked: HashSet::new(),
        };
        let mut inventory = Inventory {
            slots: HashMap::new(),
            folders: HashMap::new(),
            layers: HashMap::new(),
            forks: HashMap::new(),
            cut_at: HashMap::new(),
        };
        for slot in all {
            pgrx::check_for_interrupts!();
            inventory.folders.insert(slot.oid, scale.weigh(slot.oid));
            inventory.slots.insert(slot.oid, slot);
            if slot.is_layer() {
                let layers = inventory.layers.entry(slot.source).or_default();
                layers.push(slot.oid);
            } else if slot.is_fork() && slot.state != ForkState::Dropping {
                let forks = inventory.forks.entry(slot.source).or_default();
                forks.push(slot.oid);
                let cut_at = inventory.cut_at.entry(slot.layer).or_default();
                cut_at.push(slot.oid);
            }
        }
        inventory
    }

    fn folder(&self, oid: u32) -> &Folder {
        static NONE: Folder = Folder {
            all: 0,
            alone: 0,
            relations: 0,
            linked: Vec::new(),
        };
        self.folders.get(&oid).unwrap_or(&NONE)
    }

    fn is_live(&self, layer: u32) -> bool {
        self.slots.get(&layer).is_some_and(|slot| slot.forks > 0)
    }

    /// What goes with the last fork of this cut: its layer and the dead ones after it, if no older cut is live.
    /// Else they are kept for the older ones.
    fn layers_freed(&self, fork: &Slot) -> Vec<&Folder> {
        let Some(layer) = self.slots.get(&fork.layer) else {
            return Vec::new();
        };
        let others = layer.forks.saturating_sub(1 + u32::from(fork.twin != 0));
        let layers = self.layers.get(&fork.source).map_or(&[][..], Vec::as_slice);
        let oldest = layers.iter().position(|layer| self.is_live(*layer));
        match oldest {
            Some(at) if layers[at] == fork.layer && others == 0 => {
                let after = layers[at + 1..].iter();
                let dead = after.take_while(|layer| !self.is_live(**layer));
                let gone = std::iter::once(&layers[at]).chain(dead);
                gone.map(|layer| self.folder(*layer)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// What each fork costs. Looks into each folder once; may be cancelled.
pub fn all() -> HashMap<u32, Cost> {
    let inventory = Inventory::take(None);
    let mut costs: HashMap<u32, Cost> = HashMap::new();
    for slot in inventory.slots.values().filter(|slot| slot.is_fork()) {
        let own = inventory.folder(slot.oid);
        let base = inventory.folder(slot.twin);
        let cost = costs.entry(slot.oid).or_default();
        cost.private = own.all + base.all;
        if !inventory.forks.contains_key(&slot.oid) {
            let mut gone = inventory.layers_freed(slot);
            gone.extend([own, base]);
            cost.freed = alone(&gone);
        }
    }
    for layers in inventory.layers.values() {
        let mut owner = None;
        for layer in layers {
            let cut_here = inventory.cut_at.get(layer).and_then(|forks| forks.first());
            // A dead one is merged into the one before.
            owner = cut_here.copied().or(owner);
            if let Some(cost) = owner.and_then(|owner| costs.get_mut(&owner)) {
                cost.preimages += inventory.folder(*layer).all;
            }
        }
    }
    costs
}

/// A live fork that could end, with all forks of it.
pub struct End {
    pub fork: u32,
    pub seq: u64,
    /// What that gives back, and how many forks it takes.
    pub freed: i64,
    pub forks: i64,
}

/// What the end of each live fork gives back on a filesystem, where that is anything; the most for each fork that
/// ends first.
pub fn ends(device: u64) -> Vec<End> {
    let inventory = Inventory::take(Some(device));
    let mut ends = Vec::new();
    for slot in inventory.slots.values() {
        if slot.used != Use::Fork || slot.state != ForkState::Ready {
            continue;
        }
        let (mut doomed, mut at) = (vec![slot.oid], 0);
        let mut freed = alone(&inventory.layers_freed(slot));
        while at < doomed.len() {
            let oid = doomed[at];
            let twin = inventory.slots.get(&oid).map_or(0, |slot| slot.twin);
            freed += inventory.folder(oid).relations + inventory.folder(twin).relations;
            if let Some(forks) = inventory.forks.get(&oid) {
                doomed.extend(forks);
                let layers = inventory.layers.get(&oid).into_iter().flatten();
                freed += layers
                    .map(|layer| inventory.folder(*layer).alone)
                    .sum::<i64>();
            }
            at += 1;
        }
        if freed > 0 {
            let (fork, seq, forks) = (slot.oid, slot.seq, doomed.len() as i64);
            ends.push(End {
                fork,
                seq,
                freed,
                forks,
            });
        }
    }
    ends.sort_by_key(|end| std::cmp::Reverse((end.freed / end.forks, end.seq)));
    ends
}
