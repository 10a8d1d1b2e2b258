//! `lfm2-export inspect` and `lfm2-export diff`.

use anyhow::bail;

use super::args::{DiffArguments, InspectArguments};
use super::{Outcome, print};
use crate::report;

/// Prints what a package holds: one graph, or all those of a folder. Fails after that if files of it are damaged.
pub(super) fn inspect(arguments: &InspectArguments) -> anyhow::Result<Outcome> {
    let opened = report::open_all(&arguments.package)?;
    let graphs: Vec<_> = opened.iter().map(report::inspect).collect::<Result<_, _>>()?;
    if arguments.json {
        print(&(serde_json::to_string_pretty(&serde_json::json!({ "graphs": graphs }))? + "\n"))?;
    } else {
        let texts: Vec<_> = graphs.iter().map(ToString::to_string).collect();
        print(&texts.join("\n"))?;
    }
    let problems: Vec<_> = graphs.iter().flat_map(|graph| &graph.problems).map(String::as_str).collect();
    if problems.is_empty() { Ok(Outcome::Done) } else { bail!("{}; export the model again", problems.join("; ")) }
}

/// Prints what differs between two packages. Different ones end the program with status 1.
pub(super) fn diff(arguments: &DiffArguments) -> anyhow::Result<Outcome> {
    let diff = report::diff(&report::open(&arguments.a)?, &report::open(&arguments.b)?);
    let text = if arguments.json { serde_json::to_string_pretty(&diff)? + "\n" } else { diff.to_string() };
    print(&text)?;
    Ok(if diff.is_empty() { Outcome::Done } else { Outcome::Different })
}
