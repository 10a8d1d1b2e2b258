//! From rows to the sections of a report.

use std::collections::BTreeSet;

use serde_json::Value;

use super::chart::{Bar, Bars, Line, Lines};
use super::content::{Drawing, Figure, Part, Report, Section, Table};
use super::details;
use super::entry::{Entry, differing, label, points, range, series};
use super::number::{mebibytes, milliseconds, or_nothing, percent, plain};
use crate::measure::records::{Record, machine_name, machine_of};

/// The length of prompts that speeds are compared at, or the nearest to it.
const USUAL_PROMPT: usize = 512;

/// Most bars of a figure; more are for the tables.
const MOST_BARS: usize = 24;

/// Most lines of a figure.
const MOST_LINES: usize = 12;

/// The report of these objects.
pub(super) fn report(objects: &[Record], title: &str) -> Report {
    let entries: Vec<Entry<'_>> = objects.iter().filter_map(Entry::new).collect();
    let mut machines: Vec<(Vec<Value>, Vec<Entry<'_>>)> = Vec::new();
    for &entry in &entries {
        let machine = machine_of(entry.record());
        match machines.iter_mut().find(|(known, _)| *known == machine) {
            Some((_, entries)) => entries.push(entry),
            None => machines.push((machine, vec![entry])),
        }
    }
    let evaluations: Vec<&Record> = objects.iter().filter(|object| details::is_evaluation(object)).collect();
    let comparisons: Vec<&Record> = objects.iter().filter(|object| details::is_comparison(object)).collect();
    let is_known = |object: &Record| {
        Entry::new(object).is_some() || details::is_evaluation(object) || details::is_comparison(object)
    };
    let others = objects.iter().filter(|object| !is_known(object)).count();
    let about = about(&entries, machines.len(), others);
    let mut report = Report { title: title.to_owned(), about, sections: Vec::new() };
    if machines.len() > 1 {
        let table = summary(&machines);
        report.sections.push(Section { title: "All machines".to_owned(), level: 2, parts: vec![Part::Table(table)] });
    }
    for (_, entries) in &machines {
        machine(entries, &mut report.sections);
    }
    if !comparisons.is_empty() {
        let parts = vec![Part::Table(details::systems(&comparisons))];
        report.sections.push(Section { title: "Other runtimes".to_owned(), level: 2, parts });
    }
    if !evaluations.is_empty() {
        let parts = vec![Part::Table(details::fidelity(&evaluations))];
        report.sections.push(Section { title: "Fidelity".to_owned(), level: 2, parts });
    }
    report
}

/// What the report is about.
fn about(entries: &[Entry<'_>], machines: usize, others: usize) -> Vec<String> {
    let many = |count: usize, one: &str, several: &str| format!("{count} {}", if count == 1 { one } else { several });
    let times: BTreeSet<&str> = entries.iter().filter_map(|entry| entry.text("test_time")).collect();
    let when = match (times.first(), times.last()) {
        (Some(first), Some(last)) if first != last => format!(", measured from {first} to {last}"),
        (Some(first), _) => format!(", measured at {first}"),
        _ => String::new(),
    };
    let rows = many(entries.len(), "row", "rows");
    let mut about = vec![format!("{rows} of {}{when}.", many(machines, "machine", "machines"))];
    about.push(
        "Speeds are medians of tokens per second; lines across bars go from the slowest to the fastest repetition. pp512 is a prompt of \
         512 tokens, tg64 an answer of 64, and @ d1024 a context of 1024 tokens before it."
            .to_owned(),
    );
    let failed = entries.iter().filter(|entry| !entry.has_result()).count();
    if failed > 0 {
        about.push(format!("{} no result; the table of failures says why.", many(failed, "row has", "rows have")));
    }
    if others > 0 {
        about.push(format!("The files have {} of other kinds, which are left out.", many(others, "object", "objects")));
    }
    about
}

/// Every series of every machine on a line.
fn summary(machines: &[(Vec<Value>, Vec<Entry<'_>>)]) -> Table {
    let columns = ["Machine", "Series", "Prompt", "#tokens/s", "Answer", "#tokens/s", "#peak MiB"];
    let mut table = Table::new("Speed of every machine at the usual lengths.", &columns);
    for (_, entries) in machines {
        let names = differing(entries, &["prefill", "kv"]);
        // Headings have all of it.
        let device = entries.iter().find_map(|entry| entry.text("device")).map(str::to_owned);
        let machine = device.or_else(|| entries.first().map(|entry| machine_name(entry.record()))).unwrap_or_default();
        for (label, entries) in series(entries, &names) {
            let entries: Vec<_> = entries.into_iter().filter(|entry| entry.has_result()).collect();
            if entries.is_empty() {
                let cells = [machine.clone(), label, "no result".to_owned()].into_iter();
                table.rows.push(cells.chain(std::iter::repeat_n(String::new(), columns.len() - 3)).collect());
                continue;
            }
            let (prompt, answer) = (usual_prompt(&entries), usual_answer(&entries));
            let name = |entry: Option<Entry<'_>>| entry.map_or(String::new(), Entry::test_name);
            let rate = |entry: Option<Entry<'_>>| or_nothing(entry.and_then(Entry::rate), plain);
            let peak = entries.iter().filter_map(|entry| entry.number("peak_memory")).reduce(f64::max);
            table.rows.push(vec![
                machine.clone(),
                label,
                name(prompt),
                rate(prompt),
                name(answer),
                rate(answer),
                or_nothing(peak.map(mebibytes), plain),
            ]);
        }
    }
    table.without_empty_columns()
}

/// The sections of one machine.
fn machine(entries: &[Entry<'_>], sections: &mut Vec<Section>) {
    let Some(first) = entries.first() else { return };
    sections.push(Section {
        title: machine_name(first.record()),
        level: 2,
        parts: vec![Part::Table(details::environment(entries))],
    });
    let results: Vec<Entry<'_>> = entries.iter().copied().filter(|entry| entry.has_result()).collect();
    let mut add = |title: &str, parts: Vec<Part>| {
        if !parts.is_empty() {
            sections.push(Section { title: title.to_owned(), level: 3, parts });
        }
    };
    add("Speed by provider", speeds(&results));
    add("Speed by depth and length", curves(&results));
    add("Roofline", roofline(&results));
    add("Memory", memory(&results));
    add("Agreement with the exact model", tables([details::agreement(&results)]));
    add("Placement and compilation", tables([details::placement(&results)]));
    add("Temperature and frequency", tables([details::sensors(&results)]));
    add("Files", tables([details::files(&results)]));
    add("Failures", tables([details::failures(entries)]));
    add("All rows", tables([details::rows(&results)]));
}

fn tables<const N: usize>(tables: [Option<Table>; N]) -> Vec<Part> {
    tables.into_iter().flatten().map(Part::Table).collect()
}

fn figure(drawing: Drawing, table: Table) -> Part {
    Part::Figure(Figure { drawing, table })
}

/// The row of the prompt whose length is nearest to the usual, without a context before it.
fn usual_prompt<'a>(entries: &[Entry<'a>]) -> Option<Entry<'a>> {
    let prompts = entries.iter().filter(|entry| is_prompt(**entry) && entry.test.depth == 0);
    prompts.min_by_key(|entry| entry.test.prompt.abs_diff(USUAL_PROMPT)).copied()
}

/// The row of the answer with the least context before it.
fn usual_answer<'a>(entries: &[Entry<'a>]) -> Option<Entry<'a>> {
    entries.iter().filter(|entry| is_answer(**entry)).min_by_key(|entry| entry.test.depth).copied()
}

