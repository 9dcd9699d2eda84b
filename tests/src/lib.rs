//! A private PostgreSQL server for one test: made in a temporary directory, stopped with the test.
//!
//! The server runs as the user `postgres` (initdb refuses root) on a socket only it has.

pub mod attach;
pub mod dump;
pub mod files;
pub mod pooler;
pub mod regress;
pub mod small;

use postgres::{Client, Config, NoTls};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A running server.
pub struct Cluster {
    dir: PathBuf,
    bin: PathBuf,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Where the server under test has this: `--bindir`, for one.
pub fn pg_config(what: &str) -> PathBuf {
    let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into());
    let out = Command::new(pg_config)
        .arg(what)
        .output()
        .expect("pg_config runs");
    String::from_utf8(out.stdout).expect("a path").trim().into()
}

impl Cluster {
    /// A new server with pg_fork preloaded, the extension in `postgres`, and these settings.
    pub fn new(settings: &str) -> Self {
        Self::made(settings, &["-k"])
    }

    /// The same, made by initdb with these options: `-k` is for data checksums.
    pub fn made(settings: &str, initdb: &[&str]) -> Self {
        let cluster = Self::bare(
            // Machines that run tests are busy: what a cut takes by default is for the benchmark to say.
            &format!("shared_preload_libraries = 'pg_fork'\npg_fork.cut_timeout = 5s\n{settings}"),
            initdb,
        );
        cluster.sql("postgres", "CREATE EXTENSION pg_fork");
        cluster
    }

    /// A new server with these settings and initdb options.
    pub fn bare(settings: &str, initdb: &[&str]) -> Self {
        let cluster = Self::unstarted(settings, initdb);
        cluster.start();
        cluster
    }

    /// A directory for a server.
    fn place() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("pgfork-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let chown = Command::new("chown")
            .arg("postgres")
            .arg(&dir)
            .status()
            .expect("chown runs");
        assert!(chown.success());
        let bin = pg_config("--bindir");
        Cluster { dir, bin }
    }

