//! What has changed between two files of rows.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use super::records::has_result;
use super::significance::{self, Comparison};
use super::{Test, statistics};

/// The fields that say what was measured: rows that agree in them are one cell.
pub const SETTINGS: [&str; 15] = [
    "model_filename",
    "precision",
    "dialect",
    "provider",
    "provider_options",
    "n_threads",
    "spinning",
    "low_memory",
    "chunk",
    "prefill",
    "speculate",
    "kv",
    "n_prompt",
    "n_gen",
    "n_depth",
];

/// The fields that say what it was measured with. If they differ, the comparison says so.
pub const ENVIRONMENT: [&str; 17] = [
    "build_commit",
    "build_version",
    "build_optimized",
    "runtime_version",
    "runtime_sha256",
    "cpu_info",
    "cpu_cores",
    "cpu_threads",
    "memory_bytes",
    "os",
    "kernel",
    "arch",
    "governor",
    "power_source",
    "model_sha256",
    "weights_sha256",
    "seed",
];

/// A row as far as comparing needs it. Fields that a file lacks, because another version or program wrote it, are null.
#[derive(Clone, Debug)]
pub struct Measurement {
    fields: Map<String, Value>,
    test: Test,
    samples: Vec<f64>,
}

/// Reads the rows of a file: a JSON array, or a JSON object a line. The errors say which rows are wrong, and why. Rows of cells
/// that were not measured are left out.
pub fn read(text: &str) -> Result<Vec<Measurement>, Vec<String>> {
    let rows: Vec<(String, Result<Value, serde_json::Error>)> = if text.trim_start().starts_with('[') {
        let rows: Vec<Value> = serde_json::from_str(text).map_err(|error| vec![error.to_string()])?;
        rows.into_iter().enumerate().map(|(index, row)| (format!("row {}", index + 1), Ok(row))).collect()
    } else {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines.map(|(index, line)| (format!("line {}", index + 1), serde_json::from_str(line))).collect()
    };
    let (mut measurements, mut problems) = (Vec::new(), Vec::new());
    for (place, row) in rows {
        if row.as_ref().is_ok_and(|row| row.as_object().is_some_and(|row| !has_result(row))) {
            continue;
        }
        match row.map_err(|error| error.to_string()).and_then(Measurement::new) {
            Ok(measurement) => measurements.push(measurement),
            Err(problem) => problems.push(format!("{place}: {problem}")),
        }
    }
    if problems.is_empty() { Ok(measurements) } else { Err(problems) }
}

impl Measurement {
    fn new(row: Value) -> Result<Self, String> {
        let Value::Object(fields) = row else { return Err("is no object".to_owned()) };
        let number = |name: &str| {
            let number = fields.get(name).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
            number.ok_or_else(|| format!("has no whole number {name}"))
        };
        let test = Test { prompt: number("n_prompt")?, generate: number("n_gen")?, depth: number("n_depth")? };
        let samples = fields.get("samples_ns").and_then(Value::as_array).map(|samples| {
            samples.iter().map(|sample| sample.as_f64().filter(|time| *time > 0.0)).collect::<Option<Vec<_>>>()
        });
        let samples = samples.flatten().filter(|samples| !samples.is_empty());
        let samples =
            samples.ok_or("has no samples_ns, which are times above 0; compare files written as json or jsonl")?;
        Ok(Self { fields, test, samples })
    }

    fn values(&self, names: &[&'static str]) -> Vec<(&'static str, Value)> {
        names.iter().map(|name| (*name, self.value(name))).collect()
    }

    fn value(&self, name: &str) -> Value {
        let missing = match name {
            // Versions that did not write it had no such mode.
            "low_memory" => false.into(),
            "provider_options" => Map::new().into(),
            _ => Value::Null,
        };
        self.fields.get(name).cloned().unwrap_or(missing)
    }

    /// Tokens per second of every sample.
    fn rates(&self) -> impl Iterator<Item = f64> {
        self.samples.iter().map(|time| self.test.tokens() as f64 * 1e9 / time)
    }
}

/// What has changed.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// The cells that both files have.
    pub cells: Vec<CellDiff>,
    /// The cells that only the first file has.
    pub only_a: Vec<Setting>,
    /// The cells that only the second file has.
    pub only_b: Vec<Setting>,
    /// Fields other than those that tell cells apart whose values differ, with all values that each file has.
    pub environment: Vec<Difference>,
}