fn is_prompt(entry: Entry<'_>) -> bool {
    entry.test.prompt > 0 && entry.test.generate == 0
}

fn is_answer(entry: Entry<'_>) -> bool {
    entry.test.prompt == 0 && entry.test.generate > 0
}

/// Bars for prompts and for answers, all of one test each, the provider in every label.
fn speeds(results: &[Entry<'_>]) -> Vec<Part> {
    let kinds: [(&str, Option<Entry<'_>>); 2] =
        [("Prefill", usual_prompt(results)), ("Decoding", usual_answer(results))];
    let mut parts = Vec::new();
    for (kind, usual) in kinds {
        let Some(usual) = usual else { continue };
        let same: Vec<_> = results.iter().copied().filter(|entry| entry.test == usual.test).collect();
        let mut names = differing(&same, &[]);
        names.retain(|name| *name != "provider");
        names.insert(0, "provider");
        let mut providers: Vec<&str> = same.iter().filter_map(|entry| entry.text("provider")).collect();
        providers.sort_unstable();
        providers.dedup();
        let colour = |entry: Entry<'_>| providers.iter().position(|name| entry.text("provider") == Some(name));
        let bars: Vec<Bar> = series(&same, &names)
            .into_iter()
            .filter_map(|(label, entries)| {
                let entry = *entries.first()?;
                let value = points(&entries, |_| 0, |entry| entry.rate()).first()?.1;
                let text = format!("{} tokens/s", plain(value));
                let colour = colour(entry).unwrap_or_default();
                Some(Bar { label, value, text, range: range(&entries), limit: None, colour })
            })
            .collect();
        let title = format!("{kind}: {}", usual.test_name());
        let columns = ["Series", "#tokens/s", "#slowest", "#fastest"];
        let mut table = Table::new(format!("{title}, tokens per second."), &columns);
        for bar in &bars {
            let [low, high] = [bar.range.map(|range| range.0), bar.range.map(|range| range.1)];
            let range = [low, high].map(|end| or_nothing(end, plain));
            table.rows.push([vec![bar.label.clone(), plain(bar.value)], range.to_vec()].concat());
        }
        parts.push(bars_or_table(title, "tokens per second", None, bars, table));
    }
    parts
}

/// Bars, if there are not too many; then only the table.
fn bars_or_table(title: String, unit: &str, limit: Option<&str>, bars: Vec<Bar>, table: Table) -> Part {
    if bars.len() > MOST_BARS {
        return Part::Table(table);
    }
    figure(Drawing::Bars(Bars { title, unit: unit.to_owned(), limit: limit.map(str::to_owned), bars }), table)
}

/// Lines over the depth and over the length of prompts.
fn curves(results: &[Entry<'_>]) -> Vec<Part> {
    let answers: Vec<_> = results.iter().copied().filter(|entry| is_answer(*entry)).collect();
    let prompts: Vec<_> = results.iter().copied().filter(|entry| is_prompt(*entry)).collect();
    let shallow: Vec<_> = prompts.iter().copied().filter(|entry| entry.test.depth == 0).collect();
    // Of the lengths, the one that has most depths.
    let lengths: BTreeSet<usize> = prompts.iter().map(|entry| entry.test.prompt).collect();
    let of_length = |length: usize| prompts.iter().copied().filter(move |entry| entry.test.prompt == length);
    let depths = |length: usize| of_length(length).map(|entry| entry.test.depth).collect::<BTreeSet<_>>().len();
    let deepest = lengths.into_iter().max_by_key(|length| depths(*length));
    let deep: Vec<_> = deepest.into_iter().flat_map(of_length).collect();
    let depth: fn(Entry<'_>) -> usize = |entry| entry.test.depth;
    let figures = [
        ("Decoding over depth", &answers, "tokens in the context", depth, true),
        ("Prefill over the length of the prompt", &shallow, "tokens of the prompt", |entry| entry.test.prompt, false),
        ("Prefill over depth", &deep, "tokens in the context", depth, false),
    ];
    let mut parts = Vec::new();
    for (title, entries, x, at, has_limit) in figures {
        let places: BTreeSet<usize> = entries.iter().map(|entry| at(*entry)).collect();
        if places.len() < 2 {
            continue;
        }
        let title = match deepest {
            Some(length) if title == "Prefill over depth" => format!("Prefill of {length} tokens over depth"),
            _ => title.to_owned(),
        };
        // What runs prompts is chosen by their length: a line must not end where the choice changes.
        let names = differing(entries, if has_limit { &["prefill"] } else { &[] });
        let lines: Vec<Line> = series(entries, &names)
            .into_iter()
            .map(|(label, entries)| {
                let limit = |entry: Entry<'_>| entry.number("roofline_tokens_per_second").filter(|_| has_limit);
                Line { label, points: points(&entries, at, |entry| entry.rate()), limit: points(&entries, at, limit) }
            })
            .collect();
        let table = curve_table(&title, x, &places, &lines);
        if lines.len() > MOST_LINES {
            parts.push(Part::Table(table));
            continue;
        }
        let limit = has_limit.then(|| "what reading the weights and the state from memory allows".to_owned());
        let (x, y) = (x.to_owned(), "tokens per second".to_owned());
        parts.push(figure(Drawing::Lines(Lines { title, x, y, limit, lines }), table));
    }
    parts
}

/// The numbers of lines: one row for each.
fn curve_table(title: &str, x: &str, places: &BTreeSet<usize>, lines: &[Line]) -> Table {
    let heads: Vec<String> = places.iter().map(|place| format!("#{place}")).collect();
    let columns: Vec<&str> = [&["Series"][..], &heads.iter().map(String::as_str).collect::<Vec<_>>()].concat();
    let mut table = Table::new(format!("{title}: tokens per second by {x}."), &columns);
    for line in lines {
        let value = |place: &usize| line.points.iter().find(|(x, _)| *x == *place as f64).map(|(_, y)| *y);
        let values = places.iter().map(|place| or_nothing(value(place), plain));
        table.rows.push([line.label.clone()].into_iter().chain(values).collect());
    }
    table
}

/// Bars of decoding with the limit of memory.
fn roofline(results: &[Entry<'_>]) -> Vec<Part> {
    let limit = |entry: Entry<'_>| entry.number("roofline_tokens_per_second");
    let entries: Vec<_> =
        results.iter().copied().filter(|entry| is_answer(*entry) && limit(*entry).is_some()).collect();
    if entries.is_empty() {
        return Vec::new();
    }
    let names = differing(&entries, &["prefill"]);
    let columns = ["Series", "Test", "#tokens/s", "#limit", "#percent", "#MB per token", "#GB/s read", "#GB/s used"];
    let mut table = Table::new("Decoding and what memory allows.", &columns);
    let mut bars = Vec::new();
    let mut labels: Vec<String> = Vec::new();
    for &entry in &entries {
        let (Some(value), Some(limit)) = (entry.rate(), limit(entry)) else { continue };
        let name = label(entry, &names);
        let bytes = entry.number("bytes_per_token");
        table.rows.push(vec![
            name.clone(),
            entry.test_name(),
            plain(value),
            plain(limit),
            percent(value / limit),
            or_nothing(bytes.map(|bytes| bytes / 1e6), plain),
            or_nothing(entry.number("read_bandwidth").map(|rate| rate / 1e9), plain),
            or_nothing(bytes.map(|bytes| bytes * value / 1e9), plain),
        ]);
        let colour = labels.iter().position(|known| *known == name).unwrap_or_else(|| {
            labels.push(name.clone());
            labels.len() - 1
        });
        let label = format!("{name}, {}", entry.test_name());
        let text = format!("{} of {} ({} %)", plain(value), plain(limit), percent(value / limit));
        bars.push(Bar { label, value, text, range: None, limit: Some(limit), colour });
    }
    let mark = "what reading the weights and the state from memory allows";
    vec![bars_or_table(
        "Decoding and what memory allows, tokens per second".to_owned(),
        "tokens per second",
        Some(mark),
        bars,
        table,
    )]
}

/// Bars of the largest memory of every series, by kind.
fn memory(results: &[Entry<'_>]) -> Vec<Part> {
    let names = differing(results, &["prefill"]);
    let columns =
        ["Series", "#peak MiB", "#peak after loading MiB", "#device MiB", "#state MiB", "#load ms", "#first run ms"];
    let mut table =
        Table::new("Largest memory of each series, over all its tests. Kinds are never added up.", &columns);
    let mut bars = Vec::new();
    for (label, entries) in series(results, &names) {
        let largest = |name: &str| entries.iter().filter_map(|entry| entry.number(name)).reduce(f64::max);
        let middle = |name: &str| points(&entries, |_| 0, |entry| entry.number(name)).first().map(|(_, value)| *value);
        let [peak, run, device, state] =
            ["peak_memory", "peak_run_memory", "device_memory", "state_bytes"].map(|name| largest(name).map(mebibytes));
        let times = ["load_ns", "first_run_ns"].map(|name| or_nothing(middle(name), milliseconds));
        let sizes = [peak, run, device, state].map(|size| or_nothing(size, plain));
        table.rows.push([vec![label.clone()], sizes.to_vec(), times.to_vec()].concat());
        for (kind, value, colour) in [("resident", peak, 0), ("on devices", device, 1)] {
            if let Some(value) = value {
                let text = format!("{} MiB {kind}", plain(value));
                let limit = run.filter(|_| kind == "resident");
                bars.push(Bar { label: label.clone(), value, text, range: None, limit, colour });
            }
        }
    }
    let table = table.without_empty_columns();
    if bars.is_empty() {
        return Vec::new();
    }
    vec![bars_or_table("Largest memory".to_owned(), "mebibytes", Some("after loading"), bars, table)]
}
