//! The two servers, their databases, and the steps that are taken at random.

use super::held::Held;
use super::rng::Rng;
use super::shape::Shape;
use super::statements::{self, Kind, KINDS};
use pg_fork_tests::Cluster;
use postgres::error::SqlState;
use postgres::{Client, SimpleQueryMessage};

/// What a statement answered: its rows and counts, or its SQLSTATE.
pub type Answer = Result<Vec<String>, SqlState>;

pub struct Database {
    pub name: String,
    pub parent: Option<String>,
    pub shape: Shape,
    pub here: Option<Client>,
    pub twin: Option<Client>,
}

pub struct World {
    pub here: Cluster,
    pub twin: Cluster,
    pub admin: Option<Client>,
    pub databases: Vec<Database>,
    pub held: Vec<Held>,
    pub rng: Rng,
    /// Makes names unique.
    pub fresh: usize,
    kinds: Vec<usize>,
    steps: [usize; 12],
}

/// How many databases there are at most: each comparison goes through all of them.
const MOST: usize = 14;

/// Sends what may be several statements, and returns what they say.
pub fn ask(client: &mut Client, sql: &str) -> Answer {
    let lines = client
        .simple_query(sql)
        .map_err(|error| match error.code() {
            Some(code) => code.clone(),
            None => panic!("{sql}: {error:?}"),
        })?;
    let lines = lines.into_iter().filter_map(|line| match line {
        SimpleQueryMessage::Row(row) => {
            let values = (0..row.len()).map(|at| row.get(at).unwrap_or("NULL"));
            Some(values.collect::<Vec<_>>().join("|"))
        }
        SimpleQueryMessage::CommandComplete(count) => Some(format!("({count})")),
        _ => None,
    });
    Ok(lines.collect())
}

