//! A small filesystem in memory, to be filled up.

use crate::Cluster;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn must(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    assert!(
        status.expect("it runs").success(),
        "{program} {}",
        args.join(" ")
    );
}

/// A small filesystem in memory. Gone with the value.
pub struct Small(PathBuf);

impl Small {
    /// For a folder that is there, and empty.
    pub fn at(path: &str, megabytes: u32) -> Self {
        let options = format!("size={megabytes}m,mode=700");
        must("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", path]);
        must("chown", &["postgres", path]);
        Small(path.into())
    }

    /// For all that is ours in a cluster: WAL and the source's files lie elsewhere.
    pub fn over(cluster: &Cluster, megabytes: u32) -> Self {
        cluster.stop("fast");
        let root = Path::new(&cluster.data()).join("pgsql_tmp_pg_fork");
        let aside = root.with_extension("aside");
        fs::rename(&root, &aside).expect("renamed");
        fs::create_dir(&root).expect("made");
        let path = root.display().to_string();
        let small = Small::at(&path, megabytes);
        must("cp", &["-a", &format!("{}/.", aside.display()), &path]);
        cluster.start();
        small
    }

    /// Takes all the room there is, but so many kilobytes.
    pub fn fill(&self, but: u64) {
        let out = Command::new("df")
            .args(["--output=avail", "-k"])
            .arg(&self.0)
            .output();
        let text = String::from_utf8(out.expect("df runs").stdout).expect("text");
        let free: u64 = text
            .lines()
            .nth(1)
            .and_then(|n| n.trim().parse().ok())
            .expect("a number");
        let name = format!("ballast{free}");
        let file = fs::File::create(self.0.join(name)).expect("a file");
        file.write_all_at(&vec![1; 1024 * free.saturating_sub(but) as usize], 0)
            .expect("there is room");
    }

    pub fn empty(&self) {
        for entry in fs::read_dir(&self.0).expect("the folder").flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"ballast") {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
