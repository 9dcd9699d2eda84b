//! A PgBouncer in front of a test's server.

use crate::Cluster;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running pooler; it ends with the test.
pub struct Pooler {
    child: Child,
    dir: String,
}

impl Pooler {
    /// In this pool mode, with one server connection for each database and user unless said otherwise.
    pub fn new(cluster: &Cluster, mode: &str, connections: u32) -> Self {
        let dir = cluster.data().trim_end_matches("/data").to_string() + "/pooler";
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let host = cluster.data().trim_end_matches("/data").to_string();
        let users = format!("{dir}/users.txt");
        fs::write(&users, "\"postgres\" \"\"\n").expect("written");
        let ini = format!("{dir}/pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={host} port=5432\n[pgbouncer]\nlisten_port = 5432\nlisten_addr =\n\
             unix_socket_dir = {dir}\nauth_type = trust\nauth_file = {users}\npool_mode = {mode}\n\
             default_pool_size = {connections}\nignore_startup_parameters = extra_float_digits\n\
             logfile = {dir}/log\n"
        );
        fs::write(&ini, text).expect("written");
        let owned = Command::new("chown")
            .args(["-R", "postgres", &dir])
            .status();
        assert!(owned.expect("chown runs").success());
        let program = std::env::var("PGBOUNCER").unwrap_or_else(|_| "/usr/sbin/pgbouncer".into());
        let mut child = Command::new("runuser")
            .args(["-u", "postgres", "--", &program, &ini])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer starts");
        let socket = format!("{dir}/.s.PGSQL.5432");
        // The socket is there before anyone listens to it.
        while UnixStream::connect(&socket).is_err() {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "pgbouncer ended: {ended:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Pooler { child, dir }
    }

    /// A client's session through the pooler.
    pub fn client(&self, db: &str) -> postgres::Client {
        let params = format!("host={} user=postgres dbname={db}", self.dir);
        postgres::Client::connect(&params, postgres::NoTls).expect("connects")
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // runuser passes the signal on to what it runs.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}
