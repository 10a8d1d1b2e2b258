//! Rows as a report looks at them: by machine, and with names for what differs between them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::measure::records::{Record, has_result, test_of};
use crate::measure::{Test, statistics};

/// A row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    record: &'a Record,
    pub(super) test: Test,
}

/// The settings that tell one series of rows from another, the most telling first.
const SETTINGS: [&str; 13] = [
    "model",
    "provider",
    "provider_options",
    "precision",
    "dialect",
    "n_threads",
    "spinning",
    "low_memory",
    "chunk",
    "prefill",
    "speculate",
    "kv",
    "build_commit",
];

impl<'a> Entry<'a> {
    /// The row in an object, if it is one.
    pub(super) fn new(record: &'a Record) -> Option<Self> {
        Some(Self { record, test: test_of(record)? })
    }

    pub(super) fn record(self) -> &'a Record {
        self.record
    }

    pub(super) fn text(self, name: &str) -> Option<&'a str> {
        self.record.get(name)?.as_str()
    }

    pub(super) fn number(self, name: &str) -> Option<f64> {
        self.record.get(name)?.as_f64()
    }

    pub(super) fn has_result(self) -> bool {
        has_result(self.record) && self.rate().is_some()
    }

    /// What the plan calls the model, or its file.
    pub(super) fn model(self) -> String {
        self.text("model_name").or_else(|| self.text("model_filename")).unwrap_or("unknown model").to_owned()
    }

    /// What the plan calls the test, with what it is.
    pub(super) fn test_name(self) -> String {
        match self.text("test_name") {
            Some(name) => format!("{name} ({})", self.test),
            None => self.test.to_string(),
        }
    }

    /// Median tokens per second.
    pub(super) fn rate(self) -> Option<f64> {
        let rates = || statistics::median(&self.rates());
        self.number("median_ts").or_else(rates).or_else(|| self.number("avg_ts"))
    }

    /// Tokens per second of every repetition.
    fn rates(self) -> Vec<f64> {
        let samples = self.record.get("samples_ns").and_then(Value::as_array).into_iter().flatten();
        let times = samples.filter_map(Value::as_f64).filter(|time| *time > 0.0);
        times.map(|time| self.test.tokens() as f64 * 1e9 / time).collect()
    }

    /// Whether a simulator stood in for the device.
    fn is_simulated(self) -> bool {
        self.text("provider_device").is_some_and(|device| device.contains("simulated"))
    }

    fn setting(self, name: &str) -> Value {
        let default = match name {
            "model" => return self.model().into(),
            "spinning" => true.into(),
            "low_memory" => false.into(),
            "speculate" => 0.into(),
            "provider_options" => Record::new().into(),
            _ => Value::Null,
        };
        self.record.get(name).cloned().unwrap_or(default)
    }
}

/// The settings that differ between rows, but for `ignored` and for those that others determine. What runs prompts depends on their
/// length, so that it may be ignored only as long as no test has both ways.
pub(super) fn differing(entries: &[Entry<'_>], ignored: &[&str]) -> Vec<&'static str> {
    let count = |names: &[&str]| {
        let values = |entry: &Entry<'_>| names.iter().map(|name| entry.setting(name).to_string()).collect::<Vec<_>>();
        entries.iter().map(values).collect::<BTreeSet<_>>().len()
    };
    let of_tests = |names: &[&str]| {
        let values = |entry: &Entry<'_>| names.iter().map(|name| entry.setting(name).to_string()).collect::<Vec<_>>();
        entries.iter().map(|entry| (entry.test.to_string(), values(entry))).collect::<BTreeSet<_>>().len()
    };
    let others: Vec<&'static str> = SETTINGS.into_iter().filter(|name| *name != "prefill").collect();
    let has_both = of_tests(&SETTINGS) > of_tests(&others);
    let is_ignored = |name: &str| ignored.contains(&name) && !(name == "prefill" && has_both);
    let mut names: Vec<&'static str> = Vec::new();
    for name in SETTINGS.into_iter().filter(|name| !is_ignored(name)) {
        let with = [&names[..], &[name]].concat();
        if count(&with) > count(&names) {
            names.push(name);
        }
    }
    names
}

/// What tells a row from the others by these settings; the model if there are none.
pub(super) fn label(entry: Entry<'_>, names: &[&'static str]) -> String {
    let part = |name: &&'static str| {
        let value = entry.setting(name);
        let text = match &value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match *name {
            // Speeds of a simulator say nothing about the device.
            "provider" if entry.is_simulated() => format!("{text} (simulated)"),
            "provider_options" => options(&value),
            "n_threads" if text == "1" => "1 thread".to_owned(),
            "n_threads" => format!("{text} threads"),
            "spinning" => if value == true { "spinning" } else { "no spinning" }.to_owned(),
            "low_memory" => if value == true { "low memory" } else { "usual memory" }.to_owned(),
            "chunk" | "prefill" | "speculate" => format!("{name} {text}"),
            "kv" => format!("KV {text}"),
            "build_commit" => format!("commit {text}"),
            _ => text,
        }
    };
    let mut parts: Vec<_> = names.iter().map(part).collect();
    if parts.is_empty() {
        parts.push(entry.model());
    }
    // Where all rows are of one provider, its name is left out, and this must not be.
    if entry.is_simulated() && !names.contains(&"provider") {
        parts.push("simulated".to_owned());
    }
    parts.join(", ")
}

