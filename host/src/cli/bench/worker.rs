//! The process that measures one cell, from both sides.
//!
//! It is this program again, given the cell as JSON. What it reports are JSON objects, one a line, on its standard output.

use std::io::{self, BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::BenchError;
use crate::cancel::Cancel;
use crate::cli::{CliError, error::Exit, output};
use crate::measure::{self, Cell, Measured};
use crate::platform;
use crate::provider;

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
    // Otherwise it might be gone before it is known why.
    platform::keep_from_interrupts(&mut command);
    let mut child = command.spawn().map_err(start)?;
    let output = child.stdout.take();
    let child = Arc::new(Mutex::new(child));
    let kill = |child: &Mutex<Child>| child.lock().unwrap_or_else(PoisonError::into_inner).kill();
    let killed = child.clone();
    let guard = cancel.during(move || {
        // If this fails, it has ended by itself.
        drop(kill(&killed));
    });
    let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
    let measured = follow(lines, on_repetition);
    drop(guard);
    let status = child.lock().unwrap_or_else(PoisonError::into_inner).wait().map_err(start)?;
    match measured {
        // What it said last may be cut off.
        _ if cancel.is_cancelled() => Ok(None),
        Ok(Some(measured)) => Ok(Some(measured)),
        // Killed for the memory it took, for example.
        Ok(None) => Err(failed(format!("its process ended too early: {status}"))),
        Err(reason) => Err(failed(reason)),
    }
}

/// Reads reports up to the last. Nothing comes back if they end without one.
fn follow(
    lines: impl Iterator<Item = io::Result<String>>,
    on_repetition: &mut dyn FnMut(),
) -> Result<Option<Measured>, String> {
    for line in lines {
        let line = line.map_err(|error| format!("its process cannot be read: {error}"))?;
        match serde_json::from_str(&line) {
            Ok(Report::Repetition) => on_repetition(),
            Ok(Report::Measured(measured)) => return Ok(Some(*measured)),
            Ok(Report::Failed(reason)) => return Err(reason),
            Err(error) => return Err(format!("its process said {line:?}, which is no report: {error}")),
        }
    }
    Ok(None)
}

/// What the process does: measures the cell and reports.
pub(super) fn work(cell: &str) -> Result<Exit, CliError> {
    let cell: Cell = serde_json::from_str(cell).map_err(CliError::failed)?;
    if provider::named(&cell.provider).is_ok_and(|provider| provider.plugin().is_some()) {
        output::keep_apart()?;
    }
    let mut output = output::output();
    let mut report = |report: &Report| {
        let line = serde_json::to_string(report).map_err(io::Error::from)?;
        writeln!(output, "{line}").and_then(|()| output.flush())
    };
    let mut unread = None;
    let measured = measure::measure(&cell, &mut || match report(&Report::Repetition) {
        Ok(()) => ControlFlow::Continue(()),
        // Who started this process is gone.
        Err(error) => {
            unread = Some(error);
            ControlFlow::Break(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_followed_to_the_last() {
        let repetition = serde_json::to_string(&Report::Repetition).unwrap();
        let failed = serde_json::to_string(&Report::Failed("no room".to_owned())).unwrap();
        let mut seen = 0;
        let mut follow = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| Ok((*line).to_owned())).collect();
            follow(lines.into_iter(), &mut || seen += 1)
        };
        assert_eq!(follow(&[&repetition, &repetition]), Ok(None));
        assert_eq!(follow(&[&repetition, &failed, &repetition]), Err("no room".to_owned()));
        assert!(follow(&[&repetition, "{\"meas"]).unwrap_err().contains("meas"));
        assert_eq!(seen, 4);
    }
}
