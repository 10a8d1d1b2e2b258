//! `lfm2-host bench diff A B`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::args::DiffArgs;
use crate::cli::error::{CliError, Exit, Problems};
use crate::measure::diff::{Diff, Difference, Measurement, SETTINGS, Setting, Verdict, diff as compare, read};

/// Compares two files of rows and prints what has changed.
pub(super) fn diff(args: &DiffArgs) -> Result<Exit, CliError> {
    let (ignored, threshold) = settings(args)?;
    let files = (rows(&args.a), rows(&args.b));
    let (a, b) = match files {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => return Err(failed(&[a.err(), b.err()].into_iter().flatten().collect::<Vec<_>>())),
    };
    let diff = compare(&a, &b, &ignored, threshold).map_err(|problems| failed(&problems))?;
    if diff.cells.is_empty() {
        let advice = "the files have no cell in common; --ignore FIELD leaves settings aside";
        return Err(failed(&[
            format!("{advice}. The first of {}:{}", args.a.display(), first(&diff.only_a)),
            format!("the first of {}:{}", args.b.display(), first(&diff.only_b)),
        ]));
    }
    let text = if args.json {
        serde_json::to_string_pretty(&diff).map(|text| text + "\n").map_err(CliError::comparison)?
    } else {
        table(&diff)
    };
    // With 1, a failure would look like a change.
    super::print(&text).map_err(|error| match error {
        CliError::Closed => CliError::Closed,
        other => CliError::comparison(other),
    })?;
    Ok(if diff.has_changes() { Exit::Changed } else { Exit::Done })
}

/// The settings to leave aside, and the smallest difference that counts.
fn settings(args: &DiffArgs) -> Result<(Vec<&'static str>, f64), Problems> {
    let mut problems = Problems::default();
    let mut ignored = Vec::new();
    for name in &args.ignore {
        match SETTINGS.into_iter().find(|setting| setting == name) {
            Some(name) => ignored.push(name),
            None => problems.add("--ignore", format!("takes {}; not {name:?}", SETTINGS.join(", "))),
        }
    }
    let expected = "a number of at least 0";
    let is_allowed = |percent: &f64| percent.is_finite() && *percent >= 0.0;
    let threshold = problems.number("--threshold", Some(args.threshold.clone()), expected, is_allowed);
    if problems.is_empty() { Ok((ignored, threshold.unwrap_or_default() / 100.0)) } else { Err(problems) }
}

fn rows(path: &Path) -> Result<Vec<Measurement>, String> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let rows = read(&text)
        .map_err(|problems| format!("{name} holds no rows of measurements:\n  {}", problems.join("\n  ")))?;
    if rows.is_empty() { Err(format!("{name} is empty")) } else { Ok(rows) }
}

fn failed(problems: &[String]) -> CliError {
    CliError::comparison(problems.join("\n"))
}

fn first(cells: &[Setting]) -> String {
    cells.first().map_or(" none".to_owned(), |cell| label(cell, &SETTINGS))
}

/// The comparison for people.
fn table(diff: &Diff) -> String {
    let mut text = String::new();
    for Difference { field, a, b } in &diff.environment {
        text += &format!("{field} differs: {} -> {}\n", list(a), list(b));
    }
    // What all cells have in common need not be said for each.
    let all: Vec<&Setting> =
        diff.cells.iter().map(|cell| &cell.setting).chain(&diff.only_a).chain(&diff.only_b).collect();
    let differs = |name: &&'static str| {
        let is_test = name.starts_with("n_") && *name != "n_threads";
        !is_test && all.iter().any(|cell| cell.get(*name) != all[0].get(*name))
    };
    let names: Vec<_> = SETTINGS.into_iter().filter(|name| differs(name)).collect();
    text += &format!("{:<30} {:>10} {:>10} {:>7} {:>16}\n", "test", "A t/s", "B t/s", "B / A", "interval");
    for cell in &diff.cells {
        let interval = cell.comparison.interval;
        let interval = interval.map_or("too few samples".to_owned(), |it| format!("{:.3} to {:.3}", it.low, it.high));
        let verdict = match cell.verdict {
            Verdict::Faster => "faster",
            Verdict::Slower => "slower",
            Verdict::Same => "same",
            Verdict::Unknown => "unknown",
        };
        let (ratio, name) = (cell.comparison.ratio, format!("{}{}", cell.test, label(&cell.setting, &names)));
        let rates = format!("{:>10.2} {:>10.2} {ratio:>7.3}", cell.a_ts, cell.b_ts);
        text += &format!("{name:<30} {rates} {interval:>16} {verdict}\n");
    }
    let names = [&names[..], &["n_prompt", "n_gen", "n_depth"]].concat();
    for (file, cells) in [("A", &diff.only_a), ("B", &diff.only_b)] {
        for cell in cells {
            text += &format!("only in {file}:{}\n", label(cell, &names));
        }
    }
    let confidence = diff.cells.iter().filter_map(|cell| cell.comparison.interval).map(|it| it.confidence);
    if let Some(lowest) = confidence.reduce(f64::min) {
        text += &format!("Intervals hold the true ratio with a probability of {:.1} % or more.\n", 100.0 * lowest);
    }
    if diff.cells.iter().any(|cell| cell.comparison.interval.is_none()) {
        text += "An interval needs four samples on each side: measure with -r 5.\n";
    }
    text
}

/// The settings `names` of a cell, each with a space before it.
fn label(cell: &Setting, names: &[&'static str]) -> String {
    let known = names.iter().filter_map(|name| Some((name, cell.get(*name)?)));
    known.map(|(name, value)| format!(" {name}={}", plain(value))).collect()
}

fn list(values: &[Value]) -> String {
    values.iter().map(plain).collect::<Vec<_>>().join(", ")
}

/// A value without the quotation marks of JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    }
}
