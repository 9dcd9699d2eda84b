//! The owner of the source's database in a fork that someone else made.

use pg_fork_tests::attach::{attach, fails, get, value};
use pg_fork_tests::Cluster;
use postgres::Client;

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// A server with a database `shop` of the role `app`, who has a table there; `dev` may fork.
fn shop(settings: &str) -> Cluster {
    let cluster = Cluster::new(settings);
    cluster.sql(
        "postgres",
        "CREATE ROLE app LOGIN; CREATE ROLE dev LOGIN; CREATE DATABASE shop OWNER app",
    );
    cluster.sql(
        "shop",
        "CREATE EXTENSION pg_fork; GRANT EXECUTE ON FUNCTION fork_create TO dev; \
         GRANT EXECUTE ON FUNCTION fork_attach TO PUBLIC",
    );
    // As hardened servers have it: nobody else even sees what is in there.
    let mut app = cluster.client_as("app", "shop");
    run(
        &mut app,
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE TABLE orders (id int)",
    );
    cluster
}

/// What an application does when it starts.
fn migrate(client: &mut Client, name: &str) {
    run(client, "SELECT count(*) FROM orders");
    run(
        client,
        &format!(
            "CREATE TABLE {name} (id serial PRIMARY KEY); INSERT INTO {name} DEFAULT VALUES;
             CREATE SCHEMA {name}; CREATE TEMP TABLE t_{name} (i int); ALTER TABLE orders ADD COLUMN {name} int"
        ),
    );
}

fn rights(cluster: &Cluster, db: &str) -> String {
    cluster.sql(
        db,
        "SELECT nspacl FROM pg_namespace WHERE nspname = 'public'",
    )
}

#[test]
fn an_application_migrates_in_an_administrators_fork() {
    let cluster = shop("");
    let create = |fork: &str| cluster.sql("shop", &format!("SELECT fork_create('shop', '{fork}')"));
    create("one");
    // By a login; its own first look must not be the one that fails.
    migrate(&mut cluster.client_as("app", "one"), "a");
    migrate(&mut cluster.client_as("app", "one"), "b");
    // By SET ROLE.
    create("two");
    let mut admin = cluster.client("two");
    run(&mut admin, "SET ROLE app");
    migrate(&mut admin, "a");
    // By attaching.
    create("three");
    let mut app = cluster.client_as("app", "shop");
    attach(&mut app, "three");
    migrate(&mut app, "a");
    // Where sessions only read, and where an event trigger would have something to say.
    run(
        &mut cluster.client("shop"),
        "ALTER ROLE app SET default_transaction_read_only = on;
         CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
         CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION no()",
    );
    create("four");
    let mut app = cluster.client_as("app", "four");
    assert_eq!(get(&mut app, "SELECT count(*) FROM orders"), "0");
    assert_eq!(
        get(&mut app, "SELECT has_schema_privilege('public', 'CREATE')"),
        "t"
    );
    drop(app);
    cluster.sql("shop", "DROP EVENT TRIGGER no; ALTER ROLE app RESET ALL");
    // Many first sessions at once, and a crash right after.
    create("five");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let cluster = &cluster;
            scope.spawn(move || {
                let mut app = cluster.client_as("app", "five");
                run(&mut app, &format!("CREATE TABLE m{n} ()"));
            });
        }
    });
    assert_eq!(
        rights(&cluster, "five"),
        "{pg_database_owner=UC/pg_database_owner,app=UC/pg_database_owner}"
    );
    create("six");
    cluster.client("six");
    cluster.stop("immediate");
    cluster.start();
    migrate(&mut cluster.client_as("app", "six"), "a");
    // The source is as it was.
    assert_eq!(
        rights(&cluster, "shop"),
        "{pg_database_owner=UC/pg_database_owner}"
    );
    assert_eq!(
        cluster.sql(
            "shop",
            "SELECT datacl IS NULL FROM pg_database WHERE datname = 'shop'"
        ),
        "t"
    );
    // Who owns a fork later.
    cluster.sql("postgres", "ALTER DATABASE six OWNER TO app");
    migrate(&mut cluster.client_as("app", "six"), "b");
    cluster.sql("postgres", "ALTER DATABASE six OWNER TO dev");
    cluster.sql("six", "ALTER DATABASE six OWNER TO postgres");
    // What pg_fork gave is no change of the fork's; what others give is.
    cluster.sql(
        "one",
        "GRANT USAGE ON SCHEMA public TO dev; CREATE SCHEMA fresh; GRANT ALL ON SCHEMA fresh TO app",
    );
    let changes =
        "SELECT object FROM fork_diff_schema('one') WHERE object LIKE 'rights%' ORDER BY 1";
    assert_eq!(
        cluster.sql("shop", changes),
        "rights of app on schema fresh\nrights of dev on schema public"
    );
    // More than that, too.
    cluster.sql("one", "GRANT ALL ON SCHEMA public TO app WITH GRANT OPTION");
    assert!(cluster
        .sql("shop", changes)
        .contains("app on schema public"));
    // It can be taken away with the role, as any rights.
    let error = cluster.error("postgres", "DROP ROLE app");
    assert!(error.contains("privileges for database one"), "{error}");
}

