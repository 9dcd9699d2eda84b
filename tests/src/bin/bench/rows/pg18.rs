//! PostgreSQL 18's `file_copy_method = clone`, on an XFS with reflinks in a file.

use crate::bench::{self, timed, Bench};
use crate::line::{Line, Outcome};
use crate::stats::Samples;
use postgres::{Client, Config, NoTls};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The server, and what it stands on; both go with it.
struct Server {
    bin: PathBuf,
    dir: PathBuf,
    mounted: bool,
}

pub fn run(bench: &Bench) -> Outcome {
    match clones(bench) {
        Ok((idle, written)) => against(bench, idle, written),
        Err(why) => Outcome {
            skipped: vec![format!("PostgreSQL 18's reflink clone: {why}")],
            ..Outcome::default()
        },
    }
}

fn against(bench: &Bench, idle: Vec<f64>, written: Vec<f64>) -> Outcome {
    let cluster = bench.main();
    let mut client = cluster.client("postgres");
    let mut creates = |write: bool| {
        let forks = (0..bench.options.rounds).map(|_| {
            if write {
                cluster.must("pgbench", &["-n", "-c", "8", "-T", "2", "prod"]);
            }
            let (ms, fork) = bench::create(&mut client, "prod");
            bench::drop_fork(&mut client, &fork);
            ms
        });
        Samples::new(forks.collect())
    };
    let size = bench.size();
    let line = |what: &str, peer: Vec<f64>, forks: Samples| {
        let what = format!("reflink clone, {what}, {size}");
        Line::ratio(what, Samples::new(peer), &forks, "× fork_create").at_least(1.0)
    };
    let lines = vec![
        line("idle", idle, creates(false)),
        line("after writes", written, creates(true)),
    ];
    lines.into()
}

/// Milliseconds of each clone of an idle database, and of one just written to.
fn clones(bench: &Bench) -> Result<(Vec<f64>, Vec<f64>), String> {
    let bin = std::env::var_os("PG18_BIN").ok_or("PG18_BIN is not set")?;
    let server = Server::start(Path::new(&bin))?;
    server.pgbench(&["-qi", "-s", &bench.options.scale.to_string()])?;
    let mut client = server.client()?;
    client
        .batch_execute("CHECKPOINT")
        .map_err(|error| error.to_string())?;
    let (mut idle, mut written) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds {
        idle.push(clone(&mut client)?);
        server.pgbench(&["-n", "-c", "8", "-T", "2"])?;
        written.push(clone(&mut client)?);
    }
    Ok((idle, written))
}

fn clone(client: &mut Client) -> Result<f64, String> {
    let sql = "CREATE DATABASE copy TEMPLATE prod STRATEGY file_copy";
    let (ms, done) = timed(|| client.batch_execute(sql));
    done.and_then(|()| client.batch_execute("DROP DATABASE copy"))
        .map_err(|error| error.to_string())?;
    Ok(ms)
}

impl Server {
    fn start(bin: &Path) -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("pgfork-18-{}", std::process::id()));
        fs::create_dir_all(dir.join("mount")).map_err(|error| error.to_string())?;
        let mut server = Server {
            bin: bin.into(),
            dir,
            mounted: false,
        };
        let (image, mount) = (server.dir.join("image"), server.dir.join("mount"));
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(16 << 30).map_err(|error| error.to_string())?;
        ran(Command::new("mkfs.xfs")
            .args(["-q", "-m", "reflink=1"])
            .arg(&image))?;
        ran(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&mount))?;
        server.mounted = true;
        ran(Command::new("chown")
            .arg("-R")
            .arg("postgres")
            .arg(&server.dir))?;
        let data = server.data();
        ran(server
            .program("initdb")
            .args(["-N", "-A", "trust", "-U", "postgres", "-D", &data]))?;
        let settings = format!(
            "\nlisten_addresses = ''\nunix_socket_directories = '{}'\nfile_copy_method = clone\n{}",
            server.dir.display(),
            bench::SETTINGS
        );
        let conf = format!("{data}/postgresql.conf");
        let before = fs::read_to_string(&conf).map_err(|error| error.to_string())?;
        fs::write(&conf, before + &settings).map_err(|error| error.to_string())?;
        let log = server.dir.join("log").display().to_string();
        ran(server
            .program("pg_ctl")
            .args(["-D", &data, "-l", &log, "-w", "start"]))?;
        let mut client = server.client()?;
        client
            .batch_execute("CREATE DATABASE prod")
            .map_err(|error| error.to_string())?;
        Ok(server)
    }

    fn data(&self) -> String {
        self.dir.join("mount/data").display().to_string()
    }

    fn client(&self) -> Result<Client, String> {
        let mut config = Config::new();
        config
            .host_path(&self.dir)
            .user("postgres")
            .dbname("postgres");
        config.connect(NoTls).map_err(|error| error.to_string())
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new("runuser");
        command
            .args(["-u", "postgres", "--"])
            .arg(self.bin.join(name));
        command.current_dir(&self.dir);
        command
    }

    /// Ours: not every package of an 18 has it.
    fn pgbench(&self, args: &[&str]) -> Result<(), String> {
        let program = pg_fork_tests::pg_config("--bindir").join("pgbench");
        let mut command = Command::new(program);
        command
            .args(args)
            .args(["-U", "postgres", "-h"])
            .arg(&self.dir)
            .arg("prod");
        ran(&mut command)
    }
}

fn ran(command: &mut Command) -> Result<(), String> {
    let name = format!("{command:?}");
    // To nowhere: a server would keep a pipe open.
    let status = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .map_err(|error| format!("{name}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{name} failed"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data();
        let _ = ran(self
            .program("pg_ctl")
            .args(["-D", &data, "-m", "immediate", "-w", "stop"]));
        if self.mounted {
            let _ = ran(Command::new("umount").arg(self.dir.join("mount")));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
