//! SQL as SQLite and others take it.

use std::io::{self, Write};

use serde_json::{Map, Value};

/// Name of the table.
const TABLE: &str = "lfm2_bench";

/// Fields that hold text.
const TEXTS: &[&str] = &[
    "build_commit",
    "build_version",
    "runtime_version",
    "runtime_sha256",
    "cpu_info",
    "os",
    "kernel",
    "arch",
    "governor",
    "power_source",
    "model_filename",
    "model_type",
    "model_sha256",
    "weights_sha256",
    "model_files",
    "precision",
    "dialect",
    "provider",
    "prefill",
    "kv",
    "test_time",
    "device",
    "form_factor",
    "plan",
    "model_name",
    "test_name",
    "cell",
    "status",
    "error",
    "placement",
    "provider_options",
    "provider_device",
    "reference",
    "reference_precision",
];

/// Fields that hold fractions.
const REALS: &[&str] = &[
    "avg_ts",
    "stddev_ts",
    "median_ts",
    "host_percent",
    "read_bandwidth",
    "bytes_per_token",
    "roofline_tokens_per_second",
    "roofline_percent",
    "runs_per_token",
    "top1_agreement",
    "mean_kld",
];

pub(super) fn row(fields: &Map<String, Value>, is_first: bool, output: &mut dyn Write) -> io::Result<()> {
    if is_first {
        let columns: Vec<_> = fields.keys().map(|name| format!("  {name} {}", kind(name))).collect();
        writeln!(output, "CREATE TABLE IF NOT EXISTS {TABLE} (\n{}\n);\n", columns.join(",\n"))?;
    }
    let names: Vec<_> = fields.keys().map(String::as_str).collect();
    let values: Vec<_> = fields.values().map(literal).collect();
    writeln!(output, "INSERT INTO {TABLE} ({}) VALUES ({});", names.join(", "), values.join(", "))
}

/// The type of a column. Truth values are numbers.
fn kind(name: &str) -> &'static str {
    if TEXTS.contains(&name) {
        "TEXT"
    } else if REALS.contains(&name) {
        "REAL"
    } else {
        "INTEGER"
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(value) => u8::from(*value).to_string(),
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{format::fields, tests::decode};

    #[test]
    fn every_column_has_the_type_of_its_values() {
        let mut fields = fields(&decode()).unwrap();
        // The fields that this row lacks.
        for name in
            ["first_token_avg_ns", "first_token_median_ns", "session_with_compiling_ns", "cache_hit", "device_memory"]
        {
            assert_eq!(fields.insert(name.to_owned(), 1.into()), Some(Value::Null));
        }
        for name in ["plan", "model_name", "test_name", "error"] {
            assert_eq!(fields.insert(name.to_owned(), "x".into()), Some(Value::Null));
        }
        for (name, value) in &fields {
            let expected = match value {
                Value::String(_) => "TEXT",
                Value::Number(number) if number.is_f64() => "REAL",
                Value::Number(_) | Value::Bool(_) => "INTEGER",
                other => panic!("{name} is {other}"),
            };
            assert_eq!(kind(name), expected, "{name}");
        }
        let names = TEXTS.iter().chain(REALS);
        names.for_each(|name| assert!(fields.contains_key(*name), "there is no field {name}"));
    }
}
