//! Room on disk: what forks take is told, what they let go of comes back, and nothing takes it twice (D12, D14).

use pg_fork_tests::small::Small;
use pg_fork_tests::Cluster;
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes that a folder takes, as `du` has it.
fn du(path: &str) -> i64 {
    let out = Command::new("du").args(["-s", "-B1", path]).output();
    let text = String::from_utf8(out.expect("du runs").stdout).expect("text");
    let bytes = text.split_whitespace().next().and_then(|n| n.parse().ok());
    bytes.expect("a number")
}

fn root(cluster: &Cluster) -> String {
    format!("{}/pgsql_tmp_pg_fork", cluster.data())
}

/// A table of so many pages, each with bytes that cannot be made less.
fn table(pages: u32) -> String {
    format!(
        "CREATE TABLE t (id int, v int, pad text) WITH (fillfactor = 50); ALTER TABLE t ALTER pad SET STORAGE PLAIN; \
         INSERT INTO t SELECT g, 0, (SELECT string_agg(md5((g * n)::text), '') FROM generate_series(1, 90) n) \
         FROM generate_series(1, {pages}) g; VACUUM FREEZE t; CHECKPOINT"
    )
}

fn number(cluster: &Cluster, sql: &str) -> i64 {
    let said = cluster.sql("postgres", sql);
    said.parse().unwrap_or_else(|_| panic!("{sql}: {said}"))
}

const MB: i64 = 1 << 20;

/// A cut that is live, one that notes the table and keeps a page of it, one with all of it, and one after it.
fn three_cuts(cluster: &Cluster, pages: u32) {
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql("prod", &table(pages));
    cluster.sql("postgres", "SELECT fork_create('prod', 'monday')");
    cluster.sql("prod", "UPDATE t SET v = 1 WHERE id = 7; CHECKPOINT");
    cluster.sql("postgres", "SELECT fork_create('prod', 'tuesday')");
    cluster.sql("prod", "UPDATE t SET v = 2; CHECKPOINT");
    cluster.sql("postgres", "SELECT fork_create('prod', 'wednesday')");
    cluster.sql("postgres", "CHECKPOINT");
}

#[test]
fn a_merge_takes_no_room_and_is_in_nobodys_way() {
    let cluster = Cluster::new("autovacuum = off\nmax_wal_size = 4GB");
    three_cuts(&cluster, 20000);
    let before = du(&root(&cluster));
    assert!(before > 150 * MB, "{before}");
    let folders = cluster.folders();
    cluster.sql("postgres", "SELECT fork_drop('tuesday')");
    let (mut peak, mut slowest) = (before, Duration::ZERO);
    let began = Instant::now();
    // The dropped fork's folder, and that of its layer.
    while cluster.folders() > folders - 2 {
        let asked = Instant::now();
        cluster.sql(
            "postgres",
            "CREATE DATABASE other STRATEGY file_copy; DROP DATABASE other",
        );
        slowest = slowest.max(asked.elapsed());
        peak = peak.max(du(&root(&cluster)));
        assert!(
            began.elapsed().as_secs() < 200,
            "the layer is not merged: {}",
            cluster.log_tail()
        );
    }
    assert!(peak < before + before / 5, "{before} bytes became {peak}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    let sums = "SELECT count(*), sum(v), sum(length(pad)), sum(hashtext(pad)::bigint) FROM t";
    let [monday, wednesday, prod] = ["monday", "wednesday", "prod"].map(|db| cluster.sql(db, sums));
    assert!(monday.starts_with("20000|0|"), "{monday}");
    assert!(wednesday.starts_with("20000|40000|"), "{wednesday}");
    assert_eq!(wednesday, prod);
    cluster.amcheck("monday");
}

#[test]
fn no_merge_begins_when_the_disk_is_nearly_full() {
    let cluster = Cluster::new("autovacuum = off\npg_fork.min_free_disk = 0");
    let small = Small::over(&cluster, 200);
    three_cuts(&cluster, 5000);
    small.fill(10 * 1024);
    let folders = cluster.folders();
    cluster.sql("postgres", "SELECT fork_drop('tuesday')");
    cluster.wait_for_folders(folders - 1);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(cluster.folders(), folders - 1, "a merge began");
    small.empty();
    cluster.wait_for_folders(folders - 2);
    assert_eq!(cluster.sql("monday", "SELECT sum(v) FROM t"), "0");
}

#[test]
fn on_a_full_disk_a_drop_gives_room() {
    let cluster = Cluster::new("autovacuum = off\npg_fork.min_free_disk = 0");
    let small = Small::over(&cluster, 100);
    cluster.sql(
        "postgres",
        "CREATE DATABASE prod; SELECT fork_create('prod', 'f')",
    );
    cluster.sql("f", &table(4000).replace("; CHECKPOINT", ""));
    cluster.sql("postgres", "CHECKPOINT");
    let before = du(&root(&cluster));
    assert!(before > 30 * MB, "{before}");
    small.fill(0);
    cluster.sql("postgres", "SELECT fork_drop('f')");
    cluster.wait_for_folders(0);
    // A crash does not bring it back.
    cluster.stop("immediate");
    cluster.start();
    assert_eq!(
        cluster.sql("postgres", "SELECT count(*) FROM pg_forks"),
        "0"
    );
    assert_eq!(cluster.folders(), 0);
}

#[test]
fn a_full_filesystem_ends_those_forks_that_lie_there() {
    let cluster = Cluster::new("autovacuum = off\npg_fork.min_free_disk = 30MB");
    let folder = cluster.folder("cold");
    let small = Small::at(&folder, 100);
    cluster.sql("postgres", &format!("CREATE TABLESPACE cold LOCATION '{folder}'; CREATE DATABASE prod; CREATE DATABASE elsewhere"));
    cluster.sql(
        "prod",
        &table(1000).replace(
            "WITH (fillfactor = 50)",
            "WITH (fillfactor = 50) TABLESPACE cold",
        ),
    );
    for (source, fork) in [
        ("prod", "idle"),
        ("prod", "little"),
        ("prod", "much"),
        ("elsewhere", "other"),
    ] {
        cluster.sql(
            "postgres",
            &format!("SELECT fork_create('{source}', '{fork}')"),
        );
    }
    // The largest of all, but not there.
    cluster.sql("other", &table(4000).replace("; CHECKPOINT", ""));
    cluster.sql("little", "UPDATE t SET v = 1 WHERE id < 50");
    cluster.sql("much", "UPDATE t SET v = 1");
    cluster.sql("postgres", "CHECKPOINT");
    let ended = "SELECT coalesce(string_agg(name, ',' ORDER BY name), '') FROM pg_forks WHERE state = 'invalid'";
    assert_eq!(cluster.sql("postgres", ended), "");
    small.fill(26 * 1024);
    let until = |names: &str| {
        let came = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            cluster.sql("postgres", ended) == names
        });
        assert!(
            came,
            "{}: {}",
            cluster.sql("postgres", ended),
            cluster.log_tail()
        );
    };
    until("much");
    std::thread::sleep(Duration::from_secs(3));
    until("much");
    // What is left gives little, and then nothing: the others stay, and so does who has nothing there.
    small.fill(10 * 1024);
    until("little,much");
    std::thread::sleep(Duration::from_secs(3));
    until("little,much");
    assert_eq!(cluster.sql("idle", "SELECT sum(v) FROM t"), "0");
    // Where there is too little room for its source, no fork is made; elsewhere it is.
    cluster.sql("postgres", "SELECT fork_create('elsewhere', 'more')");
}

