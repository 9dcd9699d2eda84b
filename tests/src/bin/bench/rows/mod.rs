//! The rows of the table. A new one is a file here and an entry below.

mod idle;
mod load;
mod peers;
mod tps_fork;
mod tps_source;

use crate::bench::Bench;
use crate::line::Outcome;

/// A row of the table.
pub struct Row {
    /// To choose it by.
    pub name: &'static str,
    pub what: &'static str,
    /// No change may make it worse: `make bench-quick` runs it.
    pub quick: bool,
    pub run: fn(&Bench) -> Outcome,
}

const fn row(name: &'static str, what: &'static str, run: fn(&Bench) -> Outcome) -> Row {
    Row {
        name,
        what,
        quick: false,
        run,
    }
}

const fn bold(name: &'static str, what: &'static str, run: fn(&Bench) -> Outcome) -> Row {
    Row {
        quick: true,
        ..row(name, what, run)
    }
}

pub const ALL: &[Row] = &[
    bold("create", "fork_create on an idle source", idle::creates),
    bold(
        "template",
        "against CREATE DATABASE … TEMPLATE",
        peers::template,
    ),
    bold("load", "fork_create while clients write", load::run),
    row("drop", "fork_drop", idle::drops),
    bold(
        "stock",
        "the source's TPS against a stock server",
        tps_source::stock,
    ),
    bold("live", "the source's TPS with live forks", tps_source::live),
    bold(
        "fork",
        "a fork's TPS against a plain database",
        tps_fork::run,
    ),
];
