//! Relations of more than one segment: a sparse file makes one long without writing a gigabyte.

use pg_fork_tests::Cluster;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{chown, MetadataExt};

const SEGMENT: u64 = 131_072;

/// Makes the table's file so many blocks long, while the server is down. Pages of zeros are empty
/// pages to PostgreSQL.
fn lengthen(cluster: &Cluster, file: &str, blocks: u64) {
    let first = format!("{}/{file}", cluster.data());
    let owner = fs::metadata(&first).expect("the file");
    for (segment, path) in [(0, first.clone()), (1, format!("{first}.1"))] {
        if blocks > segment * SEGMENT {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .expect("it opens");
            file.set_len((blocks - segment * SEGMENT).min(SEGMENT) * 8192)
                .expect("it grows");
            chown(&path, Some(owner.uid()), Some(owner.gid())).expect("it is postgres's");
        }
    }
}

/// What the two tables look like: t, which VACUUM shortens, and u, which is dropped.
fn look(cluster: &Cluster, db: &str) -> [String; 2] {
    ["t", "u"].map(|table| {
        let sql = format!(
            "SELECT count(*), sum(id), md5(string_agg(v, ',' ORDER BY id)), \
             pg_relation_size('{table}') / 8192, max((ctid::text::point)[0]) FROM {table} WHERE id >= 0"
        );
        cluster.sql(db, &sql)
    })
}

#[test]
fn tables_past_their_first_segment() {
    // Through the indexes, as most pages are empty.
    let cluster = Cluster::new(
        "enable_seqscan = off\njit = off\nautovacuum = off\nfsync = off\nmax_wal_size = 4GB",
    );
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE TABLE t (id int, v text); CREATE INDEX ON t (id); INSERT INTO t VALUES (1, 'a'); \
         CREATE TABLE u (id int, v text); CREATE INDEX ON u (id); INSERT INTO u VALUES (1, 'a')",
    );
    let paths = "SELECT pg_relation_filepath(name) FROM unnest(ARRAY['t', 'u']) name";
    let files = cluster.sql("prod", paths);
    let insert = |db: &str, from: u32, to: u32| {
        for table in ["t", "u"] {
            let rows = format!("SELECT i, 'v' || i FROM generate_series({from}, {to}) i");
            cluster.sql(db, &format!("INSERT INTO {table} {rows}"));
        }
    };
    // Rows go to the last page. VACUUM gives back no less than 1000 pages.
    for (blocks, from) in [(SEGMENT - 1100, 100), (SEGMENT + 3, 200)] {
        cluster.stop("fast");
        for file in files.lines() {
            lengthen(&cluster, file, blocks);
        }
        cluster.start();
        insert("prod", from, from + 49);
    }
    let first = look(&cluster, "prod");
    assert!(first[0].ends_with("|131075|131074"), "{first:?}");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    assert_eq!(look(&cluster, "f"), first);

    // Both sides write in both segments, and past the end.
    for (db, v) in [("prod", "p"), ("f", "f")] {
        for table in ["t", "u"] {
            let update = format!("UPDATE {table} SET v = '{v}' || id WHERE id % 10 = 0");
            let delete = format!("DELETE FROM {table} WHERE id IN (105, 205)");
            cluster.sql(db, &format!("{update}; {delete}"));
        }
        insert(db, 1000, 3000);
    }
    let (of_f, of_prod) = (look(&cluster, "f"), look(&cluster, "prod"));
    assert_ne!(of_f, of_prod);
    cluster.sql(
        "postgres",
        "SELECT fork_create('f', 'g'); SELECT fork_create('prod', 'h'); CHECKPOINT; SELECT fork_create('g', 'g2')",
    );
    cluster.sql("g2", "UPDATE u SET v = 'g2' WHERE id IN (110, 210, 1010)");

    // VACUUM cuts the end off, across the boundary. DROP hands two segments over.
    for db in ["prod", "f", "g"] {
        let cut = "DELETE FROM t WHERE id >= 200; VACUUM (INDEX_CLEANUP on) t";
        cluster.sql(db, cut);
        let [short, _] = look(&cluster, db);
        assert!(short.ends_with("|129972|129971"), "{short}");
        cluster.sql(db, "UPDATE u SET v = 'last' WHERE id >= 0");
        if db != "g" {
            cluster.sql(db, "DROP TABLE u");
        }
    }
    let of_g2 = look(&cluster, "g2");
    assert_ne!(of_g2, of_f);
    // A crash, and all of it is done again.
    for _ in 0..2 {
        assert_eq!(look(&cluster, "h"), of_prod);
        assert_eq!(look(&cluster, "g2"), of_g2);
        assert_eq!(
            cluster.sql("g", "SELECT count(DISTINCT v) FROM u WHERE id >= 0"),
            "1"
        );
        cluster.stop("immediate");
        cluster.start();
    }
    for db in ["g", "h", "g2"] {
        cluster.amcheck(db);
    }
}

/// ANALYZE asks for blocks ahead, of a file that a mounted table does not have (analyze.c,
/// `acquire_sample_rows`): past the first segment md would raise an error.
#[test]
fn a_mounted_table_past_its_first_segment_is_analyzed() {
    let cluster = Cluster::new("autovacuum = off\nfsync = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE EXTENSION pg_fork; CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 100)",
    );
    let file = cluster.sql("prod", "SELECT pg_relation_filepath('t')");
    cluster.stop("fast");
    lengthen(&cluster, &file, SEGMENT + 20_000);
    cluster.start();
    cluster.sql(
        "prod",
        "SELECT fork_create('prod', 'f'); SELECT fork_mount('f')",
    );
    // The last blocks too.
    cluster.sql("prod", "SET default_statistics_target = 1000; ANALYZE f.t");
    assert_eq!(cluster.sql("prod", "SELECT count(*) FROM f.t"), "100");
}
