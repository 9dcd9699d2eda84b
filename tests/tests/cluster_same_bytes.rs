//! I1: the files of a database without forks are byte for byte those of a server without the extension.

use pg_fork_tests::files::{assert_same, files};
use pg_fork_tests::Cluster;
use std::collections::BTreeMap;

/// No second session writes, nothing depends on the clock, and no WAL record comes by the clock: pages
/// hold LSNs. (So no GiST and SP-GiST, which draw at random, and no temporary tables: their schema has
/// the session's number in its name, and the library's worker takes one.)
const SETTINGS: &str = "autovacuum = off\nbgwriter_lru_maxpages = 0\nwal_level = minimal\n\
     max_wal_senders = 0\ncheckpoint_timeout = '1h'\nmax_wal_size = '4GB'\nshared_buffers = '4MB'\n\
     max_parallel_workers = 0\nsynchronize_seqscans = off";

/// Bigger than shared buffers, so that the session writes pages out itself; each kind of relation file
/// is made, grows, shrinks, is rewritten and goes.
const WORKLOAD: &str = "
CREATE TABLE t (id int PRIMARY KEY, a int, b text, c int[]);
INSERT INTO t SELECT n, n % 97, md5(n::text), ARRAY[n, n % 7] FROM generate_series(1, 20000) AS n;
CREATE INDEX ON t (a);
CREATE INDEX ON t USING hash (b);
CREATE INDEX ON t USING gin (c);
CREATE INDEX ON t USING brin (id);
UPDATE t SET a = a + 1 WHERE id % 3 = 0;
CHECKPOINT;
DELETE FROM t WHERE id % 5 = 0;
BEGIN;
UPDATE t SET b = 'rolled back';
ROLLBACK;
BEGIN;
SAVEPOINT s;
INSERT INTO t SELECT n, 0, 'x', NULL FROM generate_series(30000, 31000) AS n;
ROLLBACK TO s;
SELECT count(*) FROM (SELECT 1 FROM t WHERE a = 5 FOR UPDATE) AS locked;
COMMIT;
VACUUM t;
CREATE TABLE big AS SELECT n, repeat(md5(n::text), 200) AS toasted FROM generate_series(1, 300) AS n;
CREATE UNLOGGED TABLE u AS SELECT * FROM t;
CREATE SEQUENCE q;
SELECT sum(nextval('q')) FROM generate_series(1, 100);
SELECT lo_from_bytea(4711, repeat('large object', 1000)::bytea);
ALTER TABLE t ADD COLUMN d int DEFAULT 3;
CHECKPOINT;
DELETE FROM t WHERE id > 10000;
VACUUM (FREEZE, TRUNCATE) t;
ALTER TABLE t ALTER COLUMN a TYPE bigint;
VACUUM FULL big;
CLUSTER t USING t_pkey;
REINDEX TABLE t;
TRUNCATE u;
DROP TABLE big;
CREATE MATERIALIZED VIEW m AS SELECT a, count(*) FROM t GROUP BY a ORDER BY a;
ALTER TABLE u SET LOGGED;
REINDEX TABLE pg_class;
VACUUM FULL pg_proc;
CREATE ROLE somebody;
CREATE DATABASE copied TEMPLATE template0;
CREATE DATABASE files TEMPLATE template0 STRATEGY file_copy;
DROP DATABASE copied;
INSERT INTO t SELECT n, 1, 'y', ARRAY[1] FROM generate_series(50000, 60000) AS n;
ANALYZE u;
SELECT pg_current_wal_insert_lsn();
";

/// Runs the workload and stops; what it printed, which ends with where its WAL ends, and the files.
fn run(cluster: &Cluster) -> (String, BTreeMap<String, Vec<u8>>) {
    cluster.start();
    let out = cluster.script("postgres", WORKLOAD);
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    cluster.stop("fast");
    let mut found = files(&cluster.data());
    // Of the others some hold times; relation cache files hold addresses; base/pgsql_tmp is of no
    // database, and where the library says that it runs.
    let kept = ["base/", "global/", "pg_xact/", "pg_multixact/"];
    found.retain(|name, _| {
        kept.iter().any(|folder| name.starts_with(folder))
            && name != "global/pg_control"
            && !name.starts_with("base/pgsql_tmp/")
            && !name.ends_with("pg_internal.init")
    });
    (String::from_utf8_lossy(&out.stdout).into_owned(), found)
}

#[test]
fn a_server_that_preloads_the_library_writes_what_a_stock_server_writes() {
    // The checksums' place in each page is compared too.
    let stock = Cluster::unstarted(SETTINGS, &["-k"]);
    let preloaded = stock.twin("shared_preload_libraries = 'pg_fork'");
    let (stock, preloaded) = (run(&stock), run(&preloaded));
    assert_eq!(stock.0, preloaded.0);
    assert!(stock.1.len() > 1000, "too few files: {}", stock.1.len());
    assert_same(&stock.1, &preloaded.1);
}
