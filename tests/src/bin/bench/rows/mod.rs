//! The rows of the table. A new one is a file here and an entry below.

mod compare;
mod connect;
mod cycle;
mod idle;
mod load;
mod many;
mod outside;
mod page_map;
mod peers;
mod pg18;
mod reads;
mod sizes;
mod storage;
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
    row(
        "sizes",
        "fork_create by size and number of relations",
        sizes::sizes,
    ),
    row(
        "buffers",
        "fork_create by size of the shared buffers",
        sizes::buffers,
    ),
    bold(
        "template",
        "against CREATE DATABASE … TEMPLATE",
        peers::template,
    ),
    row("dump", "against pg_dump | pg_restore", peers::dump),
    row("pg18", "against PostgreSQL 18's reflink clone", pg18::run),
    row("pglite", "PGlite's clone()", outside::pglite),
    bold("load", "fork_create while clients write", load::run),
    row("connect", "from a new fork to its first row", connect::run),
    row("drop", "fork_drop", idle::drops),
    row(
        "cycle",
        "create, attach, write, detach, drop",
        cycle::cycles,
    ),
    row("at_once", "many concurrent fork_create", cycle::at_once),
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
    row(
        "cuts",
        "reading an inherited block beneath many cuts",
        reads::cuts,
    ),
    row("scan", "scanning an inherited table", reads::scan),
    row("diff", "what a fork changed", compare::diff),
    row("mounted", "scanning a mounted table", compare::mounted),
    row("page_map", "the page maps' cache", page_map::run),
    row(
        "storage",
        "disk of an idle and of a changed fork",
        storage::run,
    ),
    row("many", "live forks on one server", many::live),
    row(
        "churn",
        "disk that short-lived forks leave behind",
        many::churn,
    ),
];
