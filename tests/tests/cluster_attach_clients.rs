//! Other ways to a session: poolers, other drivers, the corners of the protocol (D15).

use pg_fork_tests::attach::{attach, detach, fails, get, prod};
use pg_fork_tests::pooler::Pooler;

#[test]
fn a_pooler_in_session_mode_hands_on_sessions_that_are_home() {
    let cluster = prod("");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    let pooler = Pooler::new(&cluster, "session", 1);
    for _ in 0..10 {
        let mut client = pooler.client("prod");
        assert_eq!(get(&mut client, "SELECT current_database()"), "prod");
        attach(&mut client, "f");
        drop(client);
    }
    // One connection of the server's served all of them.
    let mut client = pooler.client("prod");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname IN ('prod', 'f') AND backend_type = 'client backend'";
    assert_eq!(get(&mut client, sessions), "1");
}

#[test]
fn a_pooler_in_transaction_mode_never_hands_on_a_pinned_session() {
    let cluster = prod("");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    cluster.sql(
        "postgres",
        "ALTER ROLE postgres SET pg_fork.pin_attached = on",
    );
    let pooler = Pooler::new(&cluster, "transaction", 2);
    for _ in 0..20 {
        let mut agent = pooler.client("prod");
        let mut app = pooler.client("prod");
        assert_eq!(get(&mut app, "SELECT current_database()"), "prod");
        attach(&mut agent, "f");
        for _ in 0..5 {
            // Each of these could come to any server connection that is free.
            assert_eq!(get(&mut app, "SELECT current_database()"), "prod");
            assert_eq!(get(&mut agent, "SELECT current_database()"), "f");
        }
        // Transactions of its own, failed ones too.
        agent
            .batch_execute("BEGIN; UPDATE users SET id = 0; ROLLBACK")
            .expect("rolled back");
        assert_eq!(fails(&mut agent, "SELECT 1/0").0, "22012");
        assert_eq!(get(&mut agent, "SELECT current_database()"), "f");
        assert_eq!(get(&mut app, "SELECT current_database()"), "prod");
        detach(&mut agent);
        attach(&mut agent, "f");
        // It goes away without a word: the pooler closes the server's connection.
        drop(agent);
        for _ in 0..4 {
            let mut other = pooler.client("prod");
            assert_eq!(get(&mut other, "SELECT current_database()"), "prod");
        }
    }
}

#[test]
fn psycopg_attaches_in_autocommit_mode_and_is_told_how_otherwise() {
    let cluster = prod("");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    let host = cluster.data().trim_end_matches("/data").to_string();
    let program = format!(
        r#"
import psycopg2
c = psycopg2.connect("host={host} user=postgres dbname=prod")
k = c.cursor()
try:
    k.execute("SELECT fork_attach('f')")
    raise SystemExit("not refused")
except psycopg2.errors.ActiveSqlTransaction as e:
    assert "autocommit" in e.diag.message_hint, e
c.rollback()
c.autocommit = True
for n in range(20):
    k.execute("SELECT fork_attach(%s)", ("f",))
    assert k.fetchone()[0] == "prod"
    k.execute("SELECT fork_current(), current_database()")
    assert k.fetchone() == ("f", "f")
    c.autocommit = False
    k.execute("DELETE FROM users")
    c.rollback()
    k.execute("SELECT count(*) FROM users")
    assert k.fetchone()[0] == 100
    c.commit()
    c.autocommit = True
    k.execute("SELECT fork_detach()")
    assert k.fetchone()[0] == "prod"
print("fine")
"#
    );
    let out = std::process::Command::new("/usr/bin/python3")
        .args(["-c", &program])
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        text.contains("fine"),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn node_postgres_attaches_with_parameters_and_prepared_statements() {
    let cluster = prod("");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    let host = cluster.data().trim_end_matches("/data").to_string();
    let path = format!("{}/clients/attach.mjs", env!("CARGO_MANIFEST_DIR"));
    let out = std::process::Command::new("/usr/bin/node")
        .args([&path, &host])
        .output()
        .expect("node runs");
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{told}\n{}", cluster.log_tail());
    assert_eq!(cluster.sql("prod", "SELECT count(*) FROM users"), "100");
    assert_eq!(cluster.sql("f", "SELECT count(*) FROM users"), "80");
}
