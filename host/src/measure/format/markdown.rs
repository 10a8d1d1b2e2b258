//! A Markdown table for people, with the columns of llama-bench and a few more.

use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::measure::{Row, Test};

/// Columns that every table has: title, width, and whether the value stands on the right.
const COLUMNS: [(&str, usize, bool); 10] = [
    ("model", 30, false),
    ("type", 12, false),
    ("size MiB", 8, true),
    ("threads", 7, true),
    ("test", 18, true),
    ("t/s", 18, true),
    ("first token ms", 14, true),
    ("token ms p50 / p95 / p99", 24, true),
    ("peak MiB", 8, true),
    ("roofline %", 10, true),
];

/// The columns behind which the settings that differ between rows stand.
const SETTINGS_BEHIND: usize = 4;

pub(super) fn row(
    row: &Row,
    fields: &Map<String, Value>,
    shown: &[&'static str],
    is_first: bool,
    output: &mut dyn Write,
) -> io::Result<()> {
    let mut columns = COLUMNS.to_vec();
    let settings = shown.iter().map(|name| (*name, name.len(), true));
    columns.splice(SETTINGS_BEHIND..SETTINGS_BEHIND, settings);
    if is_first {
        line(&columns, &columns.iter().map(|(title, ..)| (*title).to_owned()).collect::<Vec<_>>(), output)?;
        let rules = columns.iter().map(|&(_, width, right)| match right {
            true => format!("{}:", "-".repeat(width - 1)),
            false => "-".repeat(width),
        });
        line(&columns, &rules.collect::<Vec<_>>(), output)?;
    }
    let mut values = values(row);
    let settings = shown.iter().map(|name| match fields.get(*name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    });
    values.splice(SETTINGS_BEHIND..SETTINGS_BEHIND, settings);
    line(&columns, &values, output)
}

/// What all rows of a run have in common: program, runtime and machine.
pub(super) fn footer(row: &Row) -> String {
    let (program, machine) = (&row.program, &row.machine);
    let commit = program.build_commit.map_or(String::new(), |commit| format!(" ({commit})"));
    let cpu = machine.cpu_info.as_deref().unwrap_or("unknown processor");
    format!(
        "lfm2-host {}{commit}, ONNX Runtime {}, {cpu}, {} cores, {}",
        program.build_version,
        program.runtime_version.as_deref().unwrap_or("unknown"),
        machine.cpu_cores,
        machine.os
    )
}

/// What the row says in [`COLUMNS`]. What is missing is empty.
fn values(row: &Row) -> Vec<String> {
    let mebibytes =
        |bytes: Option<u64>| bytes.map_or(String::new(), |bytes| format!("{:.1}", bytes as f64 / (1 << 20) as f64));
    let milliseconds = |time: Option<u64>| time.map(|time| format!("{:.2}", time as f64 / 1e6));
    let percentiles = [row.inter_token_p50_ns, row.inter_token_p95_ns, row.inter_token_p99_ns];
    let percentiles: Vec<_> = percentiles.into_iter().filter_map(milliseconds).collect();
    let rate = match (row.avg_ts, row.stddev_ts) {
        (Some(rate), Some(deviation)) => format!("{rate:.2} ± {deviation:.2}"),
        (Some(rate), None) => format!("{rate:.2}"),
        (None, _) => row.status.name().to_owned(),
    };
    vec![
        row.subject.model_filename.replace('|', "\\|"),
        row.subject.model_type.clone(),
        mebibytes(row.subject.model_size),
        row.n_threads.to_string(),
        Test { prompt: row.n_prompt, generate: row.n_gen, depth: row.n_depth }.to_string(),
        rate,
        milliseconds(row.first_token_median_ns).unwrap_or_default(),
        percentiles.join(" / "),
        mebibytes(row.peak_memory),
        row.roofline_percent.map_or(String::new(), |percent| format!("{percent:.1}")),
    ]
}

fn line(columns: &[(&str, usize, bool)], values: &[String], output: &mut dyn Write) -> io::Result<()> {
    let padded = columns.iter().zip(values).map(|(&(_, width, right), value)| match right {
        true => format!("{value:>width$}"),
        false => format!("{value:<width$}"),
    });
    writeln!(output, "| {} |", padded.collect::<Vec<_>>().join(" | "))
}
