//! Whatever happens to a fork's own files hurts no checkpoint, no session of the source, no start of the server (D14).
//!
//! Needs a library built with the feature `stop_points`.

use pg_fork_tests::Cluster;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

/// What `UPDATE`s of a fork do to its files when the pages are written: looked for, made, longer, written again.
const WRITES: [&str; 5] = [
    "md-exists",
    "md-create",
    "md-extend",
    "md-write",
    "md-writeback",
];

struct Story {
    cluster: Cluster,
}

impl Story {
    fn new(settings: &str) -> Self {
        let cluster = Cluster::new(&format!(
            "autovacuum = off\ncheckpoint_timeout = 1h\ncheckpoint_flush_after = 8kB\n{settings}"
        ));
        cluster.sql("postgres", "CREATE DATABASE prod");
        cluster.sql(
            "prod",
            "CREATE TABLE t (id int PRIMARY KEY, v int, pad text) WITH (fillfactor = 50); \
             INSERT INTO t SELECT g, 0, repeat('x', 300) FROM generate_series(1, 2000) g; \
             CREATE TABLE short AS SELECT generate_series(1, 5000) AS v; VACUUM FREEZE; CHECKPOINT",
        );
        Story { cluster }
    }

    /// A fork with pages of its own in memory; of some there are files already.
    fn fork(&self) {
        let cluster = &self.cluster;
        cluster.sql("postgres", "CHECKPOINT; SELECT fork_create('prod', 'f')");
        cluster.sql(
            "f",
            "CREATE TABLE mine AS SELECT 1 AS v; UPDATE short SET v = v WHERE v < 300",
        );
        cluster.sql("postgres", "CHECKPOINT");
        cluster.sql("f", "UPDATE t SET v = v + 1 WHERE id < 200; UPDATE short SET v = v WHERE v < 300; INSERT INTO mine SELECT generate_series(1, 300)");
    }

    fn set(&self, value: &str) {
        let sql =
            format!("ALTER SYSTEM SET pg_fork.stop_point = '{value}'; SELECT pg_reload_conf()");
        self.cluster.sql("postgres", &sql);
        while self.cluster.sql("postgres", "SHOW pg_fork.stop_point") != value {}
    }

    fn state(&self) -> String {
        self.cluster.sql("postgres", "SELECT state FROM pg_forks")
    }

    /// The source is whole and goes on; the fork says what is wrong, and can be dropped.
    fn end(&self, met: &str) {
        let cluster = &self.cluster;
        assert_eq!(self.state(), "invalid", "{met}: {}", cluster.log_tail());
        let error = cluster.expect_error("postgres", "SELECT * FROM fork_mount('f')", "55000");
        assert!(error.contains("invalid"), "{met}: {error}");
        cluster.sql("prod", "UPDATE t SET v = v + 1; CHECKPOINT");
        cluster.amcheck("prod");
        cluster.sql("postgres", "SELECT fork_drop('f')");
        cluster.wait_for_folders(1);
        let log = cluster.log();
        for harm in ["PANIC", "FATAL:  stop point", "terminated by signal"] {
            assert!(!log.contains(harm), "{met}: {}", cluster.log_tail());
        }
    }

    fn file_of(&self, table: &str) -> PathBuf {
        let cluster = &self.cluster;
        let path = cluster.sql("f", &format!("SELECT pg_relation_filepath('{table}')"));
        PathBuf::from(cluster.data()).join(path)
    }
}

#[test]
fn a_checkpoint_goes_on() {
    let story = Story::new("");
    for point in WRITES {
        story.fork();
        story.set(&format!("{point}:{}", action(point)));
        story.cluster.sql("postgres", "CHECKPOINT; CHECKPOINT");
        story.set("");
        story.end(point);
    }
}

/// Where only the result of a call counts, it fails; else it raises an error as md does.
fn action(point: &str) -> &'static str {
    match point {
        "md-create" | "md-writeback" | "open-file" => "fail",
        _ => "error",
    }
}

#[test]
fn a_session_of_the_source_goes_on() {
    // No room but what a session makes for itself, and nobody else that makes any.
    let story =
        Story::new("shared_buffers = 4MB\nbgwriter_lru_maxpages = 0\nbackend_flush_after = 8kB");
    story.cluster.sql(
        "prod",
        "CREATE TABLE large (id int PRIMARY KEY, pad text); INSERT INTO large SELECT g, repeat('x', 1000) FROM generate_series(1, 5000) g; VACUUM large; CHECKPOINT",
    );
    for point in WRITES {
        story.fork();
        // By the index: a scan of all would use a few buffers of its own.
        let read = format!(
            "SET pg_fork.stop_point = '{point}:{}'; SET enable_seqscan = off; SET enable_bitmapscan = off; \
             SELECT count(pad) FROM large WHERE id > 0; SELECT count(pad) FROM large WHERE id > 0",
            action(point)
        );
        assert_eq!(story.cluster.sql("prod", &read), "5000\n5000", "{point}");
        story.end(point);
    }
}

