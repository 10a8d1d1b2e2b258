//! JSON: an array with a line for every field, and objects of one line each.

use std::io::{self, Write};

use serde_json::Value;

use crate::measure::Row;

pub(super) fn row(row: &Row, is_first: bool, output: &mut dyn Write) -> io::Result<()> {
    let value = serde_json::to_value(row)?;
    let fields = value.as_object().into_iter().flatten();
    let fields = fields.map(|(name, value)| format!("    {}: {value}", Value::from(name.as_str())));
    let fields = fields.collect::<Vec<_>>().join(",\n");
    write!(output, "{}  {{\n{fields}\n  }}", if is_first { "[\n" } else { ",\n" })
}

pub(super) fn end(is_empty: bool, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "{}", if is_empty { "[]" } else { "\n]" })
}

pub(super) fn line(row: &Row, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "{}", serde_json::to_string(row)?)
}
