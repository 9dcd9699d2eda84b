//! What the numbers were measured on.

use pg_fork_tests::pg_config;
use std::fs;
use std::process::Command;

/// Name and value of each fact.
pub fn describe() -> Vec<(&'static str, String)> {
    vec![
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("cpu", field("/proc/cpuinfo", "model name")),
        ("cores", cores()),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("kernel", output("uname", &["-sr"])),
        ("filesystem", filesystem()),
        ("PostgreSQL", pg_config("--version").display().to_string()),
        ("pg_fork", library()),
        (
            "settings",
            crate::bench::SETTINGS.trim().replace('\n', ", "),
        ),
        (
            "sync",
            "fsync, synchronous_commit, full_page_writes on; data checksums".into(),
        ),
    ]
}

fn cores() -> String {
    std::thread::available_parallelism().map_or("?".into(), |n| n.to_string())
}

fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output();
    out.map_or("?".into(), |out| {
        String::from_utf8_lossy(&out.stdout).trim().to_string()
    })
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or("?".into(), |(_, value)| value.trim().to_string())
}

fn filesystem() -> String {
    let dir = std::env::temp_dir().display().to_string();
    output("findmnt", &["-no", "FSTYPE,OPTIONS", "--target", &dir])
}

/// Which build is installed, told by what only some builds contain.
fn library() -> String {
    let path = pg_config("--pkglibdir").join("pg_fork.so");
    let Ok(bytes) = fs::read(&path) else {
        return "not installed".into();
    };
    let has = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    // A name among those of the sections; pgrx's own strings are not enclosed in zeros.
    let build = if has(b"\0.debug_info\0") {
        "DEBUG build"
    } else {
        "release build"
    };
    let points = if has(b"pg_fork.stop_point") {
        " WITH STOP POINTS"
    } else {
        ""
    };
    let path = path.display().to_string();
    let built = output("date", &["-u", "-r", &path, "+%Y-%m-%d %H:%M UTC"]);
    // Of the program, which `make bench` builds with the library.
    let commit = output("git", &["describe", "--always", "--dirty"]);
    let size = bytes.len();
    format!("{build}{points}, {size} bytes, installed {built}; tree at {commit}")
}