impl Diff {
    /// Whether a cell became faster or slower.
    pub fn has_changes(&self) -> bool {
        self.cells.iter().any(|cell| matches!(cell.verdict, Verdict::Faster | Verdict::Slower))
    }
}

/// The fields that tell a cell from others, with their values.
pub type Setting = Map<String, Value>;

/// A field with different values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name.
    pub field: &'static str,
    /// Its values in the first file.
    pub a: Vec<Value>,
    /// Its values in the second file.
    pub b: Vec<Value>,
}

/// A cell that both files have.
#[derive(Clone, Debug, Serialize)]
pub struct CellDiff {
    /// What was measured.
    #[serde(flatten)]
    pub setting: Setting,
    /// The same, as a name.
    pub test: String,
    /// Number of samples in the first file.
    pub a_samples: usize,
    /// Number of samples in the second file.
    pub b_samples: usize,
    /// Median tokens per second in the first file.
    pub a_ts: f64,
    /// Median tokens per second in the second file.
    pub b_ts: f64,
    /// The second file's speed over the first's.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// What that means.
    pub verdict: Verdict,
}

/// What a comparison means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The second is faster.
    Faster,
    /// The second is slower.
    Slower,
    /// No difference, none that is more than chance, or one that is too small to matter.
    Same,
    /// There are too few samples to tell.
    Unknown,
}

/// Compares two files of rows, leaving the settings `ignored` aside. A difference below `threshold` (0.01 for 1 %) does not
/// count, however sure it is: the repetitions of a cell share one process, and between processes a little varies.
///
/// Samples of rows that agree in all settings are put together. The errors name rows that would agree only because of what is
/// ignored.
pub fn diff(
    a: &[Measurement],
    b: &[Measurement],
    ignored: &[&'static str],
    threshold: f64,
) -> Result<Diff, Vec<String>> {
    let names: Vec<&'static str> = SETTINGS.into_iter().filter(|name| !ignored.contains(name)).collect();
    let (cells_a, cells_b) = match (cells(a, &names, ignored), cells(b, &names, ignored)) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => return Err([a.err(), b.err()].into_iter().flatten().flatten().collect()),
    };
    let find = |cells: &[Cell], setting: &Setting| cells.iter().position(|cell| cell.setting == *setting);
    let only = |cells: &[Cell], others: &[Cell]| {
        let only = cells.iter().filter(|cell| find(others, &cell.setting).is_none());
        only.map(|cell| cell.setting.clone()).collect()
    };
    let both = cells_a.iter().filter_map(|a| Some((a, cells_b.get(find(&cells_b, &a.setting)?)?)));
    Ok(Diff {
        cells: both.filter_map(|(a, b)| compare(a, b, threshold)).collect(),
        only_a: only(&cells_a, &cells_b),
        only_b: only(&cells_b, &cells_a),
        environment: environment(a, b, ignored),
    })
}

