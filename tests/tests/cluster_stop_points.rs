//! A crash at each stop point: the source is whole, what was acknowledged is there, forks are whole.
//!
//! Needs a library built with the feature `stop_points`.

use pg_fork_tests::Cluster;
use std::fs;
use std::process::Output;

/// Every stop point, in the order in which a fork's life passes them; last, what comes back after it.
const POINTS: [&str; 32] = [
    "create-reserved",
    "cut-alone",
    "cut-meta",
    "cut-stopped",
    "cut-captured",
    "cut-inserted",
    "cut-released",
    "cut-written",
    "create-cut",
    "create-half",
    "create-files",
    "create-row",
    "committed",
    "save-page",
    "save-bit",
    "write-page",
    "truncate-state",
    "unlink-gone",
    "unlink-state",
    "unlink-moved",
    "drop-sessions",
    "drop-row",
    "bury-tombstone",
    "bury-buffers",
    "remove-file",
    "bury-files",
    "merge-files",
    "merge-page",
    "merge-handed",
    "merge-done",
    "layer-removed",
    "mark-again",
];

struct Story {
    cluster: Cluster,
    acknowledged: u32,
    baseline: Vec<String>,
}

const LOOK: &str =
    "SELECT count(*), sum(v), sum(hashint4(id)) FROM t; SELECT count(*), sum(v) FROM s; \
                    SELECT sum(v), count(*) FROM w; SELECT sum(v) FROM h_1; SELECT sum(v) FROM h_20; SELECT sum(v) FROM mine";

impl Story {
    fn new() -> Self {
        let cluster = Cluster::new("restart_after_crash = off\nautovacuum = off");
        cluster.sql("postgres", "CREATE DATABASE prod");
        cluster.sql(
            "prod",
            "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, 0 FROM generate_series(1, 20000) g; \
             CREATE TABLE s AS SELECT g AS v FROM generate_series(1, 20000) g; CREATE TABLE acks (n int); \
             CREATE TABLE w WITH (fillfactor = 50) AS SELECT g AS id, 0 AS v, repeat('x', 500) AS pad FROM generate_series(1, 3600) g",
        );
        for n in 1..=60 {
            let table =
                format!("CREATE TABLE h_{n} AS SELECT g AS v FROM generate_series(1, 500) g");
            cluster.sql("prod", &table);
        }
        // Hint bits now, else the first scan of a table changes all of its pages.
        cluster.sql("prod", "VACUUM FREEZE; CHECKPOINT");
        cluster.sql("postgres", "SELECT fork_create('prod', 'long')");
        cluster.sql(
            "long",
            "CREATE TABLE mine AS SELECT 7 AS v; UPDATE t SET v = 1 WHERE id = 3",
        );
        let mut story = Story {
            cluster,
            acknowledged: 0,
            baseline: Vec::new(),
        };
        story.baseline = story.look();
        story
    }

    fn look(&self) -> Vec<String> {
        let lines = self.cluster.sql("long", LOOK);
        lines.lines().map(String::from).collect()
    }

    fn try_sql(&self, db: &str, sql: &str) -> Output {
        let mut args = vec!["-XAtq", "-d", db];
        for statement in sql.split("; ") {
            args.extend(["-c", statement]);
        }
        self.cluster.run("psql", &args)
    }

    /// All that passes stop points. Goes on until the server is gone; false if it never is.
    fn exercise(&mut self, round: usize) -> bool {
        let next = self.acknowledged + 1;
        if self
            .try_sql("prod", &format!("INSERT INTO acks VALUES ({next})"))
            .status
            .success()
        {
            self.acknowledged = next;
        }
        let (low, high) = (round * 150, round * 150 + 400);
        let steps: [(&str, String); 14] = [
            ("prod", format!("UPDATE h_{} SET v = v + 1; UPDATE t SET v = v + 1 WHERE id BETWEEN {low} AND {high}", round + 2)),
            ("postgres", "SELECT fork_create('prod', 's1')".into()),
            ("s1", "UPDATE t SET v = -1 WHERE id < 500; DELETE FROM s WHERE v > 5000; VACUUM s; CHECKPOINT".into()),
            ("s1", format!("DROP TABLE h_{}; TRUNCATE acks", round + 1)),
            ("prod", format!("UPDATE t SET v = v + 1 WHERE id BETWEEN {high} AND {high} + 300; UPDATE w SET v = v + 1 WHERE id / 60 = {round}; DROP TABLE IF EXISTS h_{}", round + 1)),
            ("prod", "CHECKPOINT".into()),
            ("postgres", "SELECT fork_create('prod', 's2')".into()),
            ("prod", format!("DELETE FROM s WHERE v > 19900 - {round} * 100; VACUUM s; UPDATE t SET v = v - 1 WHERE id < 3000; CHECKPOINT")),
            ("postgres", "SELECT fork_create('s2', 's3')".into()),
            ("s2", "UPDATE t SET v = 8; DROP TABLE h_50; CHECKPOINT".into()),
            ("postgres", "SELECT fork_drop('s1'); SELECT pg_sleep(0.3)".into()),
            ("postgres", "SELECT fork_drop('s3'); SELECT fork_drop('s2'); SELECT pg_sleep(0.3)".into()),
            ("postgres", "SELECT fork_create('prod', 's1'); SELECT fork_drop('s1'); SELECT pg_sleep(0.5)".into()),
            ("prod", "SELECT pg_sleep(0.2)".into()),
        ];
        for (db, sql) in &steps {
            self.try_sql(db, sql);
            if self.cluster.is_gone() {
                return true;
            }
        }
        false
    }

