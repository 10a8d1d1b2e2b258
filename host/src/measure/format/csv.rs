//! Comma-separated values (RFC 4180), every field in quotes as llama-bench writes them.

use std::io::{self, Write};

use serde_json::{Map, Value};

pub(super) fn row(fields: &Map<String, Value>, is_first: bool, output: &mut dyn Write) -> io::Result<()> {
    if is_first {
        writeln!(output, "{}", fields.keys().map(String::as_str).collect::<Vec<_>>().join(","))?;
    }
    let values: Vec<_> = fields.values().map(field).collect();
    writeln!(output, "{}", values.join(","))
}

/// What is missing is empty.
fn field(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!("\"{}\"", text.replace('"', "\"\""))
}
