//! What to run, how large and how long.

use crate::rows::{self, Row};
use std::path::PathBuf;

pub const USAGE: &str = "\
bench [--quick | --smoke] [--rows a,b,…] [--list] [--out DIR] [--NAME VALUE]…
  --quick     the rows that no change may make worse, three minutes
  --smoke     every row, tiny: whether the program works, not how fast anything is
  --rows      these rows only (--list names them)
  --out       where the table, the JSON and the plots go (target/bench)
  --scale     pgbench scale of the 1 GB database (68)
  --seconds   length of each pgbench run (8)
  --rounds    alternating runs of what is compared (5)
  --samples   calls of fork_create and its like (200)
  --forks     live forks at a time (5000)
  --cuts      later cuts of the source, at most (1000)
  --churn     short-lived forks (10000)
  --relations of the database with many (50000)
PG18_BIN=DIR: PostgreSQL 18's programs, for its reflink clones. TMPDIR: where the servers are made.";

/// The numbers that can be given, and which rows.
#[derive(Debug)]
pub struct Options {
    pub quick: bool,
    pub smoke: bool,
    pub list: bool,
    pub rows: Vec<String>,
    pub out: PathBuf,
    pub scale: u32,
    pub seconds: u32,
    pub rounds: u32,
    pub samples: u32,
    pub forks: u32,
    pub cuts: u32,
    pub churn: u32,
    pub relations: u32,
}

impl Options {
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let args: Vec<_> = args.collect();
        let mut options = if args.iter().any(|arg| arg == "--smoke") {
            Self::smoke()
        } else if args.iter().any(|arg| arg == "--quick") {
            Self::quick()
        } else {
            Self::full()
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" | "--smoke" => continue,
                "--list" => options.list = true,
                "--help" => return Err(String::new()),
                name => {
                    let value = args.next().ok_or(format!("{name}: no value"))?;
                    options.set(name, value)?;
                }
            }
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = match name {
            "--rows" => {
                self.rows = value.split(',').map(String::from).collect();
                let unknown = |name: &&String| !rows::ALL.iter().any(|row| row.name == **name);
                return match self.rows.iter().find(unknown) {
                    Some(name) => Err(format!("{name}: no such row")),
                    None => Ok(()),
                };
            }
            "--out" => {
                self.out = value.into();
                return Ok(());
            }
            "--scale" => &mut self.scale,
            "--seconds" => &mut self.seconds,
            "--rounds" => &mut self.rounds,
            "--samples" => &mut self.samples,
            "--forks" => &mut self.forks,
            "--cuts" => &mut self.cuts,
            "--churn" => &mut self.churn,
            "--relations" => &mut self.relations,
            _ => return Err(format!("{name}: no such option")),
        };
        *number = value.parse().map_err(|_| format!("{name}: {value}"))?;
        if *number == 0 {
            return Err(format!("{name}: at least 1"));
        }
        Ok(())
    }

    fn full() -> Self {
        Options {
            quick: false,
            smoke: false,
            list: false,
            rows: Vec::new(),
            out: "target/bench".into(),
            scale: 68,
            seconds: 8,
            rounds: 5,
            samples: 200,
            forks: 5000,
            cuts: 1000,
            churn: 10_000,
            relations: 50_000,
        }
    }

    fn quick() -> Self {
        Options {
            quick: true,
            seconds: 2,
            rounds: 2,
            samples: 50,
            ..Self::full()
        }
    }

    fn smoke() -> Self {
        Options {
            smoke: true,
            scale: 1,
            seconds: 1,
            rounds: 1,
            samples: 3,
            forks: 12,
            cuts: 10,
            churn: 10,
            relations: 200,
            ..Self::full()
        }
    }

    /// The rows to run, in the table's order.
    pub fn chosen(&self) -> Vec<&'static Row> {
        let wanted = |row: &&Row| match self.rows.is_empty() {
            true => row.quick || !self.quick,
            false => self.rows.iter().any(|name| name == row.name),
        };
        rows::ALL.iter().filter(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Options, String> {
        Options::parse(args.split_whitespace().map(String::from))
    }

    #[test]
    fn numbers_go_over_the_presets_wherever_they_stand() {
        let options = parse("--seconds 2 --quick").expect("parses");
        assert_eq!((options.seconds, options.quick), (2, true));
    }

    #[test]
    fn quick_takes_the_bold_rows_and_a_list_only_those() {
        let quick = parse("--quick").expect("parses");
        assert!(quick.chosen().iter().all(|row| row.quick));
        let one = rows::ALL[0].name;
        let list = parse(&format!("--rows {one}")).expect("parses");
        assert_eq!(list.chosen().len(), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        for args in [
            "--rows nosuch",
            "--seconds",
            "--seconds x",
            "--seconds 0",
            "--x 1",
        ] {
            assert!(parse(args).is_err(), "{args}");
        }
    }

    #[test]
    fn names_of_rows_differ() {
        let mut names: Vec<_> = rows::ALL.iter().map(|row| row.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), rows::ALL.len());
    }
}
