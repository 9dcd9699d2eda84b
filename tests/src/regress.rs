//! A run of PostgreSQL's own regression suite (`tests/get-regression-suite` gets it).

use crate::{pg_config, Cluster};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Test {
    /// As pg_regress judged it, by its expected files.
    passed: bool,
    /// What psql printed.
    output: String,
}

/// What a run came to, by test.
pub struct Suite(BTreeMap<String, Test>);

impl Suite {
    /// Runs the suite in the server's database `regression`: expected files mention the name.
    pub fn run(cluster: &Cluster) -> Self {
        Self::run_in(cluster, "regression", None)
    }

    /// Runs the suite in sessions that log in to `origin` and run a script first, which attaches them to
    /// the fork `regression`. psql reads the tests by -f then: the prefixes that it adds to messages are
    /// taken away.
    pub fn run_attached(cluster: &Cluster) -> Self {
        let dir = PathBuf::from(cluster.folder("attached"));
        let (first, launch) = (dir.join("first.sql"), dir.join("launch"));
        let attach = "\\o /dev/null\nSELECT pgf.fork_attach('regression');\n\\o\n\\set ECHO all\n";
        fs::write(&first, attach).expect("written");
        let script = format!(
            "#!/bin/bash\nset -o pipefail\npsql=$1; shift\n\"$psql\" \"$@\" -v ECHO=none -f {} -f - 2>&1 | \
             sed -E 's/^psql:<stdin>:[0-9]+: //'\n",
            first.display()
        );
        fs::write(&launch, script).expect("written");
        for path in [&first, &launch] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(path, mode).expect("permitted");
        }
        Self::run_in(cluster, "origin", Some(&launch.display().to_string()))
    }

    fn run_in(cluster: &Cluster, database: &str, launcher: Option<&str>) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/regress");
        assert!(
            source.join("regress.so").exists(),
            "PostgreSQL's regression suite is not there: run `make test-deps`"
        );
        // A copy: the server's user may not get into the project's folder. The tests look for two
        // modules of contrib beside the suite's own library.
        let dir = cluster.folder("regress");
        let modules = pg_config("--pkglibdir");
        let copied = Command::new("cp")
            .arg("-r")
            .args(["autoinc.so", "refint.so"].map(|module| modules.join(module)))
            .args([source.join("."), PathBuf::from(&dir)])
            .status();
        assert!(copied.expect("cp runs").success());
        let results = cluster.folder("results");
        let pgxs = pg_config("--pgxs");
        let program = pgxs.with_file_name("../test/regress/pg_regress");
        // Its status says whether a test failed: that is judged against another run.
        let mut options = vec![
            "--use-existing".to_string(),
            format!("--dbname={database}"),
            format!("--bindir={}", pg_config("--bindir").display()),
            format!("--inputdir={dir}"),
            format!("--outputdir={results}"),
            format!("--dlpath={dir}"),
            format!("--schedule={dir}/parallel_schedule"),
        ];
        options.extend(launcher.map(|path| format!("--launcher={path}")));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let ran = cluster.run(&program.display().to_string(), &options);
        let said = String::from_utf8_lossy(&ran.stdout);
        let tests = said.lines().filter_map(|line| {
            let (name, verdict) = line.trim_start_matches("test ").split_once(" ... ")?;
            let (name, verdict) = (name.trim().to_string(), verdict.trim());
            let output = fs::read(format!("{results}/results/{name}.out")).unwrap_or_default();
            let output = String::from_utf8_lossy(&output);
            let test = Test {
                passed: verdict.starts_with("ok ") || verdict.starts_with("failed (ignored)"),
                output: output.replace(&results, "RESULTS").replace(&dir, "DIR"),
            };
            Some((name, test))
        });
        let tests: BTreeMap<_, _> = tests.collect();
        assert!(
            tests.len() > 100,
            "the suite did not run: {said}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        Suite(tests)
    }

    /// The tests that failed, by this run's own expected files.
    pub fn failed(&self) -> Vec<&str> {
        let failed = self.0.iter().filter(|(_, test)| !test.passed);
        failed.map(|(name, _)| name.as_str()).collect()
    }

    /// What this run says otherwise than a stock server's run. Where that one fails too (the expected
    /// files may be another minor version's), its output is what is expected.
    pub fn against(&self, stock: &Suite) -> Vec<String> {
        self.differences(stock).into_values().collect()
    }

    /// The same, by the tests' names.
    pub fn differences(&self, stock: &Suite) -> BTreeMap<String, String> {
        assert!(self.0.keys().eq(stock.0.keys()), "not the same tests");
        let other = self.0.iter().filter_map(|(name, test)| {
            let stock = &stock.0[name];
            if test.passed || test.output == stock.output {
                return None;
            }
            // The first line that differs, and some before it.
            let pairs = test.output.lines().zip(stock.output.lines());
            let same = pairs.take_while(|(here, there)| here == there).count();
            let excerpt = |text: &str| {
                let lines: Vec<_> = text.lines().skip(same.saturating_sub(8)).take(16).collect();
                lines.join("\n")
            };
            let how = format!(
                "{name}, line {}:\n{}\n--- stock:\n{}",
                same + 1,
                excerpt(&test.output),
                excerpt(&stock.output)
            );
            Some((name.clone(), how))
        });
        other.collect()
    }
}
