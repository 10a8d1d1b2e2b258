//! `lfm2-host bench report RUNS`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::Problems;
use crate::cli::error::{CliError, Exit};
use crate::measure::records::test_of;
use crate::measure::report::report as describe;

const EXAMPLES: &str = "\
Examples:
  lfm2-host bench report rows.jsonl --out report.html
      One page to look at, to print or to send: it needs nothing else.
  lfm2-host bench report phones/*.jsonl desk.jsonl --title \"LFM2 350M\" --out report.md
      The same numbers as Markdown.

The files hold rows in the format json or jsonl, of this version or an older one, what `lfm2-host eval --json` prints, or what
benches/baselines/compare.py in the repository wrote. Each machine has sections of its own. With - as FILE, Markdown goes to standard output.

Exit status:
  0 if the report was written, 1 if something failed, 2 if the arguments are wrong.";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub(super) struct ReportArgs {
    /// Rows in the format json or jsonl
    #[arg(required = true, value_name = "ROWS")]
    runs: Vec<PathBuf>,

    /// Where the report goes; its ending says what it is, .html or .md
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,

    /// Title of the report
    #[arg(long, value_name = "TEXT", default_value = "Measurements of lfm2-host")]
    title: String,
}

/// What the report is written as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Markdown,
}

/// Reads the rows and writes the report.
pub(super) fn report(args: &ReportArgs) -> Result<Exit, CliError> {
    let form = form(&args.out)?;
    let mut objects = Vec::new();
    let mut problems = Vec::new();
    for file in &args.runs {
        match super::merge::records(file) {
            Ok(found) if found.is_empty() => problems.push(format!("{} is empty", file.display())),
            Ok(found) => objects.extend(found),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() && !objects.iter().any(|object| test_of(object).is_some()) {
        problems.push("there are no rows in these files, which `lfm2-host bench -o jsonl` writes".to_owned());
    }
    if !problems.is_empty() {
        return Err(CliError::failed(problems.join("\n")));
    }
    let report = describe(&objects, &args.title);
    let text = match form {
        Form::Html => report.html(),
        Form::Markdown => report.markdown(),
    };
    if args.out == Path::new("-") {
        super::print(&text)?;
    } else {
        write(&args.out, &text)
            .map_err(|error| CliError::failed(format!("{} cannot be written: {error}", args.out.display())))?;
    }
    Ok(Exit::Done)
}

fn form(path: &Path) -> Result<Form, Problems> {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    match ending.as_deref() {
        Some("html" | "htm") => Ok(Form::Html),
        Some("md") => Ok(Form::Markdown),
        None if path == Path::new("-") => Ok(Form::Markdown),
        _ => {
            let mut problems = Problems::default();
            problems.add("--out", format!("{} is neither .html nor .md", path.display()));
            Err(problems)
        }
    }
}

/// Writes beside the file and renames, so that nobody sees half a report.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    fs::write(&part, text).and_then(|()| fs::rename(&part, path)).inspect_err(|_| drop(fs::remove_file(&part)))
}
