//! Peers that are no PostgreSQL server.

use crate::bench::{self, timed, Bench};
use crate::line::{Line, Outcome};
use crate::stats::Samples;
use std::fs;
use std::path::Path;
use std::process::Command;

const PACKAGE: &str = "@electric-sql/pglite";
/// Rows that come to some 15 MB.
const ROWS: &str = "100000";

/// PGlite is one session on a file system in memory: its clone, and a first query in it.
pub fn pglite(bench: &Bench) -> Outcome {
    let times = if bench.options.smoke { "1" } else { "10" };
    let measured = install(&bench.options.out).and_then(|folder| clones(&folder, times));
    let copies = match measured {
        Ok(copies) => Samples::new(copies),
        Err(why) => {
            return Outcome {
                skipped: vec![format!("PGlite's clone(): {why}")],
                ..Outcome::default()
            }
        }
    };
    let cluster = bench::server("");
    bench::fill(&cluster, "prod", 1);
    let mut client = cluster.client("postgres");
    let forks = (0..bench.options.samples).map(|_| {
        let (ms, fork) = timed(|| {
            let (_, fork) = bench::create(&mut client, "prod");
            let sql = "SELECT abalance FROM pgbench_accounts WHERE aid = 1";
            cluster.client(&fork).query_one(sql, &[]).expect("a row");
            fork
        });
        bench::drop_fork(&mut client, &fork);
        ms
    });
    let forks = Samples::new(forks.collect());
    let what = "clone() and a query, 15 MB, in memory";
    vec![Line::ratio(
        what,
        copies,
        &forks,
        "× fork_create, connect and a query",
    )]
    .into()
}

/// Where the package and the program that uses it are.
fn install(out: &Path) -> Result<std::path::PathBuf, String> {
    let folder = out.join("node");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    if !folder.join("node_modules").join(PACKAGE).exists() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-save", "--silent", "--prefix"]);
        said(npm.arg(&folder).arg(PACKAGE))?;
    }
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/pglite_clone.mjs");
    // A module looks for packages beside itself.
    fs::copy(program, folder.join("clone.mjs")).map_err(|error| error.to_string())?;
    Ok(folder)
}

fn clones(folder: &Path, times: &str) -> Result<Vec<f64>, String> {
    let mut node = Command::new("node");
    let text = said(node.arg(folder.join("clone.mjs")).args([ROWS, times]))?;
    let numbers = text
        .lines()
        .map(|line| line.parse().map_err(|_| line.to_string()));
    numbers.collect()
}

/// What the program prints, or why it did not.
fn said(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if !out.status.success() {
        let error = String::from_utf8_lossy(&out.stderr);
        let first = error
            .lines()
            .find(|line| line.contains("rror"))
            .unwrap_or("failed");
        return Err(format!("{name}: {first}"));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