impl World {
    /// Two servers and a first database, with settings that the seed picks.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut settings = format!(
            "shared_buffers = {}\npg_fork.page_map_memory = {}\npg_fork.cut_timeout = 20s\n\
             pg_fork.max_pause = 1s\nlock_timeout = 20s\nstatement_timeout = 120s\n\
             deadlock_timeout = 30s\nfsync = {}\nfull_page_writes = {}\nautovacuum = {}\n\
             autovacuum_naptime = 1s\nbgwriter_delay = {}\nmax_worker_processes = 4\njit = off\n",
            rng.pick(&["1MB", "2MB", "4MB", "16MB"]),
            rng.pick(&["256kB", "512kB", "1MB", "64MB"]),
            rng.pick(&["off", "off", "off", "on"]),
            rng.pick(&["on", "on", "on", "off"]),
            rng.pick(&["off", "off", "on"]),
            rng.pick(&["10ms", "200ms"]),
        );
        if rng.chance(25) {
            settings += "wal_level = minimal\nmax_wal_senders = 0\nwal_skip_threshold = 0\n";
        }
        println!("{settings}");
        let here = Cluster::new(&settings);
        let twin = Cluster::bare("fsync = off\nautovacuum = off\njit = off\n", &[]);
        for cluster in [&here, &twin] {
            let folder = cluster.folder("other");
            cluster.sql(
                "postgres",
                &format!("CREATE TABLESPACE other LOCATION '{folder}'; CREATE DATABASE d0"),
            );
        }
        let mut vary = |base: usize| base * [0, 1, 1, 2, 4][rng.below(5)] + 1;
        let kinds = KINDS.iter().map(|(_, weight)| vary(*weight)).collect();
        // One statement, a block, a hold, the end of one, a fork, a drop, a comparison, a check for
        // damage, a checkpoint, a restart, a copy, a rename.
        let mut steps = [60, 8, 5, 5, 7, 5, 3, 1, 3, 1, 1, 1];
        for at in [1, 2, 4, 5, 8, 9] {
            steps[at] = vary(steps[at]);
        }
        let mut world = World {
            here,
            twin,
            admin: None,
            databases: Vec::new(),
            held: Vec::new(),
            rng,
            fresh: 0,
            kinds,
            steps,
        };
        world.add("d0", None, Shape::default());
        for _ in 0..4 {
            world.statement_of(0, Kind::CreateTable);
        }
        world
    }

    pub fn add(&mut self, name: &str, parent: Option<String>, shape: Shape) {
        self.databases.push(Database {
            name: name.into(),
            parent,
            shape,
            here: None,
            twin: None,
        });
    }

    /// One step.
    pub fn step(&mut self, number: usize) {
        print!("{number}: ");
        let at = self.rng.below(self.databases.len());
        match self.rng.weighted(&self.steps.clone()) {
            0 => self.statement(at),
            1 => self.block(at),
            2 => self.hold(at),
            3 => self.release(),
            4 if self.databases.len() < MOST => self.fork(at),
            4 | 5 => self.drop_one(),
            6 => self.compare_some(),
            7 => self.check(at),
            8 => self.administer("CHECKPOINT"),
            9 => self.restart(),
            10 if self.databases.len() < MOST => self.copy(at),
            11 => self.rename(at),
            _ => println!("nothing"),
        }
    }

    /// Compares all there is, ends what is open, and looks for damage.
    pub fn finish(&mut self) {
        self.compare_all();
        while !self.held.is_empty() {
            self.release();
        }
        self.compare_all();
        self.check_all();
    }

    /// A statement for the server with pg_fork alone.
    pub fn administer(&mut self, sql: &str) {
        println!("{sql}");
        self.try_administer(sql)
            .unwrap_or_else(|code| panic!("{sql}: {code:?}"));
    }

    pub fn try_administer(&mut self, sql: &str) -> Answer {
        let here = &self.here;
        ask(
            self.admin.get_or_insert_with(|| here.client("postgres")),
            sql,
        )
    }

    fn kind(&mut self) -> Kind {
        KINDS[self.rng.weighted(&self.kinds)].0
    }

    fn statement(&mut self, at: usize) {
        let kind = self.kind();
        self.statement_of(at, kind);
    }

    fn statement_of(&mut self, at: usize, kind: Kind) {
        let shape = &mut self.databases[at].shape;
        if let Some(sql) = statements::make(&mut self.rng, shape, kind, &mut self.fresh) {
            for line in sql.split('\n') {
                self.apply(at, line);
            }
        }
        println!();
    }

    /// Several statements in one transaction, with a savepoint, that may come to nothing.
    fn block(&mut self, at: usize) {
        let before = self.databases[at].shape.clone();
        let mut sql = String::from("BEGIN");
        let mut at_savepoint = None;
        let undo = self.rng.chance(35);
        for _ in 0..1 + self.rng.below(6) {
            let kind = self.kind();
            let shape = &mut self.databases[at].shape;
            // What a sequence did in a transaction that was rolled back holds, unless a crash comes.
            if kind.in_block() && !(undo && kind == Kind::Sequence) {
                let one = statements::make(&mut self.rng, shape, kind, &mut self.fresh);
                // PostgreSQL leaves rows of a table that went back to its old file in its indexes.
                if let Some(one) = one.filter(|one| !one.contains("SET TABLESPACE")) {
                    sql += &format!("; {one}");
                }
            }
            if at_savepoint.is_none() && self.rng.chance(20) {
                at_savepoint = Some(self.databases[at].shape.clone());
                sql += "; SAVEPOINT s";
            } else if self.rng.chance(20) {
                if let Some(shape) = at_savepoint.take() {
                    self.databases[at].shape = shape;
                    sql += "; ROLLBACK TO s; RELEASE s";
                }
            }
        }
        if undo {
            self.databases[at].shape = before;
            sql += "; ROLLBACK";
        } else {
            sql += "; COMMIT";
        }
        self.apply(at, &sql);
        println!();
    }

    /// Runs a statement in a database and in its twin, which must answer the same.
    pub fn apply(&mut self, at: usize, sql: &str) {
        let name = self.databases[at].name.clone();
        let sql = sql.replace("{database}", &name);
        print!("[{name}] {sql} ");
        let here = ask(self.client(at), &sql);
        let twin = ask(self.twin_client(at), &sql);
        assert_eq!(here, twin, "here and in the twin: [{name}] {sql}");
        if let Err(code) = here {
            print!("-- {code:?} ");
            let database = &mut self.databases[at];
            for client in [&mut database.here, &mut database.twin] {
                let _ = client.as_mut().map(|client| ask(client, "ROLLBACK"));
            }
        }
    }

    pub fn client(&mut self, at: usize) -> &mut Client {
        let database = &mut self.databases[at];
        database
            .here
            .get_or_insert_with(|| self.here.client(&database.name))
    }

    pub fn twin_client(&mut self, at: usize) -> &mut Client {
        let database = &mut self.databases[at];
        database
            .twin
            .get_or_insert_with(|| self.twin.client(&database.name))
    }
}