/// The rows of one file that measure the same.
struct Cell {
    setting: Setting,
    test: Test,
    samples: Vec<f64>,
    rates: Vec<f64>,
    /// Values of the settings that are ignored.
    ignored: Vec<(&'static str, Value)>,
}

/// The cells of a file, in order of their first rows.
fn cells(rows: &[Measurement], names: &[&'static str], ignored: &[&'static str]) -> Result<Vec<Cell>, Vec<String>> {
    let mut cells: Vec<Cell> = Vec::new();
    let mut problems = Vec::new();
    for row in rows {
        let setting: Setting = row.values(names).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let others = row.values(ignored);
        match cells.iter_mut().find(|cell| cell.setting == setting) {
            None => cells.push(Cell {
                setting,
                test: row.test,
                samples: row.samples.clone(),
                rates: row.rates().collect(),
                ignored: others,
            }),
            Some(cell) if cell.ignored == others => {
                cell.samples.extend(&row.samples);
                cell.rates.extend(row.rates());
            }
            Some(cell) => {
                let name = ignored.join(", ");
                problems.push(format!("{} is there several times if {name} is ignored", cell.test));
            }
        }
    }
    if problems.is_empty() { Ok(cells) } else { Err(problems) }
}

fn compare(a: &Cell, b: &Cell, threshold: f64) -> Option<CellDiff> {
    let comparison = significance::compare(&a.samples, &b.samples)?;
    let is_small = (comparison.ratio - 1.0).abs() < threshold;
    let verdict = match comparison.interval {
        None => Verdict::Unknown,
        Some(_) if is_small => Verdict::Same,
        Some(interval) if interval.low > 1.0 => Verdict::Faster,
        Some(interval) if interval.high < 1.0 => Verdict::Slower,
        Some(_) => Verdict::Same,
    };
    Some(CellDiff {
        setting: a.setting.clone(),
        test: a.test.to_string(),
        a_samples: a.samples.len(),
        b_samples: b.samples.len(),
        a_ts: statistics::median(&a.rates)?,
        b_ts: statistics::median(&b.rates)?,
        comparison,
        verdict,
    })
}

fn environment(a: &[Measurement], b: &[Measurement], ignored: &[&'static str]) -> Vec<Difference> {
    // By their text, which gives an order to values of any type.
    let values = |rows: &[Measurement], field: &str| -> BTreeMap<String, Value> {
        rows.iter().map(|row| row.value(field)).map(|value| (value.to_string(), value)).collect()
    };
    let fields: BTreeSet<&'static str> = ignored.iter().copied().collect();
    let fields = SETTINGS.into_iter().filter(|name| fields.contains(name)).chain(ENVIRONMENT);
    fields
        .map(|field| (field, values(a, field), values(b, field)))
        .filter(|(_, a, b)| a != b)
        .map(|(field, a, b)| Difference { field, a: a.into_values().collect(), b: b.into_values().collect() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::{decode, prefill};

    /// A file with these rows: number of threads, precision, samples.
    fn file(rows: &[(usize, &str, &[u64])]) -> Vec<Measurement> {
        let line = |&(threads, precision, samples): &(usize, &str, &[u64])| {
            let mut row = serde_json::to_value(decode()).unwrap();
            row["n_threads"] = threads.into();
            row["precision"] = precision.into();
            row["samples_ns"] = samples.into();
            row.to_string()
        };
        read(&rows.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap()
    }

    const SLOW: &[u64] = &[1000, 1010, 1020, 1030, 1040];
    const FAST: &[u64] = &[900, 901, 902, 903, 904];

    #[test]
    fn rows_are_read_back() {
        let rows = [prefill(), decode()].map(|row| serde_json::to_string(&row).unwrap());
        let lines = read(&rows.join("\n\n")).unwrap();
        let array = read(&format!("[{}]", rows.join(","))).unwrap();
        for rows in [lines, array] {
            assert_eq!(rows[1].samples, [4e8, 5e8]);
            assert_eq!(rows[0].test, Test { prompt: 512, generate: 0, depth: 0 });
            for name in SETTINGS.iter().chain(&ENVIRONMENT) {
                assert!(rows[0].fields.contains_key(*name), "rows have no field {name}");
            }
        }
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn rows_without_a_result_and_of_older_versions_are_taken_as_they_are() {
        let mut row = serde_json::to_value(decode()).unwrap();
        let failed = r#"{"status":"crashed","n_prompt":0,"n_gen":4,"n_depth":9,"samples_ns":[]}"#;
        let new = read(&format!("{row}\n{failed}")).unwrap();
        assert_eq!(new.len(), 1);
        let fields = row.as_object_mut().unwrap();
        ["low_memory", "provider_options", "status", "cell"]
            .iter()
            .for_each(|name| assert!(fields.remove(*name).is_some()));
        let old = read(&row.to_string()).unwrap();
        assert_eq!(diff(&old, &new, &[], 0.0).unwrap().cells.len(), 1);
    }

    #[test]
    fn all_wrong_rows_are_named() {
        let row = r#"{"n_prompt":1,"n_gen":0,"n_depth":0,"samples_ns":"#;
        let text = format!("{row}[5]}}\n{{\n7\n{{\"n_prompt\":-1}}\n{row}[]}}\n{row}[0]}}");
        let problems = read(&text).unwrap_err();
        let places: Vec<_> = problems.iter().map(|problem| problem.split(':').next().unwrap()).collect();
        assert_eq!(places, ["line 2", "line 3", "line 4", "line 5", "line 6"], "{problems:#?}");
        assert!(read("[{}, 3]").unwrap_err()[1].starts_with("row 2"));
        assert_eq!(read("[{").unwrap_err().len(), 1);
    }

    #[test]
    fn faster_slower_and_the_same() {
        let verdict = |a, b, threshold| {
            let diff = diff(&file(&[(1, "q4", a)]), &file(&[(1, "q4", b)]), &[], threshold).unwrap();
            (diff.cells[0].verdict, diff.has_changes())
        };
        assert_eq!(verdict(SLOW, FAST, 0.01), (Verdict::Faster, true));
        assert_eq!(verdict(FAST, SLOW, 0.01), (Verdict::Slower, true));
        assert_eq!(verdict(SLOW, SLOW, 0.01), (Verdict::Same, false));
        assert_eq!(verdict(SLOW, FAST, 0.2), (Verdict::Same, false), "too small to matter");
        assert_eq!(verdict(&SLOW[..2], FAST, 0.01), (Verdict::Unknown, false));
    }

    #[test]
    fn what_ran_prompts_tells_cells_apart_and_what_was_loaded_is_told() {
        let rows = |prefill: &str, graphs: &str| {
            let mut row = serde_json::to_value(decode()).unwrap();
            row["prefill"] = prefill.into();
            row["model_sha256"] = graphs.into();
            read(&row.to_string()).unwrap()
        };
        let found = diff(&rows("q4", "bb"), &rows("int8", "bb,dd"), &[], 0.0).unwrap();
        assert_eq!((found.cells.len(), found.only_a.len(), found.only_b.len()), (0, 1, 1));
        let found = diff(&rows("int8", "bb,dd"), &rows("int8", "bb,ee"), &[], 0.0).unwrap();
        let hashes = Difference { field: "model_sha256", a: vec!["bb,dd".into()], b: vec!["bb,ee".into()] };
        assert_eq!((found.cells.len(), found.environment), (1, vec![hashes]));
    }

    #[test]
    fn cells_are_matched_by_their_settings() {
        let a = file(&[(1, "q4", SLOW), (2, "q4", SLOW), (2, "q8", SLOW)]);
        let b = file(&[(2, "q4", FAST), (4, "q4", FAST)]);
        let diff = diff(&a, &b, &[], 0.0).unwrap();
        assert_eq!(diff.cells.len(), 1);
        let cell = &diff.cells[0];
        assert_eq!((cell.test.as_str(), cell.a_samples, cell.b_samples), ("tg4 @ d9", 5, 5));
        assert_eq!(cell.setting["n_threads"], 2);
        assert!((cell.comparison.ratio - 1020.0 / 902.0).abs() < 1e-12);
        assert!((cell.a_ts - 4e9 / 1020.0).abs() < 1e-6);
        let threads = |cells: &[Setting]| cells.iter().map(|cell| cell["n_threads"].clone()).collect::<Vec<_>>();
        assert_eq!((threads(&diff.only_a), threads(&diff.only_b)), (vec![1.into(), 2.into()], vec![4.into()]));
        assert!(diff.environment.is_empty());
    }

    #[test]
    fn what_is_ignored_is_told() {
        let (a, b) = (file(&[(1, "q4", SLOW)]), file(&[(1, "q8", FAST)]));
        assert!(diff(&a, &b, &[], 0.0).unwrap().cells.is_empty());
        let found = diff(&a, &b, &["precision"], 0.0).unwrap();
        assert_eq!(found.cells.len(), 1);
        let difference = Difference { field: "precision", a: vec!["q4".into()], b: vec!["q8".into()] };
        assert_eq!(found.environment, [difference]);
        let both = file(&[(1, "q4", SLOW), (1, "q8", SLOW)]);
        let problems = diff(&both, &b, &["precision"], 0.0).unwrap_err();
        assert!(problems[0].contains("tg4 @ d9") && problems[0].contains("precision"), "{problems:?}");
    }

    #[test]
    fn rows_of_one_cell_are_put_together() {
        let (a, b) = (file(&[(1, "q4", SLOW), (1, "q4", FAST)]), file(&[(1, "q4", FAST)]));
        assert_eq!(diff(&a, &b, &[], 0.0).unwrap().cells[0].a_samples, 10);
    }

    #[test]
    fn other_machines_are_told() {
        let (a, mut b) = (file(&[(1, "q4", SLOW)]), file(&[(1, "q4", FAST)]));
        b[0].fields["runtime_version"] = "9.9".into();
        b[0].fields.remove("governor");
        let names: Vec<_> = diff(&a, &b, &[], 0.0).unwrap().environment.iter().map(|it| it.field).collect();
        assert_eq!(names, ["runtime_version", "governor"]);
    }
}
