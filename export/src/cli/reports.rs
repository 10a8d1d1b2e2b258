//! `lfm2-export inspect` and `lfm2-export diff`.

use super::args::{DiffArguments, InspectArguments};
use super::{Outcome, print};
use crate::report;

/// Prints what a package holds: one graph, or all those of a folder.
pub(super) fn inspect(arguments: &InspectArguments) -> anyhow::Result<Outcome> {
    let graphs: Vec<_> = report::open_all(&arguments.package)?.iter().map(report::inspect).collect();
    if arguments.json {
        return print(&(serde_json::to_string_pretty(&serde_json::json!({ "graphs": graphs }))? + "\n"));
    }
    let texts: Vec<_> = graphs.iter().map(ToString::to_string).collect();
    print(&texts.join("\n"))
}

/// Prints what differs between two packages. Different ones end the program with status 1.
pub(super) fn diff(arguments: &DiffArguments) -> anyhow::Result<Outcome> {
    let diff = report::diff(&report::open(&arguments.a)?, &report::open(&arguments.b)?);
    let text = if arguments.json { serde_json::to_string_pretty(&diff)? + "\n" } else { diff.to_string() };
    print(&text)?;
    Ok(if diff.is_empty() { Outcome::Done } else { Outcome::Different })
}
