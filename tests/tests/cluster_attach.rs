//! Attaching: a session moves into a fork and back (D15).

use pg_fork_tests::Cluster;
use postgres::{Client, SimpleQueryMessage};

/// A server with a database `prod` that has the extension and a table `users`.
fn prod(settings: &str) -> Cluster {
    let cluster = Cluster::new(settings);
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE EXTENSION pg_fork; CREATE TABLE users AS SELECT generate_series(1, 100) AS id",
    );
    cluster
}

/// The first value that a statement sent by the simple protocol returns.
fn value(client: &mut Client, sql: &str) -> Option<String> {
    let messages = client
        .simple_query(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_string)),
        _ => None,
    })?
}

/// The SQLSTATE of a statement that must fail.
fn fails(client: &mut Client, sql: &str) -> String {
    let error = client
        .simple_query(sql)
        .err()
        .unwrap_or_else(|| panic!("{sql} did not fail"));
    let error = error
        .as_db_error()
        .unwrap_or_else(|| panic!("{sql}: {error}"));
    let state = error.code().code();
    if state != "42501" && state != "3D000" && state != "25P01" {
        assert!(
            error.hint().is_some() || state.starts_with("53"),
            "{error:?}"
        );
    }
    state.to_string()
}

#[test]
fn an_agents_loop_from_one_connection() {
    let cluster = prod("");
    let mut agent = cluster.client("prod");
    for round in 0..20 {
        let fork = value(&mut agent, "SELECT fork_create('prod')").expect("a name");
        assert_eq!(
            value(&mut agent, &format!("SELECT fork_attach('{fork}')")).as_deref(),
            Some("prod")
        );
        assert_eq!(
            value(&mut agent, "SELECT fork_current()"),
            Some(fork.clone())
        );
        agent.batch_execute("DROP TABLE users").expect("dropped");
        assert_eq!(fails(&mut agent, "SELECT fork_drop(fork_current())"), "55006");
        assert_eq!(
            value(&mut agent, "SELECT to_regclass('users')"),
            None,
            "round {round}"
        );
        assert_eq!(
            value(&mut agent, "SELECT fork_detach()").as_deref(),
            Some("prod")
        );
        assert_eq!(value(&mut agent, "SELECT fork_current()"), None);
        assert_eq!(
            value(&mut agent, "SELECT count(*) FROM users").as_deref(),
            Some("100")
        );
        assert_eq!(
            value(&mut agent, &format!("SELECT fork_drop('{fork}')")).as_deref(),
            Some("t")
        );
    }
}