#[test]
fn the_background_writer_goes_on() {
    let story = Story::new("shared_buffers = 1MB\nbgwriter_delay = 10ms\nbgwriter_lru_maxpages = 1000\nbgwriter_lru_multiplier = 10\nlog_line_prefix = '%b: '");
    story.cluster.sql(
        "prod",
        "CREATE TABLE large (id int PRIMARY KEY, pad text); INSERT INTO large SELECT g, repeat('x', 1000) FROM generate_series(1, 5000) g; VACUUM large; CHECKPOINT",
    );
    for point in ["md-extend", "md-write"] {
        story.fork();
        story.set(&format!("{point}:error"));
        let read = "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(pad) FROM large WHERE id > 0";
        for _ in 0..20 {
            assert_eq!(story.cluster.sql("prod", read), "5000", "{point}");
        }
        story.cluster.sql("postgres", "CHECKPOINT");
        story.set("");
        story.end(point);
    }
    let cleaned = "SELECT buffers_clean > 0 FROM pg_stat_bgwriter";
    assert_eq!(story.cluster.sql("postgres", cleaned), "t");
    let log = story.cluster.log();
    let errors = log.lines().filter(|line| line.contains("writer: ERROR"));
    assert_eq!(errors.count(), 0, "{}", story.cluster.log_tail());
}

#[test]
fn the_server_starts() {
    let story = Story::new("");
    let auto = format!("{}/postgresql.auto.conf", story.cluster.data());
    let points = [
        "md-exists",
        "md-create",
        "md-extend",
        "md-read",
        "md-nblocks",
        "open-file",
    ];
    for point in points {
        story.fork();
        story.cluster.sql("f", "CREATE TABLE later AS SELECT * FROM t; CREATE UNLOGGED TABLE forgotten AS SELECT 1 AS v; TRUNCATE mine");
        story.cluster.stop("immediate");
        fs::write(
            &auto,
            format!("pg_fork.stop_point = '{point}:{}'\n", action(point)),
        )
        .expect("written");
        story.cluster.start();
        // What replay has made of the fork is written out later, in a checkpoint.
        story.cluster.sql("postgres", "CHECKPOINT");
        fs::write(&auto, "").expect("written");
        story.cluster.sql("postgres", "SELECT pg_reload_conf()");
        while !story
            .cluster
            .sql("postgres", "SHOW pg_fork.stop_point")
            .is_empty()
        {}
        story.end(point);
    }
}

/// Not only what stop points raise: md's own errors leave counters of the process behind.
#[test]
fn a_file_that_cannot_be_opened_is_the_forks_loss() {
    let story = Story::new("");
    for crash in [false, true] {
        story.fork();
        let file = story.file_of("short");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o0)).expect("the file");
        if crash {
            story.cluster.stop("immediate");
            story.cluster.start();
        } else {
            // Everyone opens it anew.
            story.cluster.sql(
                "postgres",
                "CREATE DATABASE other; DROP DATABASE other; CHECKPOINT; CHECKPOINT",
            );
        }
        story.end("permissions");
    }
}

/// A page of the second gigabyte is written first: nothing is written where a page of the first may go.
#[test]
fn no_page_is_written_where_another_process_may_write() {
    let story = Story::new("");
    let cluster = &story.cluster;
    cluster.sql(
        "prod",
        "CREATE TABLE wide (id int, v int) WITH (fillfactor = 10)",
    );
    // As long as a table of more than a gigabyte, without its pages: they are new.
    let file = cluster.sql("prod", "SELECT pg_relation_filepath('wide')");
    let path = PathBuf::from(cluster.data()).join(&file);
    let second = path.with_file_name(format!(
        "{}.1",
        path.file_name().expect("a name").to_string_lossy()
    ));
    cluster.stop("fast");
    fs::File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_len(1 << 30))
        .expect("longer");
    fs::write(&second, vec![0; 5 * 8192]).expect("written");
    std::os::unix::fs::chown(
        &second,
        Some(fs::metadata(&path).expect("there").uid()),
        None,
    )
    .expect("changed");
    cluster.start();
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    cluster.sql("f", "INSERT INTO wide VALUES (1, 1)");
    cluster.sql("postgres", "CHECKPOINT");
    let own = story.file_of("wide");
    let found = fs::metadata(&own).expect("the first segment");
    let at = cluster.sql("f", "SELECT ctid FROM wide");
    assert!(at.starts_with("(131076,"), "{at}");
    assert_eq!((found.len(), found.blocks()), (1 << 30, 0));
    assert_eq!(
        cluster.sql("f", "SELECT v FROM wide WHERE ctid = '(131076,1)'"),
        "1"
    );
}
