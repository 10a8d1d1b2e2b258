//! Rows as text, one form per file.

mod csv;
mod json;
mod llama_bench;
mod markdown;
pub mod pipette;
mod sql;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use serde_json::{Map, Value};

use super::Row;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A table for people: a part of the fields.
    Markdown,
    /// Comma-separated values with a header: all fields but the samples.
    Csv,
    /// A JSON array: all fields.
    Json,
    /// A JSON object a line: all fields.
    JsonLines,
    /// Statements that create a table unless it is there, and fill it: all fields but the samples.
    Sql,
    /// A JSON object a line, with the fields of llama-bench and no others.
    LlamaBench,
    /// A JSON object a line: what Pipette takes as submissions.
    Pipette,
}

/// Every format with its name.
const NAMES: [(Format, &str); 7] = [
    (Format::Markdown, "md"),
    (Format::Csv, "csv"),
    (Format::Json, "json"),
    (Format::JsonLines, "jsonl"),
    (Format::Sql, "sql"),
    (Format::LlamaBench, "llama-bench"),
    (Format::Pipette, "pipette"),
];

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.into_iter().find(|(_, name)| *name == text);
        found.map(|(format, _)| format).ok_or_else(|| {
            let names = NAMES.map(|(_, name)| name).join(", ");
            format!("there is no format {text:?}; there are {names}")
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = NAMES.into_iter().find(|(format, _)| format == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

/// Writes rows as they come.
#[derive(Debug)]
pub struct Printer<W> {
    format: Format,
    output: W,
    /// Settings that the table for people has to show.
    shown: Vec<&'static str>,
    rows: usize,
    /// What a table for people says below its rows.
    footer: String,
}

impl<W: Write> Printer<W> {
    /// Nothing is written before the first row. `shown` names fields that the table for people shows beside those it always has.
    pub fn new(format: Format, shown: Vec<&'static str>, output: W) -> Self {
        Self { format, output, shown, rows: 0, footer: String::new() }
    }

    /// Writes a row.
    pub fn row(&mut self, row: &Row) -> io::Result<()> {
        let is_first = self.rows == 0;
        let output = &mut self.output;
        match self.format {
            Format::Markdown => markdown::row(row, &fields(row)?, &self.shown, is_first, output),
            Format::Csv => csv::row(&fields(row)?, is_first, output),
            Format::Json => json::row(row, is_first, output),
            Format::JsonLines => json::line(row, output),
            Format::Sql => sql::row(&fields(row)?, is_first, output),
            Format::LlamaBench => llama_bench::line(row, output),
            Format::Pipette => pipette::lines(row, output),
        }?;
        self.rows += 1;
        // A cell that failed may not know the runtime.
        if self.footer.is_empty() || row.program.runtime_version.is_some() {
            self.footer = markdown::footer(row);
        }
        self.output.flush()
    }

    /// Writes what follows the last row, if something does.
    pub fn finish(mut self) -> io::Result<()> {
        match self.format {
            Format::Json => json::end(self.rows == 0, &mut self.output)?,
            Format::Markdown if self.rows > 0 => writeln!(self.output, "\n{}", self.footer)?,
            _ => {}
        }
        self.output.flush()
    }
}

/// The fields that hold lists of numbers.
const LISTS: [&str; 8] = [
    "thermal_before",
    "thermal_after",
    "frequency_before",
    "frequency_after",
    "samples_ns",
    "samples_ts",
    "first_token_samples_ns",
    "inter_token_samples_ns",
];

/// The fields of a row but the lists of numbers, in order. What has fields itself is text that holds JSON.
fn fields(row: &Row) -> io::Result<Map<String, Value>> {
    match serde_json::to_value(row)? {
        Value::Object(mut fields) => {
            // By name, because a list that is missing is null.
            fields.retain(|name, _| !LISTS.contains(&name.as_str()));
            for value in fields.values_mut().filter(|value| value.is_object() || value.is_array()) {
                *value = Value::String(value.to_string());
            }
            Ok(fields)
        }
        other => Err(io::Error::other(format!("a row is no object: {other}"))),
    }
}
