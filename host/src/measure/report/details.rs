//! The tables of a report that have no figures.

use serde_json::Value;

use super::content::Table;
use super::entry::{Entry, differing, label};
use super::number::{mebibytes, milliseconds, or_nothing, percent, plain};
use crate::measure::records::Record;
use crate::measure::statistics;

/// What a machine's rows were measured with, in the order of the table.
const ENVIRONMENT: [(&str, &str); 13] = [
    ("cpu_info", "Processor"),
    ("cpu_cores", "Cores"),
    ("cpu_threads", "Hardware threads"),
    ("memory_bytes", "Memory, bytes"),
    ("os", "System"),
    ("kernel", "Kernel"),
    ("arch", "Architecture"),
    ("governor", "Governor"),
    ("power_source", "Power"),
    ("build_version", "lfm2-host"),
    ("build_commit", "Commit"),
    ("runtime_version", "ONNX Runtime"),
    ("plan", "Plan"),
];

/// Machine and programs; fields with several values have all of them.
pub(super) fn environment(entries: &[Entry<'_>]) -> Table {
    let mut table = Table::new("Machine and programs.", &["Field", "Value"]);
    for (name, title) in ENVIRONMENT {
        let mut values: Vec<String> = Vec::new();
        for value in entries.iter().filter_map(|entry| entry.record().get(name)).filter(|value| !value.is_null()) {
            let value = plain_text(value);
            if !values.contains(&value) {
                values.push(value);
            }
        }
        if !values.is_empty() {
            table.rows.push(vec![title.to_owned(), values.join(", ")]);
        }
    }
    if entries.iter().any(|entry| entry.record().get("build_optimized") == Some(&Value::Bool(false))) {
        table.rows.push(vec!["Warning".to_owned(), "some rows come from a program without optimization".to_owned()]);
    }
    table
}

/// What `--reference` found; nothing if no row has it.
pub(super) fn agreement(results: &[Entry<'_>]) -> Option<Table> {
    let columns = ["Series", "Kernels of", "Exact model", "#same best token, %", "#mean divergence, nats", "#tokens"];
    let mut table = Table::new("How far each model is from the exact one on the CPU, on random tokens.", &columns);
    let compared: Vec<_> = results.iter().copied().filter(|entry| entry.number("top1_agreement").is_some()).collect();
    let names = differing(&compared, &["n_threads", "spinning", "low_memory", "chunk", "speculate", "build_commit"]);
    for &entry in &compared {
        let kernels = if entry.test.generate > 0 { "answers" } else { "prompts" };
        let precision = entry.text("reference_precision").map_or(String::new(), |name| format!(" ({name})"));
        let row = vec![
            label(entry, &names),
            kernels.to_owned(),
            entry.text("reference").map_or(String::new(), |name| format!("{name}{precision}")),
            or_nothing(entry.number("top1_agreement"), percent),
            or_nothing(entry.number("mean_kld"), plain),
            or_nothing(entry.number("agreement_tokens"), |count| format!("{count}")),
        ];
        // All tests of a series were compared once.
        if !table.rows.contains(&row) {
            table.rows.push(row);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Which provider runs how many nodes, and whether they had to be compiled; nothing if no row tells.
pub(super) fn placement(results: &[Entry<'_>]) -> Option<Table> {
    let columns = ["Series", "Device", "Nodes", "#session ms", "Compiled"];
    let caption = "Which provider runs how many nodes of the graphs, and creating the sessions. Where that compiles, nothing tells how much of the \
                   time compiling is.";
    let mut table = Table::new(caption, &columns);
    let known = |name: &'static str| move |entry: &Entry<'_>| entry.record().get(name).is_some_and(|it| !it.is_null());
    let told: Vec<_> =
        results.iter().copied().filter(|entry| known("placement")(entry) || known("cache_hit")(entry)).collect();
    let names = differing(&told, &["spinning", "speculate", "chunk"]);
    let mut seen = Vec::new();
    for &entry in &told {
        let (series, nodes) = (label(entry, &names), nodes(entry));
        if seen.contains(&(series.clone(), nodes.clone())) {
            continue;
        }
        seen.push((series.clone(), nodes.clone()));
        let hit = entry.record().get("cache_hit").and_then(Value::as_bool);
        table.rows.push(vec![
            series,
            entry.text("provider_device").unwrap_or_default().to_owned(),
            nodes,
            or_nothing(entry.number("session_ns"), milliseconds),
            hit.map_or("", |hit| if hit { "ahead of time" } else { "with the session" }).to_owned(),
        ]);
    }
    (!table.rows.is_empty()).then(|| table.without_empty_columns())
}

fn nodes(entry: Entry<'_>) -> String {
    let placement = entry.record().get("placement").and_then(Value::as_object).into_iter().flatten();
    placement.map(|(provider, count)| format!("{provider} {count}")).collect::<Vec<_>>().join(", ")
}

/// Every file that a series was loaded from; nothing if no row tells.
pub(super) fn files(results: &[Entry<'_>]) -> Option<Table> {
    let columns = ["Series", "File", "Holds", "#bytes", "SHA-256"];
    let mut table = Table::new("The files that each series was loaded from.", &columns);
    let told: Vec<_> = results.iter().copied().filter(|entry| files_of(*entry).next().is_some()).collect();
    let names = differing(&told, &["n_threads", "spinning", "low_memory", "chunk", "speculate", "build_commit"]);
    for &entry in &told {
        for file in files_of(entry) {
            let text = |name: &str| file.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let bytes = file.get("size").and_then(Value::as_u64).map_or(String::new(), |bytes| bytes.to_string());
            let row = vec![label(entry, &names), text("name"), text("role"), bytes, text("sha256")];
            // The tests of a series need not have loaded the same.
            if !table.rows.contains(&row) {
                table.rows.push(row);
            }
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

fn files_of<'a>(entry: Entry<'a>) -> impl Iterator<Item = &'a Record> {
    entry.record().get("model_files").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

/// Temperatures and frequencies around each test; nothing if no row tells.
pub(super) fn sensors(results: &[Entry<'_>]) -> Option<Table> {
    let columns = ["Series", "Test", "Hottest before", "Hottest after", "#GHz before", "#GHz after"];
    let mut table =
        Table::new("The hottest zone, and the mean frequency of the cores, before and after each test.", &columns);
    let names = differing(results, &["prefill"]);
    for &entry in results {
        let zones = ["thermal_before", "thermal_after"].map(|name| hottest(entry.record().get(name)));
        let clocks = ["frequency_before", "frequency_after"].map(|name| mean(entry.record().get(name)));
        if zones.iter().any(Option::is_some) || clocks.iter().any(Option::is_some) {
            let zones = zones.map(Option::unwrap_or_default);
            let clocks = clocks.map(|hertz| or_nothing(hertz.map(|hertz| hertz / 1e9), plain));
            table.rows.push([vec![label(entry, &names), entry.test_name()], zones.to_vec(), clocks.to_vec()].concat());
        }
    }
    (!table.rows.is_empty()).then(|| table.without_empty_columns())
}

fn hottest(zones: Option<&Value>) -> Option<String> {
    let zones = zones?.as_array()?.iter();
    let zones = zones.filter_map(|zone| Some((zone.get("celsius")?.as_f64()?, zone.get("type")?.as_str()?)));
    let (celsius, kind) = zones.max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(format!("{celsius:.1} °C, {kind}"))
}

fn mean(values: Option<&Value>) -> Option<f64> {
    let values: Vec<f64> = values?.as_array()?.iter().filter_map(Value::as_f64).collect();
    statistics::mean(&values)
}

/// Cells without a result, or without all of it; nothing if there are none.
pub(super) fn failures(entries: &[Entry<'_>]) -> Option<Table> {
    let mut table =
        Table::new("What was not measured, or not wholly, and why.", &["Series", "Test", "Status", "Reason"]);
    let has_error = |entry: &Entry<'_>| entry.text("error").is_some() || !entry.has_result();
    let failed: Vec<_> = entries.iter().copied().filter(has_error).collect();
    let mut names = differing(entries, &["prefill", "kv"]);
    if !names.contains(&"provider") {
        names.push("provider");
    }
    for &entry in &failed {
        table.rows.push(vec![
            label(entry, &names),
            entry.test_name(),
            entry.text("status").unwrap_or("unknown").to_owned(),
            entry.text("error").unwrap_or("has no times").to_owned(),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Every row with a result.
pub(super) fn rows(results: &[Entry<'_>]) -> Option<Table> {
    let columns = [
        "Series",
        "Test",
        "#tokens/s",
        "#± %",
        "#repetitions",
        "#first token ms",
        "#token ms p50",
        "#p95",
        "#p99",
        "#runs per token",
        "#host %",
        "#load ms",
        "#peak MiB",
    ];
    let mut table =
        Table::new("All rows with a result: medians, and standard deviations in percent of the mean.", &columns);
    let names = differing(results, &["prefill"]);
    for &entry in results {
        let number = |name: &str| entry.number(name);
        let deviation = number("stddev_ts").zip(number("avg_ts")).map(|(deviation, mean)| deviation / mean);
        let time = |name: &str| or_nothing(number(name), milliseconds);
        table.rows.push(vec![
            label(entry, &names),
            entry.test_name(),
            or_nothing(entry.rate(), plain),
            or_nothing(deviation, percent),
            or_nothing(number("repetitions"), |count| format!("{count}")),
            time("first_token_median_ns"),
            time("inter_token_p50_ns"),
            time("inter_token_p95_ns"),
            time("inter_token_p99_ns"),
            or_nothing(number("runs_per_token").filter(|runs| *runs < 1.0), plain),
            or_nothing(number("host_percent"), |percent| format!("{percent:.2}")),
            time("load_ns"),
            or_nothing(number("peak_memory").map(mebibytes), plain),
        ]);
    }
    (!table.rows.is_empty()).then(|| table.without_empty_columns())
}

/// Whether an object is what `lfm2-host eval --json` prints.
pub(super) fn is_evaluation(object: &Record) -> bool {
    object.get("perplexity").is_some_and(Value::is_object) && object.get("model").is_some_and(Value::is_object)
}

/// What evaluations found.
pub(super) fn fidelity(evaluations: &[&Record]) -> Table {
    let columns = [
        "Model",
        "Exact model",
        "Text",
        "#tokens",
        "#same best token, %",
        "#mean divergence, nats",
        "#99 % have at most",
        "#perplexity",
        "#perplexity ratio",
    ];
    let mut table = Table::new("How far models are from the exact one on a text, by lfm2-host eval.", &columns);
    for object in evaluations {
        let at = |path: &str| object_at(object, path);
        let number = |path: &str| at(path).and_then(Value::as_f64);
        let text = |path: &str| at(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        table.rows.push(vec![
            text("/model/graph"),
            text("/reference/graph"),
            text("/text"),
            or_nothing(number("/tokens"), |count| format!("{count}")),
            or_nothing(number("/fidelity/agreement/value"), percent),
            or_nothing(number("/fidelity/divergence/mean/value"), plain),
            or_nothing(number("/fidelity/divergence/p99/value"), plain),
            or_nothing(number("/perplexity/value"), plain),
            or_nothing(number("/fidelity/perplexity_ratio/value"), |ratio| format!("{ratio:.3}")),
        ]);
    }
    table.without_empty_columns()
}

/// Whether an object is what `benches/baselines/compare.py` records of one run of a system.
pub(super) fn is_comparison(object: &Record) -> bool {
    ["system", "prefill_s", "decode_s"].iter().all(|name| object.contains_key(*name))
}

/// Other runtimes and this one, measured in turn: the best of all rounds, which the script prints too.
pub(super) fn systems(runs: &[&Record]) -> Table {
    let columns =
        ["System", "#threads", "#prompt", "#prefill tokens/s", "#decode tokens/s", "#peak MiB", "#load s", "#rounds"];
    let mut table = Table::new(
        "This host and other runtimes with the same model, measured in turn: the best of all rounds.",
        &columns,
    );
    let mut systems: Vec<(&str, Vec<&Record>)> = Vec::new();
    for &run in runs {
        let name = run.get("system").and_then(Value::as_str).unwrap_or("unknown");
        match systems.iter_mut().find(|(known, _)| *known == name) {
            Some((_, runs)) => runs.push(run),
            None => systems.push((name, vec![run])),
        }
    }
    let floats = |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect::<Vec<_>>();
    for (name, runs) in systems {
        let least = |of: &dyn Fn(&Record) -> Vec<f64>| runs.iter().flat_map(|run| of(run)).reduce(f64::min);
        let number = |name: &'static str| least(&|run| run.get(name).and_then(Value::as_f64).into_iter().collect());
        let prefill = least(&|run| run.get("prefill_s").map(floats).unwrap_or_default());
        // The best round, not the best step: single steps may be short by luck.
        let decode = least(&|run| {
            let answers = run.get("decode_s").and_then(Value::as_array).into_iter().flatten().map(floats);
            answers
                .filter(|times| !times.is_empty())
                .map(|times| times.iter().sum::<f64>() / times.len() as f64)
                .collect()
        });
        let prompt = number("prompt");
        table.rows.push(vec![
            name.to_owned(),
            or_nothing(number("threads"), |count| format!("{count}")),
            or_nothing(prompt, |count| format!("{count}")),
            or_nothing(prompt.zip(prefill).map(|(tokens, time)| tokens / time), plain),
            or_nothing(decode.map(|time| 1.0 / time), plain),
            or_nothing(number("peak_bytes").map(mebibytes), plain),
            or_nothing(number("load_s"), plain),
            runs.len().to_string(),
        ]);
    }
    table.without_empty_columns()
}

/// What lies at a path of names, each behind a slash.
fn object_at<'a>(object: &'a Record, path: &str) -> Option<&'a Value> {
    let mut names = path.split('/').skip(1);
    let first = object.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

/// A value without the quotation marks of JSON.
fn plain_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
