//! The table, the JSON and the plots.

use crate::bench::Bench;
use crate::line::{Line, Outcome, Target};
use crate::machine;
use crate::rows::Row;
use serde_json::{json, Value};
use std::fmt::Write;
use std::fs;

pub type Results = [(&'static Row, Outcome)];

/// Writes all three into the folder that the options name.
pub fn write(bench: &Bench, results: &Results) {
    let out = &bench.options.out;
    fs::create_dir_all(out).expect("the folder for the results");
    fs::write(out.join("bench.md"), markdown(bench, results)).expect("the table");
    let json = serde_json::to_string_pretty(&json(bench, results)).expect("JSON");
    fs::write(out.join("bench.json"), json).expect("the JSON");
    for chart in results.iter().flat_map(|(_, outcome)| &outcome.charts) {
        chart.draw(out).expect("a plot");
    }
}

pub fn markdown(bench: &Bench, results: &Results) -> String {
    let mut text = String::new();
    for (name, value) in machine::describe() {
        writeln!(text, "- {name}: {value}").expect("a string");
    }
    writeln!(text, "- run: {}", how(bench)).expect("a string");
    text += "\n| row | what | target | result | met | median | p99 | spread | beside | samples |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|\n";
    for (row, outcome) in results {
        for line in &outcome.lines {
            writeln!(text, "{}", in_table(row, line)).expect("a string");
        }
    }
    text += "\nSpread: the middle half of the samples, of the median. \
             Beside: the median of what it is compared with.\n";
    for (row, why) in skipped(results) {
        writeln!(text, "\nNot measured ({}): {why}", row.name).expect("a string");
    }
    text
}

fn how(bench: &Bench) -> String {
    let o = &bench.options;
    let kind = match (o.smoke, o.quick) {
        (true, _) => "smoke, its numbers mean nothing; ",
        (_, true) => "quick; ",
        _ => "",
    };
    format!(
        "{kind}scale {}, {} rounds of {} s, {} samples, {} clients",
        o.scale,
        o.rounds,
        o.seconds,
        o.samples,
        crate::pgbench::CLIENTS
    )
}

fn in_table(row: &Row, line: &Line) -> String {
    let bold = if row.quick { "**" } else { "" };
    let target = match line.target {
        Target::AtMost(limit) => format!("≤ {limit}"),
        Target::AtLeast(limit) => format!("≥ {limit}"),
        Target::None => String::new(),
    };
    let met = match line.target.met_by(line.result) {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "",
    };
    let unit = line.unit;
    let beside = line
        .base
        .map_or(String::new(), |base| format!("{} {unit}", short(base)));
    format!(
        "| {bold}{}{bold} | {} | {target} | {} {} | {met} | {} {unit} | {} {unit} | {:.0} % | {beside} | {} |",
        row.name,
        line.what,
        short(line.result),
        line.of,
        short(line.samples.median()),
        short(line.samples.p99()),
        line.samples.spread() * 100.0,
        line.samples.len(),
    )
}

fn skipped(results: &Results) -> Vec<(&'static Row, &String)> {
    results
        .iter()
        .flat_map(|(row, outcome)| outcome.skipped.iter().map(|why| (*row, why)))
        .collect()
}

/// Three digits that count.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 || v == 0.0 => 3,
        _ => 6,
    };
    format!("{value:.digits$}")
}

pub fn json(bench: &Bench, results: &Results) -> Value {
    let machine: serde_json::Map<_, _> = machine::describe()
        .into_iter()
        .map(|(name, value)| (name.to_string(), value.into()))
        .collect();
    let rows: Vec<_> = results
        .iter()
        .map(|(row, outcome)| {
            json!({
                "row": row.name, "what": row.what, "quick": row.quick,
                "lines": outcome.lines.iter().map(line_json).collect::<Vec<_>>(),
                "skipped": outcome.skipped,
            })
        })
        .collect();
    json!({ "machine": machine, "run": how(bench), "rows": rows })
}

fn line_json(line: &Line) -> Value {
    let (kind, limit) = match line.target {
        Target::AtMost(limit) => ("at most", Some(limit)),
        Target::AtLeast(limit) => ("at least", Some(limit)),
        Target::None => ("none", None),
    };
    json!({
        "what": line.what, "target": { "kind": kind, "limit": limit },
        "result": line.result, "of": line.of, "met": line.target.met_by(line.result),
        "unit": line.unit, "median": line.samples.median(), "p99": line.samples.p99(),
        "max": line.samples.max(), "spread": line.samples.spread(),
        "samples": line.samples.len(), "base": line.base,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Samples;

    #[test]
    fn a_line_of_the_table() {
        let row = Row {
            name: "x",
            what: "y",
            quick: true,
            run: |_| Outcome::default(),
        };
        let line = Line::ratio(
            "z",
            Samples::new(vec![5.0]),
            &Samples::new(vec![1.0]),
            "× w",
        );
        let text = in_table(&row, &line.at_most(4.0));
        let wanted =
            "| **x** | z | ≤ 4 | 5.000 × w | **no** | 5.000 ms | 5.000 ms | 0 % | 1.000 ms | 1 |";
        assert_eq!(text, wanted);
    }

    #[test]
    fn numbers_keep_what_counts() {
        let shown = [1234.5, 56.78, 1.2345, 0.00012].map(short);
        assert_eq!(shown, ["1234", "56.8", "1.234", "0.000120"]);
    }
}