/// Options of a provider as they are typed.
fn options(value: &Value) -> String {
    let options = value.as_object().into_iter().flatten();
    let options: Vec<_> = options.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    if options.is_empty() { "usual options".to_owned() } else { options.join(" ") }
}

/// Entries with the same label, in the order in which labels first come.
pub(super) fn series<'a>(entries: &[Entry<'a>], names: &[&'static str]) -> Vec<(String, Vec<Entry<'a>>)> {
    let mut series: Vec<(String, Vec<Entry<'a>>)> = Vec::new();
    for &entry in entries {
        let label = label(entry, names);
        match series.iter_mut().find(|(known, _)| *known == label) {
            Some((_, entries)) => entries.push(entry),
            None => series.push((label, vec![entry])),
        }
    }
    series
}

/// The slowest and the fastest repetition of all rows.
pub(super) fn range(entries: &[Entry<'_>]) -> Option<(f64, f64)> {
    let rates: Vec<f64> = entries.iter().flat_map(|entry| entry.rates()).collect();
    let low = rates.iter().copied().reduce(f64::min)?;
    Some((low, rates.iter().copied().reduce(f64::max)?)).filter(|_| rates.len() > 1)
}

/// The points of a line: by x, and of several rows at one x the median of y.
pub(super) fn points(
    entries: &[Entry<'_>],
    x: impl Fn(Entry<'_>) -> usize,
    y: impl Fn(Entry<'_>) -> Option<f64>,
) -> Vec<(f64, f64)> {
    let mut found: std::collections::BTreeMap<usize, Vec<f64>> = std::collections::BTreeMap::new();
    for &entry in entries {
        if let Some(value) = y(entry) {
            found.entry(x(entry)).or_default().push(value);
        }
    }
    found.into_iter().filter_map(|(x, values)| Some((x as f64, statistics::median(&values)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(device: &str, samples: &str) -> Record {
        let text = format!(
            r#"{{"model_filename":"m","provider":"qnn","provider_device":"{device}","n_prompt":1,"n_gen":0,"n_depth":0,
                "samples_ns":{samples}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn simulated_rows_are_marked_whatever_tells_them_apart() {
        let record = record("NPU, simulated on the CPU", "[1000000000]");
        let entry = Entry::new(&record).unwrap();
        let labels = [&[][..], &["provider"], &["n_threads"]].map(|names| label(entry, names));
        assert_eq!(labels, ["m, simulated", "qnn (simulated)", "null threads, simulated"]);
    }

    #[test]
    fn what_runs_prompts_is_left_out_only_where_their_length_decides() {
        let record = |prefill: &str, prompt: u64| {
            let mut record = record("CPU", "[1000000000]");
            record.insert("prefill".to_owned(), prefill.into());
            record.insert("n_prompt".to_owned(), prompt.into());
            record
        };
        let names = |records: &[Record]| {
            let entries: Vec<_> = records.iter().filter_map(Entry::new).collect();
            (differing(&entries, &["prefill"]), differing(&entries, &[]))
        };
        assert_eq!(names(&[record("q4", 8), record("int8", 512)]), (vec![], vec!["prefill"]));
        let both = [record("q4", 8), record("int8", 512), record("q4", 512)];
        assert_eq!(names(&both), (vec!["prefill"], vec!["prefill"]));
    }

    #[test]
    fn a_range_is_over_all_rows() {
        let records = ["[1000000000,500000000]", "[250000000]"].map(|samples| record("NPU", samples));
        let entries: Vec<_> = records.iter().filter_map(Entry::new).collect();
        assert_eq!(range(&entries), Some((1.0, 4.0)));
        assert_eq!(range(&entries[1..]), None, "of one repetition there is none");
    }
}
