//! What the rows share: the options, one server with the large database, and how to time things.

use crate::options::Options;
use pg_fork_tests::Cluster;
use postgres::Client;
use std::cell::OnceCell;
use std::fs;
use std::io::Read;
use std::time::Instant;

/// Settings of every server of a run: PostgreSQL's own, but for checkpoints, which are taken
/// between the runs that are compared and not in them.
pub const SETTINGS: &str =
    "max_wal_size = '16GB'\ncheckpoint_timeout = '1h'\nlog_checkpoints = off\n";

const PRELOADED: &str = "shared_preload_libraries = 'pg_fork'\npg_fork.max_forks = 2000\n";

pub struct Bench {
    pub options: Options,
    main: OnceCell<Cluster>,
}

impl Bench {
    pub fn new(options: Options) -> Self {
        Bench {
            options,
            main: OnceCell::new(),
        }
    }

    /// The server with the databases `prod` and `plain`, of the same content and the size that the
    /// options say. No forks: each row removes its own.
    pub fn main(&self) -> &Cluster {
        self.main.get_or_init(|| {
            let cluster = server("");
            fill(&cluster, "prod", self.options.scale);
            // For the way back out of a fork.
            cluster.sql("prod", "CREATE EXTENSION pg_fork");
            cluster.sql(
                "postgres",
                "CREATE DATABASE plain TEMPLATE prod; CHECKPOINT",
            );
            cluster
        })
    }

    /// The large database's size, to name it by.
    pub fn size(&self) -> String {
        let bytes = "SELECT pg_size_pretty(pg_database_size('prod'))";
        self.main().sql("postgres", bytes)
    }
}

/// A server with the library, the extension, and a table `one` for commits to compare with.
pub fn server(settings: &str) -> Cluster {
    let all = format!("{SETTINGS}{PRELOADED}{settings}");
    let cluster = Cluster::bare(&all, &["-k"]);
    cluster.sql(
        "postgres",
        "CREATE EXTENSION pg_fork; CREATE TABLE one (v int)",
    );
    cluster
}

/// A database with pgbench's tables.
pub fn fill(cluster: &Cluster, name: &str, scale: u32) {
    cluster.sql("postgres", &format!("CREATE DATABASE {name}"));
    cluster.must("pgbench", &["-qi", "-s", &scale.to_string(), name]);
    cluster.sql("postgres", "CHECKPOINT");
}

/// A checkpoint, and all files of the databases into the operating system's cache: what is compared must
/// not differ in what the machine has evicted since.
pub fn settle(cluster: &Cluster) {
    cluster.sql("postgres", "CHECKPOINT");
    let mut buffer = vec![0; 1 << 20];
    let folders = fs::read_dir(format!("{}/base", cluster.data())).expect("the databases");
    // Not behind links, where forks are.
    let folders = folders.flatten().filter(|entry| {
        let kind = entry.file_type().expect("an entry");
        kind.is_dir()
    });
    for folder in folders {
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            // Gone, perhaps.
            if let Ok(mut file) = fs::File::open(file.path()) {
                while file.read(&mut buffer).is_ok_and(|read| read > 0) {}
            }
        }
    }
}

/// How many milliseconds it takes, and what it returns.
pub fn timed<T>(what: impl FnOnce() -> T) -> (f64, T) {
    let began = Instant::now();
    let result = what();
    (began.elapsed().as_secs_f64() * 1000.0, result)
}

/// A durable one-row INSERT.
pub fn commit(client: &mut Client) -> f64 {
    timed(|| {
        client
            .execute("INSERT INTO one VALUES (1)", &[])
            .expect("inserted")
    })
    .0
}

pub fn create(client: &mut Client, source: &str) -> (f64, String) {
    let (ms, fork) = try_create(client, source);
    (ms, fork.expect("a fork"))
}

/// As [`create`], where a cut may find no moment.
pub fn try_create(client: &mut Client, source: &str) -> (f64, Result<String, postgres::Error>) {
    let sql = "SELECT fork_create($1::text::name)::text";
    timed(|| client.query_one(sql, &[&source]).map(|row| row.get(0)))
}

pub fn drop_fork(client: &mut Client, fork: &str) -> f64 {
    let sql = "SELECT fork_drop($1::text::name)";
    timed(|| client.execute(sql, &[&fork]).expect("dropped")).0
}

pub fn drop_all(client: &mut Client) {
    let forks = client.query("SELECT name::text FROM pg_forks ORDER BY depth DESC", &[]);
    for fork in forks.expect("a list") {
        drop_fork(client, fork.get(0));
    }
}

pub fn number(cluster: &Cluster, db: &str, sql: &str) -> f64 {
    let text = cluster.sql(db, sql);
    text.parse().unwrap_or_else(|_| panic!("{sql}: {text}"))
}
