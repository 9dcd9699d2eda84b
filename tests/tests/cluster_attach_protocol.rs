//! The corners of the protocol: what a client sends behind the call, before it says Sync (D15).

use pg_fork_tests::attach::prod;
use pg_fork_tests::Cluster;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// A session at the level of messages.
struct Wire(UnixStream);

impl Wire {
    fn new(cluster: &Cluster, db: &str) -> Self {
        let path = cluster.data().replace("/data", "/.s.PGSQL.5432");
        let mut wire = Wire(UnixStream::connect(path).expect("connects"));
        let mut body = 196_608u32.to_be_bytes().to_vec();
        body.extend(format!("user\0postgres\0database\0{db}\0\0").bytes());
        let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
        packet.extend(body);
        wire.0.write_all(&packet).expect("sent");
        wire.answer();
        wire
    }

    /// Everything until the next ReadyForQuery: rows as they are, the SQLSTATE of errors, and `s` for a
    /// suspended portal.
    fn answer(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head).expect("a message");
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
            let mut body = vec![0; len];
            self.0.read_exact(&mut body).expect("a message");
            match head[0] {
                b'D' => found.push(String::from_utf8_lossy(&body[6..]).into_owned()),
                b'E' => {
                    let fields = body.split(|byte| *byte == 0);
                    let code = fields.filter_map(|field| field.strip_prefix(b"C")).next();
                    found.push(String::from_utf8_lossy(code.expect("a code")).into_owned());
                }
                b's' => found.push("s".into()),
                b'Z' => return found,
                _ => {}
            }
        }
    }

    fn send(&mut self, messages: &[Vec<u8>]) -> Vec<String> {
        self.0.write_all(&messages.concat()).expect("sent");
        self.answer()
    }

    fn ask(&mut self, sql: &str) -> Vec<String> {
        self.send(&[message(b'Q', format!("{sql}\0").as_bytes())])
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    message
}

fn parse(sql: &str) -> Vec<u8> {
    message(b'P', format!("\0{sql}\0\0\0").as_bytes())
}

fn bind(portal: &str) -> Vec<u8> {
    let mut body = format!("{portal}\0\0").into_bytes();
    body.extend([0; 6]);
    message(b'B', &body)
}

fn execute(portal: &str, rows: u32) -> Vec<u8> {
    let mut body = format!("{portal}\0").into_bytes();
    body.extend(rows.to_be_bytes());
    message(b'E', &body)
}

fn sync() -> Vec<u8> {
    message(b'S', &[])
}

fn statement(sql: &str) -> Vec<u8> {
    [parse(sql), bind(""), execute("", 0)].concat()
}

const GO: &str = "SELECT fork_attach('f')";
const WHERE: &str = "SELECT current_database()";

#[test]
fn what_is_sent_behind_the_call_runs_in_the_fork_or_not_at_all() {
    let cluster = prod("");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    let mut wire = Wire::new(&cluster, "prod");
    // The next statements of a pipeline are in the fork already.
    let answer = wire.send(&[
        statement(GO),
        statement(WHERE),
        statement("DROP TABLE users"),
        statement("SELECT fork_current()"),
        sync(),
    ]);
    assert_eq!(answer, ["prod", "f", "f"]);
    let answer = wire.send(&[statement("SELECT fork_detach()"), statement(WHERE), sync()]);
    assert_eq!(answer, ["prod", "prod"]);
    assert_eq!(wire.ask("SELECT count(*) FROM users"), ["100"]);
    // Not in the middle of a pipeline.
    let answer = wire.send(&[statement("DELETE FROM users"), statement(GO), sync()]);
    assert_eq!(answer, ["25001"]);
    assert_eq!(wire.ask("SELECT count(*) FROM users"), ["100"]);
    assert_eq!(wire.ask(WHERE), ["prod"]);
    // A portal that is not fetched to its end: the session moves at Sync, and nothing runs before.
    let answer = wire.send(&[
        parse(GO),
        bind(""),
        execute("", 1),
        statement("DELETE FROM users"),
        sync(),
    ]);
    assert_eq!(answer, ["prod", "s", "25001"]);
    assert_eq!(wire.ask(WHERE), ["prod"]);
    assert_eq!(wire.ask("SELECT count(*) FROM users"), ["100"]);
    let answer = wire.send(&[
        parse(GO),
        bind(""),
        execute("", 1),
        statement("DROP TABLE users"),
        sync(),
    ]);
    assert_eq!(answer, ["prod", "s", "25001"]);
    let answer = wire.send(&[parse(GO), bind(""), execute("", 1), sync()]);
    assert_eq!(answer, ["prod", "s"]);
    assert_eq!(wire.ask(WHERE), ["f"]);
    assert_eq!(wire.ask("DISCARD ALL"), Vec::<String>::new());
    assert_eq!(wire.ask(WHERE), ["prod"]);
    // Another portal is open: it would run in the wrong database.
    let answer = wire.send(&[
        parse("DELETE FROM users"),
        bind("other"),
        parse(GO),
        bind(""),
        execute("", 0),
        sync(),
    ]);
    assert_eq!(answer, ["24000"]);
    // A statement that was parsed before the move is planned anew after it.
    let body = "later\0SELECT current_database()\0\0\0";
    let mut named = b"\0later\0".to_vec();
    named.extend([0; 6]);
    let answer = wire.send(&[
        message(b'P', body.as_bytes()),
        statement(GO),
        message(b'B', &named),
        execute("", 0),
        sync(),
    ]);
    assert_eq!(answer, ["prod", "f"]);
}

#[test]
fn a_call_without_a_statement_is_refused() {
    let cluster = prod("");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    let oid: u32 = cluster
        .sql("prod", "SELECT 'fork_attach'::regproc::oid")
        .parse()
        .expect("a number");
    let mut wire = Wire::new(&cluster, "prod");
    // FunctionCall: no formats, one argument as text, the result as text.
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 0, 0, 1, 0, 0, 0, 1, b'f', 0, 0]);
    assert_eq!(wire.send(&[message(b'F', &body)]), ["25001"]);
    assert_eq!(wire.ask(WHERE), ["prod"]);
    // A client that goes away in the middle leaves nothing behind.
    let messages = [parse(GO), bind(""), execute("", 1)].concat();
    wire.0.write_all(&messages).expect("sent");
    drop(wire);
    let mut other = cluster.client("prod");
    let lock = "SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_database'::regclass";
    while pg_fork_tests::attach::get(&mut other, lock) != "0" {}
    cluster.sql("prod", "SELECT fork_drop('f')");
}

#[test]
fn a_call_without_a_statement_does_not_reach_out_of_a_fork() {
    let cluster = prod("");
    cluster.sql("prod", "SELECT fork_create('prod', 'f')");
    let oid = |function: &str| -> u32 {
        let sql = format!("SELECT '{function}'::regproc::oid");
        cluster.sql("prod", &sql).parse().expect("a number")
    };
    // FunctionCall: no formats, no arguments, the result as text.
    let call = |function: &str| {
        let mut body = oid(function).to_be_bytes().to_vec();
        body.extend([0, 0, 0, 0, 0, 0]);
        message(b'F', &body)
    };
    for (database, answer) in [("f", &["42501"][..]), ("prod", &[])] {
        let mut wire = Wire::new(&cluster, database);
        assert_eq!(wire.send(&[call("pg_switch_wal")]), answer);
        assert!(wire.send(&[call("pi")]).is_empty());
    }
}
