//! What happens to databases as a whole: forks, drops, copies, renames, restarts.

use super::world::{ask, World};

impl World {
    /// Forks a database; the twin is a copy of the twin.
    pub fn fork(&mut self, at: usize) {
        self.fresh += 1;
        let (source, fork) = (self.databases[at].name.clone(), format!("d{}", self.fresh));
        if self.rng.chance(10) {
            self.administer(&format!("BEGIN; SELECT fork_create('{source}'); ROLLBACK"));
        }
        let mut forks = vec![fork];
        if self.rng.chance(15) {
            forks.push(format!("e{}", self.fresh));
        }
        println!("fork_create of {source}: {}", forks.join(" and "));
        // At the same time: they may share a cut.
        std::thread::scope(|scope| {
            for fork in &forks {
                let mut client = self.here.client("postgres");
                let sql = format!("SELECT fork_create('{source}', '{fork}')");
                scope.spawn(move || ask(&mut client, &sql).expect("the fork is made"));
            }
        });
        for fork in forks {
            self.copy_twin(&source, &fork);
            let shape = self.databases[at].shape.fork();
            self.add(&fork, Some(source.clone()), shape);
        }
    }

    fn copy_twin(&mut self, from: &str, to: &str) {
        let at = self.place(from);
        self.databases[at].twin = None;
        let how = self.rng.pick(&["file_copy", "wal_log"]);
        let sql = format!("CREATE DATABASE {to} TEMPLATE {from} STRATEGY {how}");
        ask(&mut self.twin.client("postgres"), &sql).expect("the twin is copied");
    }

    /// Makes a database of its own from any other; it can be forked in turn.
    pub fn copy(&mut self, at: usize) {
        let from = self.databases[at].name.clone();
        if self.has_prepared(&from) {
            return println!("nothing");
        }
        self.sessions_end(Some(&from));
        self.databases[at].here = None;
        self.fresh += 1;
        let to = format!("d{}", self.fresh);
        self.administer(&format!(
            "CREATE DATABASE {to} TEMPLATE {from} STRATEGY wal_log"
        ));
        self.copy_twin(&from, &to);
        let shape = self.databases[at].shape.fork();
        self.add(&to, None, shape);
    }

    /// Drops any database but the last one. One that has forks cannot be dropped.
    pub fn drop_one(&mut self) {
        let at = self.rng.below(self.databases.len());
        let name = self.databases[at].name.clone();
        let is_fork = self.databases[at].parent.is_some();
        let drop = match (is_fork, self.rng.chance(70)) {
            (true, true) => format!("SELECT fork_drop('{name}')"),
            _ => format!("DROP DATABASE {name} WITH (FORCE)"),
        };
        let mut all = self.databases.iter();
        if all.any(|other| other.parent.as_deref() == Some(&name)) {
            println!("{drop}, which has forks");
            let answer = self.try_administer(&drop);
            let code = answer.expect_err("it has forks").code().to_string();
            return assert!(code == "2BP01" || code == "55006", "{code}");
        }
        let roots = self.databases.iter().filter(|other| other.parent.is_none());
        if self.has_prepared(&name) || (!is_fork && roots.count() == 1) {
            return println!("nothing");
        }
        self.sessions_end(Some(&name));
        if is_fork && self.rng.chance(10) {
            self.administer(&format!("BEGIN; SELECT fork_drop('{name}'); ROLLBACK"));
            self.databases[at].here = None;
        }
        self.administer(&drop);
        self.databases.remove(at);
        let sql = format!("DROP DATABASE {name} WITH (FORCE)");
        ask(&mut self.twin.client("postgres"), &sql).expect("the twin is dropped");
    }

    pub fn rename(&mut self, at: usize) {
        let from = self.databases[at].name.clone();
        if self.has_prepared(&from) {
            return println!("nothing");
        }
        self.sessions_end(Some(&from));
        self.fresh += 1;
        let to = format!("d{}", self.fresh);
        let sql = format!("ALTER DATABASE {from} RENAME TO {to}");
        (self.databases[at].here, self.databases[at].twin) = (None, None);
        self.administer(&sql);
        ask(&mut self.twin.client("postgres"), &sql).expect("the twin is renamed");
        for database in &mut self.databases {
            if database.parent.as_deref() == Some(&from) {
                database.parent = Some(to.clone());
            }
        }
        self.databases[at].name = to;
    }

    /// Stops and starts the server, in an orderly way or like a crash.
    pub fn restart(&mut self) {
        let crash = self.rng.chance(65);
        let mode = if crash { "immediate" } else { "fast" };
        // Replay may have to write out what was in memory all along before.
        if self.rng.chance(40) {
            let buffers = *self.rng.pick(&["512kB", "2MB", "16MB"]);
            self.administer(&format!("ALTER SYSTEM SET shared_buffers = '{buffers}'"));
        }
        // PostgreSQL cannot start when the crash comes before the abort record of a transaction that
        // gave an unlogged table a new file is on disk. A commit puts it there.
        let mut all = self.databases.iter().flat_map(|other| &other.shape.tables);
        if crash && all.any(|table| table.unlogged) {
            self.administer("SELECT txid_current()");
        }
        println!("restart {mode}");
        self.sessions_end(None);
        self.admin = None;
        self.here.stop(mode);
        self.here.start();
        for at in 0..self.databases.len() {
            self.databases[at].here = None;
            if crash {
                self.after_crash(at);
            }
        }
    }

    /// What a crash may change: sequences skip numbers, and unlogged tables are empty.
    fn after_crash(&mut self, at: usize) {
        for name in self.databases[at].shape.sequences.clone() {
            let read = format!("SELECT last_value FROM {name}");
            let number = |answer: super::world::Answer| -> Option<i64> {
                answer.ok()?.first()?.parse().ok()
            };
            let here = number(ask(self.client(at), &read));
            let twin = number(ask(self.twin_client(at), &read));
            if let (Some(here), Some(twin)) = (here, twin) {
                assert!(
                    (twin..=twin + 32).contains(&here),
                    "{name}: {twin} became {here}"
                );
                self.apply(at, &format!("SELECT setval('{name}', {here})"));
            }
        }
        // Of a fork, what was inherited from the source's is undefined.
        let what = if self.databases[at].parent.is_some() {
            "DROP TABLE"
        } else {
            "TRUNCATE"
        };
        let list = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u'";
        for name in ask(self.client(at), list).expect("the catalog answers") {
            if !name.starts_with('(') {
                self.apply(at, &format!("{what} {name}"));
            }
        }
        if what == "DROP TABLE" {
            self.databases[at].shape.tables.retain(|t| !t.unlogged);
        }
        println!();
    }
}