#[test]
fn what_forks_cost_is_what_the_disk_says() {
    let cluster = Cluster::new("autovacuum = off\nmax_wal_size = 4GB");
    three_cuts(&cluster, 3000);
    cluster.sql("monday", "UPDATE t SET v = 3 WHERE id < 1000");
    cluster.sql(
        "postgres",
        "SELECT fork_create('monday', 'below'); CHECKPOINT",
    );
    cluster.sql("monday", "UPDATE t SET v = 4 WHERE id < 500");
    cluster.sql("below", "CREATE TABLE mine AS SELECT * FROM t");
    cluster.sql("postgres", "CHECKPOINT; CHECKPOINT");
    let sum = "SELECT sum(private_bytes + preimage_bytes) FROM pg_forks";
    let cost = |column: &str, fork: &str| {
        number(
            &cluster,
            &format!("SELECT {column} FROM pg_forks WHERE name = '{fork}'"),
        )
    };
    for fork in ["wednesday", "below", "monday", "tuesday"] {
        let (told, found) = (number(&cluster, sum), du(&root(&cluster)));
        assert!((told - found).abs() < 40_000, "{told} told, {found} found");
        let freed = cost("freed_bytes", fork);
        let folders = cluster.folders();
        cluster.sql("postgres", &format!("SELECT fork_drop('{fork}')"));
        cluster.wait_for_folders(folders - 1);
        std::thread::sleep(Duration::from_secs(2));
        let fell = found - du(&root(&cluster));
        assert!(
            (freed - fell).abs() < 200_000,
            "{fork}: {freed} told, {fell} given back"
        );
    }
}

#[test]
fn a_fork_with_forks_frees_nothing_and_people_read_the_same() {
    let cluster = Cluster::new("autovacuum = off");
    three_cuts(&cluster, 500);
    cluster.sql("postgres", "SELECT fork_create('monday', 'below')");
    let freed = "SELECT freed_bytes = 0 FROM pg_forks WHERE name = 'monday'";
    assert_eq!(cluster.sql("postgres", freed), "t");
    let same = "SELECT count(*) FROM fork_tree() t JOIN pg_forks f ON t.tree LIKE '%' || f.name \
                AND t.size = pg_size_pretty(f.private_bytes + f.preimage_bytes) AND t.freed = pg_size_pretty(f.freed_bytes)";
    assert_eq!(cluster.sql("postgres", same), "4");
}

#[test]
fn an_invalid_fork_cannot_be_forked() {
    let cluster = Cluster::new("autovacuum = off");
    cluster.sql(
        "postgres",
        "CREATE DATABASE prod; SELECT fork_create('prod', 'f')",
    );
    let oid = cluster.sql("postgres", "SELECT oid FROM pg_forks");
    cluster.stop("immediate");
    std::fs::write(
        format!("{}/{oid}/pgsql_tmp_meta", root(&cluster)),
        "nothing",
    )
    .expect("written");
    cluster.start();
    assert_eq!(
        cluster.sql("postgres", "SELECT state FROM pg_forks"),
        "invalid"
    );
    cluster.expect_error("postgres", "SELECT fork_create('f', 'g')", "55000");
}