#[test]
fn what_the_forks_owner_revokes_stays_revoked() {
    let cluster = shop("");
    let mut dev = cluster.client_as("dev", "postgres");
    assert_eq!(
        fails(&mut dev, "SELECT fork_create('shop', 'f')").0,
        "42501"
    );
    cluster.sql("postgres", "GRANT EXECUTE ON FUNCTION fork_create TO dev");
    get(&mut dev, "SELECT fork_create('shop', 'f')");
    // He may be there first, before anyone else; the fork is his.
    let mut dev = cluster.client_as("dev", "f");
    run(
        &mut dev,
        "REVOKE CREATE ON SCHEMA public FROM app; REVOKE TEMP ON DATABASE f FROM app, PUBLIC",
    );
    for crash in [false, true] {
        let mut app = cluster.client_as("app", "f");
        assert_eq!(get(&mut app, "SELECT count(*) FROM orders"), "0");
        assert_eq!(fails(&mut app, "CREATE TABLE t ()").0, "42501");
        assert_eq!(fails(&mut app, "CREATE TEMP TABLE t ()").0, "42501");
        run(&mut app, &format!("CREATE SCHEMA s{}", u8::from(crash)));
        if !crash {
            cluster.stop("immediate");
            cluster.start();
        }
    }
    // The other way round he has not got what is the application's.
    let mut dev = cluster.client_as("dev", "f");
    assert_eq!(fails(&mut dev, "SELECT count(*) FROM orders").0, "42501");
    assert_eq!(fails(&mut dev, "SET ROLE app").0, "42501");
    // A fork of the fork: both before find theirs, and what was revoked is not given anew.
    cluster.sql("postgres", "SELECT fork_create('f', 'g')");
    let mut app = cluster.client_as("app", "g");
    assert_eq!(get(&mut app, "SELECT count(*) FROM orders"), "0");
    assert_eq!(fails(&mut app, "CREATE TABLE t ()").0, "42501");
    run(
        &mut cluster.client_as("dev", "g"),
        "CREATE TABLE t (); CREATE SCHEMA d",
    );
}

#[test]
fn rights_are_owed_down_the_line_and_to_nobody_else() {
    let cluster = shop("");
    let label = |fork: &str| {
        let sql = format!(
            "SELECT label FROM pg_shseclabel WHERE objoid = (SELECT oid FROM pg_database WHERE datname = '{fork}')"
        );
        cluster.sql("postgres", &sql)
    };
    // A fork of a fork that nobody has been in.
    cluster.sql(
        "postgres",
        "GRANT EXECUTE ON FUNCTION fork_create TO dev, app",
    );
    let mut dev = cluster.client_as("dev", "postgres");
    get(&mut dev, "SELECT fork_create('shop', 'f')");
    cluster.sql("postgres", "SELECT fork_create('f', 'g')");
    migrate(&mut cluster.client_as("app", "g"), "a");
    run(
        &mut cluster.client_as("dev", "g"),
        "CREATE TABLE d (); CREATE SCHEMA d",
    );
    migrate(&mut cluster.client_as("app", "f"), "a");
    // Of his own, of a superuser's, of one whose owner has not got the rights himself.
    let mut app = cluster.client_as("app", "postgres");
    get(&mut app, "SELECT fork_create('shop', 'own')");
    assert_eq!(label("own"), "fork");
    migrate(&mut cluster.client_as("app", "own"), "a");
    cluster.sql("postgres", "SELECT fork_create('postgres', 'plain')");
    assert_eq!(label("plain"), "fork");
    let acl = "SELECT datacl IS NULL FROM pg_database WHERE datname = 'plain'";
    assert_eq!(cluster.sql("postgres", acl), "t");
    run(
        &mut cluster.client_as("app", "shop"),
        "REVOKE CREATE ON SCHEMA public FROM pg_database_owner; REVOKE CREATE, TEMP ON DATABASE shop FROM app",
    );
    cluster.sql("shop", "CREATE SCHEMA bare AUTHORIZATION pg_database_owner");
    cluster.sql("postgres", "SELECT fork_create('shop', 'less')");
    let mut app = cluster.client_as("app", "less");
    assert_eq!(get(&mut app, "SELECT count(*) FROM orders"), "0");
    assert_eq!(fails(&mut app, "CREATE TABLE t ()").0, "42501");
    assert_eq!(fails(&mut app, "CREATE SCHEMA s").0, "42501");
    run(&mut app, "CREATE TABLE bare.t ()");
    drop(app);
    // The owner's role is gone before anyone comes.
    cluster.sql(
        "postgres",
        "CREATE ROLE late; CREATE DATABASE store OWNER late; SELECT fork_create('store', 'orphan')",
    );
    assert!(label("orphan").contains("owed"));
    cluster.sql(
        "store",
        "ALTER DATABASE store OWNER TO postgres; DROP OWNED BY late; DROP ROLE late",
    );
    let mut admin = cluster.client("orphan");
    assert_eq!(
        get(
            &mut admin,
            "SELECT nspacl FROM pg_namespace WHERE nspname = 'public'"
        ),
        "{pg_database_owner=UC/pg_database_owner,=U/pg_database_owner}"
    );
    let acl = "SELECT datacl FROM pg_database WHERE datname = 'orphan'";
    assert!(value(&mut admin, acl).is_some());
    run(&mut admin, "CREATE TABLE t ()");
    assert!(!label("orphan").contains("owed"));
}
