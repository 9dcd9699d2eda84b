//! The benchmark program works: each row gives numbers, the JSON parses. No timing counts here.

use serde_json::Value;
use std::process::Command;

#[test]
fn each_row_gives_numbers() {
    let out = std::env::temp_dir().join(format!("pgfork-bench-{}", std::process::id()));
    let program = env!("CARGO_BIN_EXE_bench");
    let run = Command::new(program)
        .args(["--smoke", "--out"])
        .arg(&out)
        .output();
    let run = run.expect("the benchmark runs");
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{errors}");
    let table = String::from_utf8_lossy(&run.stdout).into_owned();
    let text = std::fs::read_to_string(out.join("bench.json")).expect("the JSON");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let listed = Command::new(program)
        .arg("--list")
        .output()
        .expect("a list");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let rows = json["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), listed.lines().count());
    for row in rows {
        let lines = row["lines"].as_array().expect("lines");
        // What needs something that is not on every machine says so.
        let skipped = row["skipped"].as_array().expect("reasons");
        assert!(!lines.is_empty() || !skipped.is_empty(), "{row}");
        for line in lines {
            for number in ["result", "median", "p99", "spread"] {
                assert!(line[number].is_number(), "{number}: {row}");
            }
            assert!(
                table.contains(line["what"].as_str().expect("a name")),
                "{line}"
            );
        }
    }
    assert!(out.join("create.svg").exists());
    std::fs::remove_dir_all(out).expect("removed");
}
