//! The process that measures one cell, from both sides.
//!
//! It is this program again, given the cell as JSON. What it reports are JSON objects, one a line, on its standard output.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::BenchError;
use crate::cancel::Cancel;
use crate::cli::{CliError, error::Exit};
use crate::measure::{self, Cell, Measured};

/// What the process reports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    /// A repetition is done, or warming up.
    Repetition,
    /// All is done.
    Measured(Box<Measured>),
    /// It failed.
    Failed(String),
}

/// Measures a cell in a process of its own, and calls `on_repetition` as [`measure::measure`] does. Nothing comes back if `cancel`
/// ended it. `flags` are given to the process, as to this program.
pub(super) fn measure_apart(
    cell: &Cell,
    flags: &[&str],
    cancel: &Cancel,
    on_repetition: &mut dyn FnMut(),
) -> Result<Option<Measured>, BenchError> {
    let failed = |reason: String| BenchError::Cell { cell: name(cell), reason };
    let start = |error: io::Error| failed(format!("its process cannot be started: {error}"));
    let text = serde_json::to_string(cell).map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(std::env::current_exe().map_err(start)?);
    command.args(["bench", "cell"]).args(flags).arg("--").arg(text).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    let output = child.stdout.take();
    let child = Arc::new(Mutex::new(child));
    let lock = |child: &Mutex<std::process::Child>| child.lock().unwrap_or_else(PoisonError::into_inner).kill();
    let killed = child.clone();
    let guard = cancel.during(move || {
        // Then it has ended by itself.
        drop(lock(&killed));
    });
    let mut measured = None;
    for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()) {
        let line = line.map_err(|error| failed(format!("its process cannot be read: {error}")))?;
        match serde_json::from_str(&line) {
            Ok(Report::Repetition) => on_repetition(),
            Ok(Report::Measured(it)) => measured = Some(*it),
            Ok(Report::Failed(reason)) => return Err(failed(reason)),
            Err(error) => return Err(failed(format!("its process said {line:?}, which is no report: {error}"))),
        }
    }
    drop(guard);
    let status = child.lock().unwrap_or_else(PoisonError::into_inner).wait().map_err(start)?;
    match measured {
        _ if cancel.is_cancelled() => Ok(None),
        Some(measured) => Ok(Some(measured)),
        // Killed for the memory it took, for example.
        None => Err(failed(format!("its process ended too early: {status}"))),
    }
}

/// What the process does: measures the cell and reports.
pub(super) fn work(cell: &str) -> Result<Exit, CliError> {
    let mut output = io::stdout();
    let mut report = |report: &Report| {
        let line = serde_json::to_string(report).map_err(io::Error::from)?;
        writeln!(output, "{line}").and_then(|()| output.flush())
    };
    let cell = serde_json::from_str(cell).map_err(CliError::failed)?;
    let mut unread = None;
    let measured = measure::measure(&cell, &mut || {
        if let Err(error) = report(&Report::Repetition) {
            unread.get_or_insert(error);
        }
    });
    if let Some(error) = unread {
        return Err(CliError::output(error));
    }
    match measured {
        Ok(measured) => report(&Report::Measured(Box::new(measured))),
        // Who started this process tells it.
        Err(error) => report(&Report::Failed(error.to_string())),
    }
    .map_err(CliError::output)?;
    Ok(Exit::Done)
}

/// A cell in a few words.
pub(super) fn name(cell: &Cell) -> String {
    format!("{}, {} threads, {}", cell.model.display(), cell.threads, cell.test)
}
