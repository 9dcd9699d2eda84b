//! Attaching, and libraries that remember which database they are in.

use pg_fork_tests::attach::{attach, detach, get, refused};
use pg_fork_tests::{pg_config, Cluster};
use postgres::Client;

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Whether this server has the extension's package.
fn has(cluster: &Cluster, extension: &str) -> bool {
    let sql = format!("SELECT count(*) FROM pg_available_extensions WHERE name = '{extension}'");
    let has = cluster.sql("postgres", &sql) == "1";
    if !has {
        eprintln!("skipped: {extension} is not installed");
    }
    has
}

#[test]
fn postgis_looks_its_types_up_again() {
    let cluster = Cluster::new("");
    if !has(&cluster, "postgis") {
        return;
    }
    // Two databases that have nothing in common: other numbers, another schema, another projection.
    for (db, schema, before) in [
        ("land", "public", ""),
        (
            "sea",
            "maps",
            "CREATE SCHEMA maps; CREATE TABLE other (i int); ",
        ),
    ] {
        cluster.sql("postgres", &format!("CREATE DATABASE {db}"));
        cluster.sql(
            db,
            &format!("{before}CREATE EXTENSION pg_fork; CREATE EXTENSION postgis SCHEMA {schema}"),
        );
        cluster.sql(
            "postgres",
            &format!("ALTER DATABASE {db} SET search_path = {schema}, public"),
        );
        cluster.sql(
            db,
            "CREATE TABLE public.places AS SELECT i AS id, st_setsrid(st_makepoint(i, i), 4326) AS at FROM generate_series(1, 50) i; \
             CREATE INDEX ON places USING gist (at)",
        );
    }
    cluster.sql(
        "sea",
        "UPDATE maps.spatial_ref_sys SET auth_name = 'none', auth_srid = 1, srtext = '', \
         proj4text = '+proj=utm +zone=33 +datum=WGS84' WHERE srid = 32632",
    );
    for (db, fork) in [("land", "land_f"), ("sea", "sea_f"), ("sea", "sea_g")] {
        cluster.sql("land", &format!("SELECT fork_create('{db}', '{fork}')"));
    }
    // In one fork it is made anew, so with other numbers.
    cluster.sql(
        "sea_g",
        "DROP EXTENSION postgis CASCADE; CREATE EXTENSION postgis SCHEMA maps; \
         ALTER TABLE places ADD COLUMN at geometry; \
         UPDATE places SET at = st_setsrid(st_makepoint(id, id), 4326)",
    );
    // A function that asks for the type, one that reads a projection, one that builds an index condition.
    let asked = |session: &mut Client| -> [String; 4] {
        run(session, "SET enable_seqscan = off");
        [
            "SELECT st_asgeojson(places.*)::json ->> 'geometry' FROM places WHERE id = 3",
            "SELECT st_astext(st_transform(st_setsrid(st_makepoint(9, 0), 4326), 32632), 0)",
            "SELECT string_agg(id::text, ' ' ORDER BY id) FROM places WHERE st_dwithin(at, st_setsrid(st_makepoint(4, 4), 4326), 1.5)",
            "SELECT st_asmvt(q)::text FROM (SELECT st_asmvtgeom(at, st_makeenvelope(0, 0, 9, 9, 4326)) FROM places WHERE id = 2) q",
        ]
        .map(|sql| get(session, sql))
    };
    let by_login = |db: &str| asked(&mut cluster.client(db));
    let expected = ["land", "sea_f", "land_f", "sea_g"].map(|db| (db, by_login(db)));
    assert_ne!(expected[0].1[1], expected[1].1[1]);
    assert_eq!(expected[0].1[0], r#"{"type":"Point","coordinates":[3,3]}"#);
    let mut session = cluster.client("land");
    for _ in 0..5 {
        for (db, answers) in &expected {
            if get(&mut session, "SELECT current_database()") != *db {
                attach(&mut session, db);
            }
            assert_eq!(asked(&mut session), *answers, "{db}");
            if *db != "sea_g" {
                let plan = "EXPLAIN SELECT FROM places WHERE st_dwithin(at, st_setsrid(st_makepoint(4, 4), 4326), 1.5)";
                assert!(get(&mut session, plan).contains("Index"), "{db}");
            }
        }
    }
    // What it kept of each is gone with it.
    let kept = "SELECT count(*) FROM pg_backend_memory_contexts WHERE name IN ('PostGIS Constants Context', 'Proj Context')";
    assert_eq!(get(&mut session, kept), "2");
    detach(&mut session);
    assert_eq!(get(&mut session, kept), "0");
    assert_eq!(asked(&mut session), expected[0].1);
    // Who remembers the number of its types may go where they are the same. A library by that name will do.
    let folder = cluster.folder("libraries");
    let library = format!("{folder}/ogr_fdw.so");
    std::fs::copy(pg_config("--pkglibdir").join("tablefunc.so"), &library).expect("copied");
    let mut reader = cluster.client("land");
    run(&mut reader, &format!("LOAD '{library}'"));
    attach(&mut reader, "land_f");
    refused(&mut reader, "SELECT fork_attach('sea_f')", "0A000");
    detach(&mut reader);
    let mut reader = cluster.client("sea");
    run(&mut reader, &format!("LOAD '{library}'"));
    attach(&mut reader, "sea_f");
    refused(&mut reader, "SELECT fork_attach('sea_g')", "0A000");
    detach(&mut reader);
    // Raster and topology keep nothing.
    for extension in ["postgis_raster", "postgis_topology"] {
        if has(&cluster, extension) {
            cluster.sql("land", &format!("CREATE EXTENSION {extension}"));
            cluster.sql("sea", &format!("CREATE EXTENSION {extension}"));
        }
    }
    if has(&cluster, "postgis_topology") && has(&cluster, "postgis_raster") {
        cluster.sql("land", "SELECT fork_create('sea', 'sea_t')");
        let work = |session: &mut Client| -> [String; 2] {
            run(
                session,
                "BEGIN; SELECT topology.createtopology('roads', 4326);
                 SELECT topology.topogeo_addlinestring('roads', st_geomfromtext('LINESTRING(0 0, 1 1, 2 0)', 4326))",
            );
            let got = [
                "SELECT st_astext(geom) FROM roads.edge_data",
                "SELECT st_summary(st_asraster(st_buffer(st_makepoint(1, 1), 10), 4, 4))",
            ]
            .map(|sql| get(session, sql));
            run(session, "ROLLBACK");
            got
        };
        let (land, sea) = (
            work(&mut cluster.client("land")),
            work(&mut cluster.client("sea_t")),
        );
        let mut session = cluster.client("land");
        for _ in 0..2 {
            assert_eq!(work(&mut session), land);
            attach(&mut session, "sea_t");
            assert_eq!(work(&mut session), sea);
            detach(&mut session);
        }
    }
}

#[test]
fn a_library_matters_where_it_is_used() {
    let cluster = Cluster::new("shared_preload_libraries = 'pg_fork,pg_cron'");
    if !has(&cluster, "pg_cron") || !has(&cluster, "plpython3u") {
        return;
    }
    for db in ["shop", "snakes"] {
        cluster.sql("postgres", &format!("CREATE DATABASE {db}"));
        cluster.sql(db, "CREATE EXTENSION pg_fork");
    }
    cluster.sql("postgres", "CREATE EXTENSION pg_cron");
    cluster.sql("snakes", "CREATE EXTENSION plpython3u");
    for (db, fork) in [("shop", "f"), ("snakes", "s"), ("postgres", "p")] {
        cluster.sql("postgres", &format!("SELECT fork_create('{db}', '{fork}')"));
    }
    // Merely preloaded it keeps nothing; where the extension is, or was entered, it may.
    let mut session = cluster.client("shop");
    attach(&mut session, "f");
    attach(&mut session, "s");
    let message = refused(&mut session, "SELECT fork_attach('p')", "0A000");
    assert!(message.contains("pg_cron"), "{message}");
    detach(&mut session);
    let mut there = cluster.client("postgres");
    refused(&mut there, "SELECT fork_attach('f')", "0A000");
    // A language that the session has used, and one that it has not.
    run(&mut session, "LOAD 'plpython3'");
    attach(&mut session, "f");
    let message = refused(&mut session, "SELECT fork_attach('s')", "0A000");
    assert!(message.contains("plpython3"), "{message}");
    detach(&mut session);
    let mut snake = cluster.client("snakes");
    attach(&mut snake, "f");
    detach(&mut snake);
    run(
        &mut snake,
        "DO LANGUAGE plpython3u $$ plpy.execute('SELECT 1') $$",
    );
    refused(&mut snake, "SELECT fork_attach('f')", "0A000");
}
