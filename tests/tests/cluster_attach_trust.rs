//! Attaching to a fork whose owner nobody trusts.

use pg_fork_tests::attach::{attach, detach, fails, get, prod, refused};
use pg_fork_tests::Cluster;
use postgres::Client;

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// A role that may only fork, and its fork `f` of prod with a schema `trap`.
fn with_rival(cluster: &Cluster) -> Client {
    cluster.sql(
        "prod",
        "CREATE ROLE rival LOGIN; GRANT EXECUTE ON FUNCTION fork_create, fork_attach TO rival",
    );
    let mut rival = cluster.client_as("rival", "prod");
    get(&mut rival, "SELECT fork_create('prod', 'f')");
    let mut rival = cluster.client_as("rival", "f");
    run(
        &mut rival,
        "CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO PUBLIC",
    );
    rival
}

#[test]
fn a_strangers_settings_are_not_taken_on() {
    let cluster = prod("");
    let mut rival = with_rival(&cluster);
    let mut admin = cluster.client("postgres");
    for sql in [
        "ALTER DATABASE prod SET lock_timeout = '3s'",
        "ALTER DATABASE prod SET my.word = 'prod'",
        "GRANT SET ON PARAMETER log_duration TO rival",
    ] {
        run(&mut admin, sql);
    }
    for sql in [
        "ALTER DATABASE f SET search_path = trap, pg_catalog",
        "ALTER DATABASE f SET lock_timeout = '9s'",
        "ALTER DATABASE f SET statement_timeout = '9min'",
        "ALTER DATABASE f SET log_duration = on",
        "ALTER ROLE rival IN DATABASE f SET timezone = 'Asia/Tokyo'",
    ] {
        run(&mut rival, sql);
    }
    // What he could not set is the fork's still.
    run(
        &mut admin,
        "ALTER DATABASE f SET pg_fork.max_pause = '77ms'",
    );
    let all = |client: &mut Client| -> Vec<String> {
        let names = [
            "search_path",
            "lock_timeout",
            "statement_timeout",
            "log_duration",
            "my.word",
            "pg_fork.max_pause",
        ];
        let show = |name| get(client, &format!("SHOW {name}"));
        names.map(show).to_vec()
    };
    let path = "\"$user\", public";
    let mut guest = cluster.client("prod");
    let at_home = all(&mut guest);
    assert_eq!(at_home, [path, "3s", "0", "off", "prod", "10ms"]);
    for _ in 0..2 {
        attach(&mut guest, "f");
        assert_eq!(all(&mut guest), [path, "3s", "0", "off", "prod", "77ms"]);
        detach(&mut guest);
        assert_eq!(all(&mut guest), at_home);
    }
    // A superuser who plays the role can be himself again by a statement.
    run(&mut guest, "SET SESSION AUTHORIZATION rival");
    attach(&mut guest, "f");
    assert_eq!(get(&mut guest, "SHOW lock_timeout"), "3s");
    run(&mut guest, "RESET SESSION AUTHORIZATION");
    detach(&mut guest);
    // Another's fork of it began with his settings.
    get(&mut admin, "SELECT fork_create('f', 'g')");
    attach(&mut guest, "g");
    assert_eq!(get(&mut guest, "SHOW lock_timeout"), "3s");
    detach(&mut guest);
    // He himself takes them on; so does who logged in there.
    let mut own = cluster.client_as("rival", "prod");
    attach(&mut own, "f");
    assert_eq!(get(&mut own, "SHOW lock_timeout"), "9s");
    assert_eq!(get(&mut own, "SHOW timezone"), "Asia/Tokyo");
    let mut inside = cluster.client("f");
    get(&mut inside, "SELECT public.fork_attach('g')");
    assert_eq!(get(&mut inside, "SELECT current_database()"), "g");
    assert_eq!(get(&mut inside, "SHOW lock_timeout"), "9s");
    // And once a superuser owns it, everyone does.
    run(&mut admin, "ALTER DATABASE f OWNER TO postgres");
    attach(&mut guest, "f");
    assert_eq!(get(&mut guest, "SHOW lock_timeout"), "9s");
}