    /// As [`Cluster::bare`], before its first start.
    pub fn unstarted(settings: &str, initdb: &[&str]) -> Self {
        let cluster = Self::place();
        let data = cluster.data();
        let mut args = vec!["-D", &data, "-A", "trust", "-U", "postgres", "-N"];
        args.extend(initdb);
        cluster.must("initdb", &args);
        cluster.set(&format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nport = 5432\nmax_connections = 150\n\
             max_prepared_transactions = 10\n{settings}",
            cluster.dir.display()
        ));
        cluster
    }

    /// A copy of this server, which does not run, with these settings on top of this one's.
    pub fn twin(&self, settings: &str) -> Self {
        let twin = Self::place();
        let copied = Command::new("cp")
            .args(["-a", &self.data(), &twin.data()])
            .status();
        assert!(copied.expect("cp runs").success());
        twin.set(&format!(
            "unix_socket_directories = '{}'\n{settings}",
            twin.dir.display()
        ));
        twin
    }

    /// Adds to the settings; they count from the next start.
    pub fn set(&self, settings: &str) {
        let conf = format!("{}/postgresql.conf", self.data());
        let before = fs::read_to_string(&conf).expect("the settings");
        fs::write(&conf, format!("{before}\n{settings}\n")).expect("written");
    }

    /// A standby that streams from this server, with these settings on top of this server's.
    pub fn standby(&self, settings: &str) -> Self {
        let standby = Self::place();
        self.must(
            "pg_basebackup",
            &["-D", &standby.data(), "-c", "fast", "-X", "stream", "-R"],
        );
        standby.set(&format!(
            "unix_socket_directories = '{}'\n{settings}",
            standby.dir.display()
        ));
        standby.start();
        standby
    }

    /// The data directory.
    pub fn data(&self) -> String {
        self.dir.join("data").display().to_string()
    }

    /// A new folder beside the data directory, for a tablespace.
    pub fn folder(&self, name: &str) -> String {
        let path = self.dir.join(name).display().to_string();
        let made = Command::new("runuser")
            .args(["-u", "postgres", "--", "mkdir", &path])
            .status();
        assert!(made.expect("mkdir runs").success());
        path
    }

    /// A client library's session, as this role.
    pub fn client_as(&self, role: &str, db: &str) -> Client {
        let params = format!("host={} user={role} dbname={db}", self.dir.display());
        Client::connect(&params, NoTls).expect("connects")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("runuser");
        command
            .args(["-u", "postgres", "--"])
            .arg(self.bin.join(program));
        command
            .current_dir(&self.dir)
            .env("PGHOST", &self.dir)
            .env("PGPORT", "5432")
            .env("PGUSER", "postgres");
        command
    }

    /// Runs one of PostgreSQL's programs.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("the program runs")
    }

    /// Runs one of PostgreSQL's programs, which must succeed.
    pub fn must(&self, program: &str, args: &[&str]) -> String {
        let out = self.run(program, args);
        let (stdout, stderr) = (
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr),
        );
        assert!(
            out.status.success(),
            "{program} {args:?}: {stdout}{stderr}\n{}",
            self.log_tail()
        );
        stdout.trim().to_string()
    }

    /// Starts a program and leaves it running.
    pub fn spawn(&self, program: &str, args: &[&str]) -> Child {
        let mut command = self.command(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("the program starts")
    }

    pub fn start(&self) {
        // To a file: a pipe would stay open as long as the server runs.
        let log = self.dir.join("log").display().to_string();
        let status = self
            .command("pg_ctl")
            .args(["-D", &self.data(), "-l", &log, "-w", "start"])
            .stdout(Stdio::null())
            .status()
            .expect("pg_ctl runs");
        assert!(status.success(), "{}", self.log_tail());
    }

    /// A connection, if the server lets one in.
    pub fn try_client(&self, db: &str) -> Option<Client> {
        let mut config = Config::new();
        config.host_path(&self.dir).user("postgres").dbname(db);
        config.connect(NoTls).ok()
    }

    /// As [`sums`], if the server answers.
    pub fn try_sums(&self, db: &str) -> Option<String> {
        let out = self.run("psql", &["-XAtq", "-d", db, "-c", SUMS]);
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).trim().to_string())
    }

    /// Waits until the server lets sessions in.
    pub fn wait_until_up(&self) {
        let up = (0..600).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            self.try_client("postgres").is_some()
        });
        assert!(up, "the server is not up: {}", self.log_tail());
    }

    /// The postmaster's process id; `None` if there is none.
    pub fn pid(&self) -> Option<String> {
        let file = fs::read_to_string(format!("{}/postmaster.pid", self.data())).ok()?;
        file.lines().next().map(String::from)
    }

    /// Whether the server has ended; waits for that if it is on its way.
    pub fn is_gone(&self) -> bool {
        for _ in 0..100 {
            let ready = self.run("pg_isready", &["-q"]).status.code();
            match (ready, self.pid()) {
                (Some(0), _) => return false,
                (_, None) => return true,
                _ => std::thread::sleep(std::time::Duration::from_millis(100)),
            }
        }
        panic!("the server is neither up nor down: {}", self.log_tail());
    }

    pub fn stop(&self, mode: &str) {
        self.must("pg_ctl", &["-D", &self.data(), "-m", mode, "-w", "stop"]);
    }

    /// A connection as a superuser.
    pub fn client(&self, db: &str) -> Client {
        let mut config = Config::new();
        config.host_path(&self.dir).user("postgres").dbname(db);
        config
            .connect(NoTls)
            .unwrap_or_else(|error| panic!("{db}: {error}\n{}", self.log_tail()))
    }

    /// What the statements print, unaligned; they must succeed. Each is sent by itself, so those that
    /// cannot run in a transaction block can stand among them.
    pub fn sql(&self, db: &str, sql: &str) -> String {
        let mut args = vec!["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", db];
        for statement in sql.split("; ") {
            args.extend(["-c", statement]);
        }
        self.must("psql", &args)
    }

    /// A session that runs a script line by line, each line in the state the last one left.
    pub fn script(&self, db: &str, lines: &str) -> Output {
        let path = self.dir.join(format!(
            "script-{}.sql",
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::write(&path, lines).expect("written");
        self.run(
            "psql",
            &[
                "-XAtq",
                "-v",
                "VERBOSITY=verbose",
                "-d",
                db,
                "-f",
                &path.display().to_string(),
            ],
        )
    }

    /// The SQLSTATE and messages of a statement that must fail.
    pub fn error(&self, db: &str, sql: &str) -> String {
        let out = self.run(
            "psql",
            &[
                "-XAtq",
                "-v",
                "VERBOSITY=verbose",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                db,
                "-c",
                sql,
            ],
        );
        assert!(
            !out.status.success(),
            "{sql} did not fail: {}",
            String::from_utf8_lossy(&out.stdout)
        );
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    /// Fails unless the statement fails with this SQLSTATE.
    pub fn expect_error(&self, db: &str, sql: &str, state: &str) -> String {
        let error = self.error(db, sql);
        assert!(
            error.contains(&format!(" {state}: ")),
            "{sql}: expected {state}, got {error}"
        );
        error
    }

    /// Fails if the database has a damaged table or index.
    pub fn amcheck(&self, db: &str) {
        self.sql(db, "CREATE EXTENSION IF NOT EXISTS amcheck");
        self.must(
            "pg_amcheck",
            &["-d", db, "--heapallindexed", "--parent-check"],
        );
    }

    /// Folders of forks and layers.
    pub fn folders(&self) -> usize {
        let root = format!("{}/pgsql_tmp_pg_fork", self.data());
        let entries = fs::read_dir(root).expect("the folder").flatten();
        let is_numbered = |name: &std::ffi::OsStr| {
            name.to_str()
                .is_some_and(|name| name.parse::<u32>().is_ok())
        };
        entries
            .filter(|entry| entry.path().is_dir() && is_numbered(&entry.file_name()))
            .count()
    }

    /// Waits until the worker has removed all but so many folders.
    pub fn wait_for_folders(&self, most: usize) {
        let waited = (0..600).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            self.folders() <= most
        });
        assert!(waited, "{} folders are left", self.folders());
    }

    /// The server's whole log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let (before, tail) = lines.split_at(lines.len().saturating_sub(40));
        // What a server with assertions says stands before a long stack.
        let traps = before.iter().filter(|line| line.starts_with("TRAP"));
        traps.chain(tail).copied().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("server log:\n{}", self.log_tail());
        }
        let _ = self.run(
            "pg_ctl",
            &["-D", &self.data(), "-m", "immediate", "-w", "stop"],
        );
        // To look at what a failed test left behind.
        if std::thread::panicking() && std::env::var_os("PG_FORK_KEEP").is_some() {
            eprintln!("kept: {}", self.dir.display());
            return;
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The processes that work in a directory.
pub fn working_in(dir: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("a list").flatten();
    let here = |entry: &fs::DirEntry| {
        fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == std::path::Path::new(dir))
    };
    let pids = entries.filter(here).map(|entry| entry.file_name());
    pids.filter_map(|pid| pid.into_string().ok()).collect()
}

const SUMS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
                    (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
                    (SELECT count(*) FROM pgbench_history)";

/// Whether pgbench's four sums agree, what they come to, and how many rows history has.
pub fn sums(cluster: &Cluster, db: &str) -> String {
    let all = cluster.sql(db, SUMS);
    let parts: Vec<_> = all.split('|').collect();
    assert!(
        parts[..4].iter().all(|sum| *sum == parts[0]),
        "{db}: the sums differ: {all}"
    );
    all
}
