//! What is in a server's files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Every file in a folder and in those below, by its path from there.
pub fn files(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    walk(Path::new(folder), "", &mut found);
    found
}

fn walk(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("the folder").flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("a file").is_dir() {
            walk(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name, fs::read(entry.path()).expect("readable"));
        }
    }
}

/// Fails unless both have the same files with the same bytes.
pub fn assert_same(here: &BTreeMap<String, Vec<u8>>, there: &BTreeMap<String, Vec<u8>>) {
    let names = here.keys().chain(there.keys());
    let differ: Vec<_> = names
        .filter(|name| here.get(*name) != there.get(*name))
        .collect();
    assert!(differ.is_empty(), "files differ: {differ:?}");
}
