//! Several files of rows in one.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::diff::SETTINGS;
use super::records::{Record, has_result, machine_of, test_of};

/// What happens to rows of the same cell on the same machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// One that has a result wins over one that has none, and then the newer one.
    #[default]
    Newest,
    /// They are an error, unless they are equal.
    Refuse,
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The rows, each machine's together; otherwise in the order in which their cells first came.
    pub rows: Vec<Record>,
    /// Number of rows that another one stands for.
    pub dropped: usize,
    /// Number of machines.
    pub machines: usize,
}

/// Merges rows, each of which comes with its place for messages.
///
/// # Errors
/// All objects that are no rows, and all duplicates that cannot be resolved, with their places and what differs.
pub fn merge(rows: impl IntoIterator<Item = (String, Record)>, duplicates: Duplicates) -> Result<Merged, Vec<String>> {
    let mut machines: Vec<Vec<Value>> = Vec::new();
    let mut kept: Vec<(usize, String, Record)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let (mut problems, mut dropped) = (Vec::new(), 0);
    for (place, row) in rows {
        if test_of(&row).is_none() {
            problems.push(format!("{place}: is no row: it has no n_prompt, n_gen and n_depth"));
            continue;
        }
        let machine = machine_of(&row);
        let number = machines.iter().position(|known| *known == machine).unwrap_or_else(|| {
            machines.push(machine);
            machines.len() - 1
        });
        let key = format!("{number} {}", cell(&row));
        let Some(&at) = places.get(&key) else {
            places.insert(key, kept.len());
            kept.push((number, place, row));
            continue;
        };
        let (_, other_place, other) = &mut kept[at];
        dropped += 1;
        if *other == row {
            continue;
        }
        match choose(other, &row, duplicates) {
            Ok(true) => (*other_place, *other) = (place, row),
            Ok(false) => {}
            Err(reason) => problems.push(format!("{place} measures the same as {other_place}, {reason}")),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    // Stable, so that the order within a machine stays.
    kept.sort_by_key(|(number, ..)| *number);
    Ok(Merged { rows: kept.into_iter().map(|(.., row)| row).collect(), dropped, machines: machines.len() })
}

/// What tells cells apart beyond the settings that a comparison is made over.
const MORE_SETTINGS: [&str; 4] = ["model_sha256", "weights_sha256", "seed", "repetitions"];

/// What tells the cell of a row from others: its number, or the settings where an older version wrote none.
fn cell(row: &Record) -> String {
    match row.get("cell").and_then(Value::as_str) {
        Some(cell) => cell.to_owned(),
        None => {
            let names = SETTINGS.iter().chain(&MORE_SETTINGS);
            Value::from_iter(names.map(|name| row.get(*name).cloned().unwrap_or_default())).to_string()
        }
    }
}

/// Whether the second row takes the place of the first.
fn choose(first: &Record, second: &Record, duplicates: Duplicates) -> Result<bool, String> {
    if duplicates == Duplicates::Refuse {
        let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
        let differ = names.into_iter().filter(|name| first.get(*name) != second.get(*name));
        let differ: Vec<_> = differ.filter(|name| !is_result(name)).map(String::as_str).collect();
        let what = if differ.is_empty() { "only the results".to_owned() } else { differ.join(", ") };
        return Err(format!("and duplicates are refused; what differs: {what}"));
    }
    if has_result(first) != has_result(second) {
        return Ok(has_result(second));
    }
    let time = |row: &Record| row.get("test_time").and_then(Value::as_str).map(str::to_owned);
    match (time(first), time(second)) {
        // Times of one form, in UTC, have the order of their texts.
        (Some(a), Some(b)) if a != b => Ok(b > a),
        (Some(time), Some(_)) => Err(format!("and both were begun at {time}, so that none is the newer one")),
        _ => Err("and not both say when, so that none is the newer one".to_owned()),
    }
}

/// Whether a field is what measuring found out, which no two measurements agree in.
fn is_result(name: &str) -> bool {
    let ends = ["_ns", "_ts", "_percent", "_memory", "_before", "_after", "_second"];
    ends.iter().any(|end| name.ends_with(end)) || name == "read_bandwidth"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cell: &str, device: &str, time: &str, status: &str) -> Record {
        let text = format!(
            r#"{{"cell":"{cell}","device":"{device}","test_time":"{time}","status":"{status}","n_prompt":1,"n_gen":0,"n_depth":0}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn merged(rows: &[Record], duplicates: Duplicates) -> Result<Merged, Vec<String>> {
        merge(rows.iter().enumerate().map(|(index, row)| (format!("row {index}"), row.clone())), duplicates)
    }

    #[test]
    fn machines_are_kept_apart_and_the_newest_row_wins() {
        let rows = [
            row("a", "pi", "2026-01-01T00:00:00Z", "ok"),
            row("a", "phone", "2026-01-01T00:00:00Z", "ok"),
            row("b", "pi", "2026-01-01T00:00:00Z", "ok"),
            row("a", "pi", "2026-01-03T00:00:00Z", "ok"),
            row("a", "pi", "2026-01-02T00:00:00Z", "ok"),
        ];
        let found = merged(&rows, Duplicates::Newest).unwrap();
        assert_eq!((found.machines, found.dropped), (2, 2));
        assert_eq!(found.rows, [rows[3].clone(), rows[2].clone(), rows[1].clone()]);
    }

    #[test]
    fn a_result_wins_over_a_newer_failure() {
        let rows = [row("a", "pi", "2026-01-01T00:00:00Z", "ok"), row("a", "pi", "2026-01-02T00:00:00Z", "timeout")];
        assert_eq!(merged(&rows, Duplicates::Newest).unwrap().rows, rows[..1]);
        let rows = [rows[1].clone(), rows[0].clone()];
        assert_eq!(merged(&rows, Duplicates::Newest).unwrap().rows, rows[1..]);
    }

    #[test]
    fn duplicates_can_be_refused_and_equal_ones_are_none() {
        let mut rows = vec![row("a", "pi", "2026-01-01T00:00:00Z", "ok"); 2];
        assert_eq!(merged(&rows, Duplicates::Refuse).unwrap().rows.len(), 1);
        rows[1].insert("runtime_version".to_owned(), "2".into());
        rows[1].insert("avg_ns".to_owned(), 7.into());
        let problems = merged(&rows, Duplicates::Refuse).unwrap_err();
        assert!(problems[0].contains("row 1") && problems[0].contains("row 0"), "{problems:?}");
        assert!(problems[0].ends_with("what differs: runtime_version"), "{problems:?}");
        assert!(merged(&rows, Duplicates::Newest).unwrap_err()[0].contains("2026-01-01"));
        rows[1].remove("test_time");
        assert!(merged(&rows, Duplicates::Newest).unwrap_err()[0].contains("newer"));
    }

    #[test]
    fn older_rows_are_told_apart_by_their_settings() {
        let old = |threads: u64| {
            let mut row = row("", "pi", "2026-01-01T00:00:00Z", "ok");
            row.remove("cell");
            row.insert("n_threads".to_owned(), threads.into());
            row
        };
        assert_eq!(merged(&[old(1), old(2)], Duplicates::Refuse).unwrap().rows.len(), 2);
        for name in MORE_SETTINGS {
            let mut other = old(1);
            other.insert(name.to_owned(), 7.into());
            assert_eq!(merged(&[old(1), other], Duplicates::Refuse).unwrap().rows.len(), 2, "{name}");
        }
        assert!(merged(&[Record::new()], Duplicates::Newest).unwrap_err()[0].contains("no row"));
    }
}
