//! Runs of pgbench.

use crate::stats::Samples;
use pg_fork_tests::Cluster;
use std::fs;
use std::process::Child;

/// What the clients run.
#[derive(Clone, Copy)]
pub enum Script {
    Tpcb,
    SelectOnly,
}

pub const CLIENTS: &str = "8";

/// A run that is under way.
pub struct Running {
    child: Child,
    log: Option<String>,
}

/// What a run came to.
pub struct Done {
    pub tps: f64,
    /// Each transaction's latency in ms; none unless asked for.
    pub latencies: Vec<f64>,
}

pub fn start(cluster: &Cluster, db: &str, script: Script, seconds: u32, log: bool) -> Running {
    let seconds = seconds.to_string();
    let builtin = match script {
        Script::Tpcb => "tpcb-like",
        Script::SelectOnly => "select-only",
    };
    let mut args = vec!["-n", "-M", "prepared", "-c", CLIENTS, "-j", "2"];
    args.extend(["-b", builtin, "-T", &seconds]);
    let folder = log.then(|| cluster.folder("pgbench-log"));
    let prefix = folder.as_ref().map(|folder| format!("{folder}/log"));
    if let Some(prefix) = &prefix {
        args.extend(["-l", "--log-prefix", prefix]);
    }
    args.push(db);
    Running {
        child: cluster.spawn("pgbench", &args),
        log: folder,
    }
}

pub fn run(cluster: &Cluster, db: &str, script: Script, seconds: u32) -> f64 {
    start(cluster, db, script, seconds, false).finish().tps
}

impl Running {
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("waited for").is_some()
    }

    pub fn finish(self) -> Done {
        let out = self.child.wait_with_output().expect("pgbench ends");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(
            out.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let latencies = self.log.map_or(Vec::new(), |folder| {
            let latencies = read_logs(&folder);
            fs::remove_dir_all(folder).expect("removed");
            latencies
        });
        Done {
            tps: tps(&text).expect("pgbench says its tps"),
            latencies,
        }
    }
}

impl Done {
    pub fn samples(&self) -> Samples {
        Samples::new(self.latencies.clone())
    }
}

fn tps(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split(' ').next()?.parse().ok()
}

fn read_logs(folder: &str) -> Vec<f64> {
    let files = fs::read_dir(folder).expect("a folder").flatten();
    let texts = files.map(|file| fs::read_to_string(file.path()).expect("a log"));
    texts
        .flat_map(|text| text.lines().filter_map(latency).collect::<Vec<_>>())
        .collect()
}

/// Of a line: client, number, microseconds, script, when.
fn latency(line: &str) -> Option<f64> {
    let micros: f64 = line.split(' ').nth(2)?.parse().ok()?;
    Some(micros / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_prints_is_understood() {
        let text = "latency average = 2 ms\ntps = 1693.413 (without initial connection time)\n";
        assert_eq!(tps(text), Some(1693.413));
        assert_eq!(latency("3 17 4870 0 1700000000 123456"), Some(4.87));
        assert_eq!(latency("3 17 skipped 0 1700000000 123456"), None);
    }
}