    /// Waits until no folder bears a mark: a checkpoint has synced all that they stand for.
    fn wait_for_marks_to_go(&self) {
        let root = format!("{}/pgsql_tmp_pg_fork", self.cluster.data());
        for _ in 0..100 {
            self.cluster.sql("postgres", "CHECKPOINT");
            std::thread::sleep(std::time::Duration::from_millis(300));
            let folders = fs::read_dir(&root).expect("our folder").flatten();
            let mut marks = folders.map(|entry| entry.path().join("pgsql_tmp_unsynced"));
            if !marks.any(|mark| mark.exists()) {
                return;
            }
        }
        panic!("a folder still bears a mark: {}", self.cluster.log_tail());
    }

    fn check(&self, point: &str) {
        let acks = self
            .cluster
            .sql("prod", "SELECT count(*) = max(n) FROM acks");
        assert_eq!(acks, "t", "{point}");
        let last: u32 = self
            .cluster
            .sql("prod", "SELECT max(n) FROM acks")
            .parse()
            .expect("a number");
        assert!(
            last >= self.acknowledged,
            "{point}: {last} of {}",
            self.acknowledged
        );
        assert_eq!(
            self.cluster.sql("prod", "SELECT count(*) FROM t"),
            "20000",
            "{point}"
        );
        self.cluster.amcheck("prod");
        assert_eq!(self.look(), self.baseline, "{point}");
        self.cluster.amcheck("long");
        let forks = self.cluster.sql(
            "postgres",
            "SELECT name, state FROM pg_forks WHERE name <> 'long' ORDER BY depth DESC",
        );
        for fork in forks.lines() {
            let (name, state) = fork.split_once('|').expect("two columns");
            assert_eq!(state, "ready", "{point}: {name}");
            assert_eq!(
                self.cluster.sql(name, "SELECT count(*) FROM t"),
                "20000",
                "{point}: {name}"
            );
            self.cluster.amcheck(name);
            self.cluster
                .sql("postgres", &format!("SELECT fork_drop('{name}')"));
        }
        // The long one, its layer, and perhaps the newest.
        self.cluster.wait_for_folders(3);
    }
}

#[test]
fn a_crash_at_any_step_loses_nothing() {
    let mut story = Story::new();
    let auto = format!("{}/postgresql.auto.conf", story.cluster.data());
    for (round, point) in POINTS.iter().enumerate() {
        if *point == "mark-again" {
            story.wait_for_marks_to_go();
        }
        let set = format!(
            "ALTER SYSTEM SET pg_fork.stop_point = '{point}:crash'; SELECT pg_reload_conf()"
        );
        story.cluster.sql("postgres", &set);
        assert!(story.exercise(round), "{point} was not reached");
        fs::write(&auto, "").expect("written");
        story.cluster.start();
        story.check(point);
    }
}

#[test]
fn an_error_at_any_step_of_a_creation_leaves_nothing() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    let steps = [
        "create-reserved",
        "cut-alone",
        "cut-meta",
        "cut-stopped",
        "cut-captured",
        "cut-inserted",
        "cut-released",
        "cut-written",
        "create-cut",
        "create-half",
        "create-files",
        "create-row",
    ];
    for point in steps {
        let sql =
            format!("SET pg_fork.stop_point = '{point}:error'; SELECT fork_create('prod', 'f')");
        let out = cluster.script("postgres", &sql.replace("; ", ";\n"));
        assert!(
            String::from_utf8_lossy(&out.stderr).contains(point),
            "{out:?}"
        );
        cluster.wait_for_folders(0);
        let left = "SELECT (SELECT count(*) FROM pg_forks), (SELECT count(*) FROM pg_database WHERE datname = 'f')";
        assert_eq!(cluster.sql("postgres", left), "0|0", "{point}");
    }
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
}

/// Who waits for a cut that comes to nothing takes one for all that wait; who gives up leaves nothing.
#[test]
fn callers_that_wait_share_one_cut_when_the_cutter_fails() {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    let create = |stop: &str| {
        let mut client = cluster.client("postgres");
        let pid: i32 = client
            .query_one("SELECT pg_backend_pid()", &[])
            .expect("a number")
            .get(0);
        client
            .batch_execute(&format!("SET pg_fork.stop_point = '{stop}'"))
            .expect("set");
        let sql = "SELECT fork_create('prod')::text";
        let caller = move || {
            client
                .query_one(sql, &[])
                .map(|row| row.get::<_, String>(0))
        };
        (pid, std::thread::spawn(caller))
    };
    let until = |what: &str, count: &str| {
        while cluster.sql("postgres", what) != count {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    let alone = "SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND granted";
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND NOT granted";
    let (cutter, cut) = create("cut-alone:wait");
    until(alone, "1");
    let (impatient, gives_up) = create("");
    let patient: Vec<_> = (0..5).map(|_| create("").1).collect();
    until(waiting, "6");
    for (pid, caller) in [(impatient, gives_up), (cutter, cut)] {
        cluster.sql("postgres", &format!("SELECT pg_cancel_backend({pid})"));
        let error = caller.join().expect("ended").expect_err("cancelled");
        assert_eq!(error.code().map(|code| code.code()), Some("57014"));
    }
    let made = patient.into_iter().map(|one| one.join().expect("ended"));
    let mut names: Vec<String> = made.map(|name| name.expect("a fork")).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 5, "{names:?}");
    let counted = "SELECT string_agg(value::int::text, ' ' ORDER BY name) FROM pg_fork_stats WHERE name IN ('cuts', 'cuts_shared')";
    assert_eq!(cluster.sql("postgres", counted), "1 4");
    let left = "SELECT (SELECT count(*) FROM pg_forks), (SELECT count(*) FROM pg_database WHERE datname LIKE 'prod%')";
    assert_eq!(cluster.sql("postgres", left), "5|6");
    // Five forks, and their layer.
    cluster.wait_for_folders(6);
}
