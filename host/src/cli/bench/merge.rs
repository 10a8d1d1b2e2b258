//! `lfm2-host bench merge FILES`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::error::{CliError, Exit};
use crate::measure::merge::{self, Merged, merge as put_together};
use crate::measure::records::{Record, Records};

const EXAMPLES: &str = "\
Examples:
  lfm2-host bench merge rows-0.jsonl rows-1.jsonl > rows.jsonl
  lfm2-host bench merge phones/*.jsonl --duplicates refuse > phones.jsonl

Two rows are of the same cell if the number `cell` is the same, or all settings where an older version wrote none, and if device,
processor, cores, memory, system and architecture are. The rows of each machine stand together.

Exit status:
  0 if all was merged, 1 if something failed, 2 if the arguments are wrong.";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub(super) struct MergeArgs {
    /// Rows in the format json or jsonl
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Rows of the same cell on the same machine
    #[arg(long, value_enum, default_value_t)]
    duplicates: Duplicates,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Duplicates {
    /// One that has a result wins, and then the newer one
    #[default]
    Newest,
    /// Refuse them, and say what differs
    Refuse,
}

/// Merges the files and prints the rows.
pub(super) fn merge(args: &MergeArgs, quiet: bool) -> Result<Exit, CliError> {
    let mut problems = Vec::new();
    let mut rows = Vec::new();
    for file in &args.files {
        match records(file) {
            Ok(records) => {
                let place = |index: usize| format!("{}, row {}", file.display(), index + 1);
                rows.extend(records.into_iter().enumerate().map(|(index, record)| (place(index), record)));
            }
            Err(problem) => problems.push(problem),
        }
    }
    let duplicates = match args.duplicates {
        Duplicates::Newest => merge::Duplicates::Newest,
        Duplicates::Refuse => merge::Duplicates::Refuse,
    };
    let merged = put_together(rows, duplicates).map_err(|found| problems.extend(found));
    let (Ok(Merged { rows, dropped, machines }), true) = (merged, problems.is_empty()) else {
        return Err(CliError::failed(problems.join("\n")));
    };
    tracing::info!(rows = rows.len(), dropped, machines, "the files are merged");
    if dropped > 0 && !quiet {
        let which = if dropped == 1 {
            "row is left out for a newer or equal one"
        } else {
            "rows are left out for newer or equal ones"
        };
        writeln!(io::stderr(), "{dropped} {which} of the same cell and machine").map_err(super::closed)?;
    }
    let mut text = String::new();
    for row in rows {
        text += &serde_json::to_string(&row).map_err(CliError::failed)?;
        text.push('\n');
    }
    super::print(&text)?;
    Ok(Exit::Done)
}

/// The objects of a file. A last line that was cut off is left out with a warning. The error is a sentence.
pub(super) fn records(path: &Path) -> Result<Vec<Record>, String> {
    let name = path.display();
    let text = fs::read(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let records =
        Records::read_bytes(&text).map_err(|problems| format!("{name} holds no rows:\n  {}", problems.join("\n  ")))?;
    if records.torn_at.is_some() {
        tracing::warn!("the last line of {name} was cut off and is left out");
    }
    Ok(records.objects)
}
