//! The process that measures one cell, from both sides.
//!
//! It is this program again, given the cell as JSON. What it reports are JSON objects, one a line, on its standard output.

use std::io::{self, BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::cli::{CliError, error::Exit, output};
use crate::measure::{self, Cell, Failure, Measured, Status};
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

/// How long a process may take to end after its last report: drivers have to close their devices.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Measures a cell in a process of its own, and calls `on_repetition` as [`measure::measure`] does. The process is ended after
/// `timeout`. Nothing comes back if `cancel` ended it. `flags` are given to the process, as to this program.
pub(super) fn measure_apart(
    cell: &Cell,
    flags: &[&str],
    timeout: Duration,
    cancel: &Cancel,
    on_repetition: &mut dyn FnMut(),
) -> Option<Result<Measured, Failure>> {
    let mut child = match start(cell, flags) {
        Ok(child) => child,
        Err(reason) => return Some(Err(Failure::new(Status::Failed, &reason))),
    };
    let output = child.stdout.take();
    let child = Arc::new(Mutex::new(child));
    // If this fails, it has ended by itself.
    let kill = |child: &Mutex<Child>| drop(child.lock().unwrap_or_else(PoisonError::into_inner).kill());
    let killed = child.clone();
    let guard = cancel.during(move || kill(&killed));
    let (done, waits) = mpsc::channel::<()>();
    let late = child.clone();
    let watchdog = thread::spawn(move || {
        let is_late = waits.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout);
        if is_late {
            kill(&late);
        }
        is_late
    });
    let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
    let measured = follow(lines, on_repetition);
    drop(done);
    let is_late = watchdog.join().unwrap_or(false);
    let status = end(&child);
    drop(guard);
    // What it said last may be cut off.
    if cancel.is_cancelled() {
        return None;
    }
    Some(match (measured, status) {
        (Ok(Some(measured)), status) => {
            match status {
                Ok(status) if status.success() => {}
                Ok(status) => {
                    let ended = platform::ended(status);
                    tracing::warn!("{}: measured, but then its process {ended}", name(cell));
                }
                Err(error) => tracing::warn!("{}: measured, but its process cannot be waited for: {error}", name(cell)),
            }
            Ok(measured)
        }
        _ if is_late => {
            let reason = format!("its process took more than {} seconds and was ended", timeout.as_secs_f64());
            Err(Failure::new(Status::Timeout, &reason))
        }
        (Err(reason), _) => Err(Failure::new(Status::Failed, &reason)),
        // Killed for the memory it took, for example.
        (Ok(None), Ok(status)) => {
            let reason = format!("its process {} without a result", platform::ended(status));
            Err(Failure::new(Status::Crashed, &reason))
        }
        (Ok(None), Err(error)) => {
            Err(Failure::new(Status::Crashed, &format!("its process cannot be waited for: {error}")))
        }
    })
}

/// Starts the process. The error is a reason.
fn start(cell: &Cell, flags: &[&str]) -> Result<Child, String> {
    let failed = |error: io::Error| format!("its process cannot be started: {error}");
    let text = serde_json::to_string(cell).map_err(|error| error.to_string())?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["bench", "cell"]).args(flags).arg("--").arg(text).stdin(Stdio::null()).stdout(Stdio::piped());
    // Otherwise it might be gone before it is known why.
    platform::keep_from_interrupts(&mut command);
    command.spawn().map_err(failed)
}

/// Waits until a process that has said all has ended, and ends it if that takes too long. Others may end it meanwhile.
fn end(child: &Mutex<Child>) -> io::Result<ExitStatus> {
    let locked = || child.lock().unwrap_or_else(PoisonError::into_inner);
    let start = Instant::now();
    while start.elapsed() < LAST_WORDS {
        if let Some(status) = locked().try_wait()? {
            return Ok(status);
        }
        thread::sleep(LOOK);
    }
    locked().kill()?;
    locked().wait()
}

/// Reads reports up to the last. Nothing comes back if they end without one.
fn follow(
    lines: impl Iterator<Item = io::Result<String>>,
    on_repetition: &mut dyn FnMut(),
) -> Result<Option<Measured>, String> {
    for line in lines {
        let line = line.map_err(|error| format!("its process cannot be read: {error}"))?;
        // Libraries of vendors announce themselves where they like.
        if !line.starts_with(['{', '"']) {
            tracing::debug!("a process of a cell printed: {line}");
            continue;
        }
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
    let Cell { model, provider, threads, test, .. } = cell;
    let model = cell.names.model.clone().unwrap_or_else(|| model.display().to_string());
    let test = cell.names.test.clone().unwrap_or_else(|| test.to_string());
    format!("{model}, {provider}, {threads} threads, {test}")
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
        assert_eq!(follow(&[&repetition, "Qualcomm simulator v2", "", &repetition]), Ok(None));
        assert_eq!(follow(&[&repetition, &failed, &repetition]), Err("no room".to_owned()));
        assert!(follow(&[&repetition, "{\"meas"]).unwrap_err().contains("meas"));
        assert_eq!(seen, 4);
    }
}