/// A body that tells who ran it.
const SPY: &str =
    "LANGUAGE plpgsql AS $$ BEGIN INSERT INTO trap.caught VALUES (current_user); RETURN";

#[test]
fn the_way_out_cannot_be_forged() {
    let cluster = prod("");
    let mut rival = with_rival(&cluster);
    run(
        &mut rival,
        "CREATE TABLE trap.caught (who text); GRANT ALL ON trap.caught TO PUBLIC",
    );
    // The schema that the functions are in is the fork's owner's.
    run(
        &mut rival,
        "ALTER SCHEMA public RENAME TO was_public; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC",
    );
    let plants = [
        format!("FUNCTION public.fork_detach() RETURNS name {SPY} 'prod'; END $$"),
        format!("FUNCTION public.fork_detach() RETURNS text {SPY} 'prod'; END $$"),
        format!("FUNCTION public.fork_detach() RETURNS SETOF name {SPY}; END $$"),
        format!("FUNCTION public.fork_detach(a int DEFAULT 1) RETURNS name {SPY} 'prod'; END $$"),
    ];
    let dropped = [
        "FUNCTION public.fork_detach()",
        "FUNCTION public.fork_detach()",
        "FUNCTION public.fork_detach()",
        "FUNCTION public.fork_detach(int)",
    ];
    let mut guest = cluster.client("prod");
    run(&mut guest, "PREPARE back AS SELECT fork_detach()");
    for (plant, dropped) in plants.iter().zip(dropped) {
        run(&mut rival, &format!("CREATE {plant}"));
        let calls = [
            "SELECT fork_detach()",
            "SELECT public.fork_detach()",
            "EXECUTE back",
        ];
        for call in calls {
            attach(&mut guest, "f");
            if call.starts_with("EXECUTE") {
                // EXECUTE is no call of its own, here as at home.
                assert!(guest.batch_execute(call).is_err());
                run(&mut guest, "DISCARD ALL");
                run(&mut guest, "PREPARE back AS SELECT fork_detach()");
            } else {
                assert_eq!(get(&mut guest, call), "prod", "{plant}: {call}");
            }
            assert_eq!(get(&mut guest, "SELECT current_database()"), "prod");
        }
        // By the extended protocol.
        attach(&mut guest, "f");
        let row = guest.query_one("SELECT fork_detach()", &[]).expect("home");
        assert_eq!(row.get::<_, String>(0), "prod");
        // A driver's statement, prepared at home.
        let mut driver = cluster.client("prod");
        let back = driver.prepare("SELECT fork_detach()").expect("prepared");
        attach(&mut driver, "f");
        let row = driver.query_one(&back, &[]).expect("home");
        assert_eq!(row.get::<_, String>(0), "prod");
        // As a table: where the type fits it is ours, else it is refused, and DISCARD ALL goes home.
        attach(&mut guest, "f");
        if guest.simple_query("SELECT * FROM fork_detach()").is_err() {
            refused(&mut guest, "SELECT * FROM fork_detach()", "42883");
            run(&mut guest, "DISCARD ALL");
            run(&mut guest, "PREPARE back AS SELECT fork_detach()");
        }
        assert_eq!(get(&mut guest, "SELECT current_database()"), "prod");
        run(&mut rival, &format!("DROP {dropped}"));
    }
    // On to another fork, and what is in no place where it can be made ours.
    get(&mut guest, "SELECT fork_create('prod', 'g')");
    run(
        &mut rival,
        &format!(
            "CREATE DOMAIN trap.dom AS text;
             CREATE FUNCTION trap.seen(text) RETURNS boolean {SPY} true; END $$;
             ALTER DOMAIN trap.dom ADD CHECK (trap.seen(VALUE));
             CREATE FUNCTION public.fork_attach(text) RETURNS name {SPY} 'prod'; END $$"
        ),
    );
    attach(&mut guest, "f");
    assert_eq!(get(&mut guest, "SELECT fork_attach('g')"), "f");
    assert_eq!(get(&mut guest, "SELECT current_database()"), "g");
    attach(&mut guest, "f");
    run(
        &mut rival,
        &format!(
            "DROP FUNCTION public.fork_attach(text);
             CREATE FUNCTION public.fork_attach(trap.dom) RETURNS name {SPY} 'prod'; END $$"
        ),
    );
    assert_eq!(get(&mut guest, "SELECT fork_attach('g')"), "f");
    attach(&mut guest, "f");
    run(
        &mut rival,
        &format!(
            "DROP FUNCTION public.fork_attach(trap.dom);
             CREATE FUNCTION public.fork_attach(VARIADIC name[]) RETURNS name {SPY} 'prod'; END $$"
        ),
    );
    assert_eq!(get(&mut guest, "SELECT fork_attach('g')"), "f");
    attach(&mut guest, "f");
    run(
        &mut rival,
        "DROP FUNCTION public.fork_attach(VARIADIC name[]);
         CREATE DOMAIN public.fork_attach AS text CHECK (trap.seen(VALUE))",
    );
    refused(&mut guest, "SELECT fork_attach('g')", "42883");
    run(
        &mut rival,
        &format!(
            "CREATE FUNCTION trap.step(text, text) RETURNS text {SPY} 'prod'; END $$;
             CREATE AGGREGATE public.fork_attach(text) (SFUNC = trap.step, STYPE = text)"
        ),
    );
    refused(&mut guest, "SELECT fork_attach('g')", "42883");
    run(
        &mut rival,
        &format!("CREATE FUNCTION public.fork_current() RETURNS text {SPY} 'prod'; END $$"),
    );
    assert_eq!(get(&mut guest, "SELECT fork_current()"), "f");
    refused(&mut guest, "SELECT upper(fork_current())", "42883");
    refused(
        &mut guest,
        "EXPLAIN ANALYZE SELECT fork_current() || 'x'",
        "42883",
    );
    run(&mut guest, "DISCARD ALL");
    assert_eq!(get(&mut guest, "SELECT current_database()"), "prod");
    assert_eq!(get(&mut rival, "SELECT count(*) FROM trap.caught"), "0");
    // At home, and for those who logged in there, a function of that name is whose it is.
    assert_eq!(get(&mut rival, "SELECT fork_current()"), "prod");
    assert_eq!(get(&mut rival, "SELECT count(*) FROM trap.caught"), "1");
    // Without the extension there is nothing to lead to.
    let mut inside = cluster.client("f");
    run(&mut inside, "DROP EXTENSION pg_fork CASCADE");
    attach(&mut guest, "f");
    refused(&mut guest, "SELECT fork_current()", "42883");
    let (state, _, hint) = fails(&mut guest, "SELECT fork_detach()");
    assert_eq!(state, "42883");
    assert!(hint.is_some_and(|hint| hint.contains("DISCARD ALL")));
    run(&mut guest, "DISCARD ALL");
    assert_eq!(get(&mut guest, "SELECT current_database()"), "prod");
    assert_eq!(get(&mut rival, "SELECT count(*) FROM trap.caught"), "1");
}

