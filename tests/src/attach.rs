//! What the tests of attaching share.

use crate::Cluster;
use postgres::{Client, SimpleQueryMessage};

/// A server with a database `prod` that has the extension and a table `users` of 100 rows.
pub fn prod(settings: &str) -> Cluster {
    let cluster = Cluster::new(settings);
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql(
        "prod",
        "CREATE EXTENSION pg_fork; CREATE TABLE users AS SELECT generate_series(1, 100) AS id",
    );
    cluster
}

/// The first value that a statement sent by the simple protocol returns.
pub fn value(client: &mut Client, sql: &str) -> Option<String> {
    let messages = client
        .simple_query(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_string)),
        _ => None,
    })?
}

/// As [`value`], for a value that is not null.
pub fn get(client: &mut Client, sql: &str) -> String {
    value(client, sql).unwrap_or_else(|| panic!("{sql}: null"))
}

/// Moves the session into the fork.
pub fn attach(client: &mut Client, fork: &str) -> String {
    let from = get(client, &format!("SELECT fork_attach('{fork}')"));
    assert_eq!(get(client, "SELECT current_database()"), fork);
    from
}

/// Moves the session home.
pub fn detach(client: &mut Client) -> String {
    let to = get(client, "SELECT fork_detach()");
    assert_eq!(get(client, "SELECT current_database()"), to);
    to
}

/// The SQLSTATE, message and hint of a statement that must fail.
pub fn fails(client: &mut Client, sql: &str) -> (String, String, Option<String>) {
    let error = client
        .simple_query(sql)
        .err()
        .unwrap_or_else(|| panic!("{sql} did not fail"));
    let error = error
        .as_db_error()
        .unwrap_or_else(|| panic!("{sql}: {error:?}"));
    (
        error.code().code().into(),
        error.message().into(),
        error.hint().map(str::to_string),
    )
}

/// Fails unless the statement fails with this SQLSTATE and some hint.
pub fn refused(client: &mut Client, sql: &str, state: &str) -> String {
    let (found, message, hint) = fails(client, sql);
    assert_eq!(found, state, "{sql}: {message}");
    assert!(hint.is_some(), "{sql}: {message}: no hint");
    message
}
