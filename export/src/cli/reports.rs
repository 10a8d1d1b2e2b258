//! `lfm2-export inspect` and `lfm2-export diff`.

use super::args::{DiffArguments, InspectArguments};
use super::{Outcome, print};
use crate::report;

/// Prints what a package holds.
pub(super) fn inspect(arguments: &InspectArguments) -> anyhow::Result<Outcome> {
    let inspection = report::inspect(&report::open(&arguments.package)?);
    if arguments.json {
        return print(&(serde_json::to_string_pretty(&inspection)? + "\n"));
    }
    print(&inspection.to_string())
}

/// Prints what differs between two packages. Different ones end the program with status 1.
pub(super) fn diff(arguments: &DiffArguments) -> anyhow::Result<Outcome> {
    let diff = report::diff(&report::open(&arguments.a)?, &report::open(&arguments.b)?);
    let text = if arguments.json { serde_json::to_string_pretty(&diff)? + "\n" } else { diff.to_string() };
    print(&text)?;
    Ok(if diff.is_empty() { Outcome::Done } else { Outcome::Different })
}
