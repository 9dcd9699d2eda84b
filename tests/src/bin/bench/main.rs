//! `make bench`: what forks cost, against what PostgreSQL's users have without them, in one run.
//!
//! A row of the table is one entry of [`rows::ALL`]; it returns the lines that it measured.

mod bench;
mod chart;
mod line;
mod machine;
mod options;
mod pgbench;
mod report;
mod rows;
mod stats;

use bench::Bench;
use options::Options;
use std::time::Instant;

fn main() {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{}", options::USAGE);
            std::process::exit(2);
        }
    };
    if options.list {
        for row in rows::ALL {
            let bold = if row.quick { " (quick)" } else { "" };
            println!("{:<12} {}{bold}", row.name, row.what);
        }
        return;
    }
    let bench = Bench::new(options);
    let mut results = Vec::new();
    for row in bench.options.chosen() {
        eprintln!("{}: {} ...", row.name, row.what);
        let began = Instant::now();
        let outcome = (row.run)(&bench);
        eprintln!("{}: {:.0} s", row.name, began.elapsed().as_secs_f64());
        results.push((row, outcome));
        // After each row, so that a run that is stopped leaves what it has.
        report::write(&bench, &results);
    }
    print!("{}", report::markdown(&bench, &results));
    eprintln!("written to {}", bench.options.out.display());
}
