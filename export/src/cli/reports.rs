//! `lfm2-export inspect`, `lfm2-export diff` and `lfm2-export check`.

use anyhow::bail;

use super::args::{CheckArguments, DiffArguments, InspectArguments};
use super::{Outcome, print};
use crate::{check, report};

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

/// Prints what the rules of a provider say about the graphs that are for it. One that is not whole ends the program with status 1.
pub(super) fn check(arguments: &CheckArguments) -> anyhow::Result<Outcome> {
    let target = arguments.ep.into();
    let Some(rules) = check::rules(target) else { bail!("there are no rules for {target}") };
    let check::Selected { graphs: opened, without } = check::graphs_for(&arguments.package, target)?;
    for graph in &without {
        tracing::warn!("{} has no graphs for {target} beside it, and is not checked", graph.display());
    }
    let checked: Vec<_> =
        opened.iter().map(|it| check::check(&it.path.display().to_string(), &it.model, rules)).collect();
    if arguments.json {
        print(&(serde_json::to_string_pretty(&serde_json::json!({ "graphs": checked, "without": without }))? + "\n"))?;
    } else {
        print(&checked.iter().map(ToString::to_string).collect::<String>())?;
    }
    Ok(if checked.iter().all(check::Checked::is_whole) { Outcome::Done } else { Outcome::Different })
}

/// Prints what differs between two packages. Different ones end the program with status 1.
pub(super) fn diff(arguments: &DiffArguments) -> anyhow::Result<Outcome> {
    let diff = report::diff(&report::open(&arguments.a)?, &report::open(&arguments.b)?);
    let text = if arguments.json { serde_json::to_string_pretty(&diff)? + "\n" } else { diff.to_string() };
    print(&text)?;
    Ok(if diff.is_empty() { Outcome::Done } else { Outcome::Different })
}