#[test]
fn a_session_whose_fork_is_dropped_is_told_so() {
    let cluster = prod("");
    let mut admin = cluster.client("prod");
    get(&mut admin, "SELECT fork_create('prod', 'f')");
    get(&mut admin, "SELECT fork_create('prod', 'other')");
    let told = |client: &mut Client| -> (String, String) {
        // The message may be read only after the connection is found closed.
        for _ in 0..100 {
            if let Err(error) = client.batch_execute("SELECT 1") {
                let error = error.as_db_error().expect("a message before the end");
                return (error.code().code().into(), error.message().into());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("it was not ended");
    };
    let mut attached = cluster.client("prod");
    attach(&mut attached, "f");
    let mut direct = cluster.client("f");
    let mut bystander = cluster.client("other");
    get(&mut bystander, "SELECT 1");
    // A drop that fails takes the mark back.
    get(&mut attached, "SELECT fork_create('f', 'child')");
    assert_eq!(fails(&mut admin, "SELECT fork_drop('f')").0, "2BP01");
    get(&mut admin, "SELECT fork_drop('child')");
    run(&mut admin, "BEGIN");
    get(&mut admin, "SELECT fork_drop('f')");
    let wanted = (
        "57P04".to_string(),
        "terminating connection because fork \"f\" is being dropped".to_string(),
    );
    assert_eq!(told(&mut attached), wanted);
    assert_eq!(told(&mut direct), wanted);
    run(&mut admin, "ROLLBACK");
    // Then an administrator is an administrator again.
    let mut direct = cluster.client("f");
    let pid = get(&mut direct, "SELECT pg_backend_pid()");
    get(&mut admin, &format!("SELECT pg_terminate_backend({pid})"));
    assert_eq!(told(&mut direct).0, "57P01");
    let mut direct = cluster.client("f");
    get(&mut direct, "SELECT 1");
    run(&mut admin, "DROP DATABASE f WITH (FORCE)");
    assert_eq!(told(&mut direct), wanted);
    assert_eq!(get(&mut bystander, "SELECT current_database()"), "other");
}

#[test]
fn nobody_but_a_superuser_says_how_long_prod_may_be_stopped() {
    let cluster = prod("");
    cluster.sql(
        "prod",
        "CREATE ROLE rival LOGIN; GRANT EXECUTE ON FUNCTION fork_create TO rival",
    );
    let mut rival = cluster.client_as("rival", "prod");
    let (state, _, _) = fails(&mut rival, "SET pg_fork.cut_timeout = '20s'");
    assert_eq!(state, "42501");
    assert_eq!(fails(&mut rival, "SET pg_fork.max_pause = '1s'").0, "42501");
    assert_eq!(
        fails(
            &mut rival,
            "ALTER ROLE rival SET pg_fork.cut_timeout = '20s'"
        )
        .0,
        "42501"
    );
    // The server's own 5 s (see `Cluster::new`) are not his either.
    let mut stuck = cluster.client("prod");
    let pid = get(&mut stuck, "SELECT pg_backend_pid()");
    let signal = |signal: &str| {
        let sent = std::process::Command::new("kill")
            .args([signal, &pid])
            .status();
        assert!(sent.expect("kill runs").success());
    };
    let took = |client: &mut Client| {
        let began = std::time::Instant::now();
        let (state, _, _) = fails(client, "SELECT fork_create('prod', 'f')");
        assert_eq!(state, "55P03");
        began.elapsed().as_secs_f64()
    };
    signal("-STOP");
    let (his, ours) = (took(&mut rival), took(&mut cluster.client("prod")));
    assert!((0.9..4.0).contains(&his), "{his}");
    assert!(ours >= 4.9, "{ours}");
    // In many sessions, again and again, given up as soon as the source stands still: it goes on between.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (longest, still) = std::thread::scope(|scope| {
        for timeout in ["0", "7ms", "60ms", "300ms"] {
            let (cluster, stop) = (&cluster, &stop);
            scope.spawn(move || {
                let mut rival = cluster.client_as("rival", "prod");
                run(&mut rival, &format!("SET statement_timeout = '{timeout}'"));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = rival.simple_query("SELECT fork_create('prod', 'f')");
                }
            });
        }
        let mut user = cluster.client("prod");
        let began = std::time::Instant::now();
        let (mut longest, mut still) = (0f64, 0f64);
        while began.elapsed().as_secs() < 4 {
            let asked = std::time::Instant::now();
            get(&mut user, "SELECT count(*) FROM users");
            let took = asked.elapsed().as_secs_f64();
            longest = longest.max(took);
            still += took * f64::from(u8::from(took > 0.01));
        }
        let part = still / began.elapsed().as_secs_f64();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (longest, part)
    });
    signal("-CONT");
    assert!(longest < 1.0, "one waited for {longest} s");
    assert!(
        still < 0.7,
        "the source stood still for {still} of the time"
    );
}
