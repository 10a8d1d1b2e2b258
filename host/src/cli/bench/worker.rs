//! The process that measures one cell, from both sides.
//!
//! It is this program again, given the cell as JSON. What it reports are JSON objects, one a line, on its standard output.

use std::io::{self, BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::cli::{CliError, error::Exit, interrupt, output};
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

/// How often it is looked whether it is late, or to be stopped.
const LOOK: Duration = Duration::from_millis(50);

/// Why it was not waited for longer.
#[derive(Debug, PartialEq)]
enum Ended {
    /// It reported all.
    Measured(Box<Measured>),
    /// It reported why it failed, or what is no report.
    Failed(String),
    /// Its output ended without a result.
    Silent,
    /// It took too long.
    Late,
    /// It is to be stopped.
    Cancelled,
}

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
    let lines = lines(child.stdout.take());
    let ended = follow(&lines, timeout, cancel, on_repetition);
    // What has said all may still have devices to close.
    let limit = if matches!(ended, Ended::Late | Ended::Cancelled) { Duration::ZERO } else { LAST_WORDS };
    let status = match platform::wait_within(&mut child, limit) {
        Ok(None) => platform::end(&mut child),
        Ok(Some(status)) => Ok(status),
        Err(error) => Err(error),
    };
    // What it said last may be cut off.
    if cancel.is_cancelled() {
        return None;
    }
    let failure = |status, reason: &str| Some(Err(Failure::new(status, reason)));
    match ended {
        Ended::Measured(measured) => {
            match status {
                Ok(status) if status.success() => {}
                Ok(status) => {
                    let ended = platform::ended(status);
                    tracing::warn!("{}: measured, but then its process {ended}", name(cell));
                }
                Err(error) => tracing::warn!("{}: measured, but its process cannot be waited for: {error}", name(cell)),
            }
            Some(Ok(*measured))
        }
        Ended::Late => {
            let reason = format!("its process took more than {} seconds and was ended", timeout.as_secs_f64());
            failure(Status::Timeout, &reason)
        }
        Ended::Failed(reason) => failure(Status::Failed, &reason),
        // Killed for the memory it took, for example.
        Ended::Silent | Ended::Cancelled => match status {
            Ok(status) => {
                failure(Status::Crashed, &format!("its process {} without a result", platform::ended(status)))
            }
            Err(error) => failure(Status::Crashed, &format!("its process cannot be waited for: {error}")),
        },
    }
}

/// Starts the process. The error is a reason.
fn start(cell: &Cell, flags: &[&str]) -> Result<Child, String> {
    let failed = |error: io::Error| format!("its process cannot be started: {error}");
    let text = serde_json::to_string(cell).map_err(|error| error.to_string())?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["bench", "cell"]).args(flags).arg("--").arg(text);
    // Its input says nothing: that it ends tells that this process is gone.
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    // Otherwise it might be gone before it is known why.
    platform::keep_from_interrupts(&mut command);
    command.spawn().map_err(failed)
}

/// The lines of the output, as they come. A thread reads them, because reading has no limit of its own: other processes may hold the
/// output open after this one is gone.
fn lines(output: Option<ChildStdout>) -> Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Reads reports up to the last, but no longer than `timeout`, nor after `cancel`.
fn follow(
    lines: &Receiver<io::Result<String>>,
    timeout: Duration,
    cancel: &Cancel,
    on_repetition: &mut dyn FnMut(),
) -> Ended {
    let start = Instant::now();
    loop {
        if cancel.is_cancelled() {
            return Ended::Cancelled;
        }
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ended::Late;
        }
        let line = match lines.recv_timeout(LOOK.min(left)) {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return Ended::Failed(format!("its process cannot be read: {error}")),
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ended::Silent,
        };
        // Libraries of vendors announce themselves where they like.
        if !line.starts_with(['{', '"']) {
            tracing::debug!("a process of a cell printed: {line}");
            continue;
        }
        match serde_json::from_str(&line) {
            Ok(Report::Repetition) => on_repetition(),
            Ok(Report::Measured(measured)) => return Ended::Measured(measured),
            Ok(Report::Failed(reason)) => return Ended::Failed(reason),
            Err(error) => return Ended::Failed(format!("its process said {line:?}, which is no report: {error}")),
        }
    }
}

/// Ends this process with the one that has started it, however that ends: nobody would read what it measures.
fn end_with_parent() {
    thread::spawn(|| {
        if io::copy(&mut io::stdin().lock(), &mut io::sink()).is_ok() {
            // Nobody is left who would be told anything.
            platform::leave(1);
        }
    });
}

/// What the process does: measures the cell and reports.
pub(super) fn work(cell: &str) -> Result<Exit, CliError> {
    let cell: Cell = serde_json::from_str(cell).map_err(CliError::failed)?;
    end_with_parent();
    interrupt::is_for_the_parent();
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
            let (sender, receiver) = mpsc::channel();
            lines.iter().for_each(|line| sender.send(Ok((*line).to_owned())).unwrap());
            drop(sender);
            super::follow(&receiver, Duration::from_secs(600), &Cancel::new(), &mut || seen += 1)
        };
        assert_eq!(follow(&[&repetition, "Qualcomm simulator v2", "", &repetition]), Ended::Silent);
        assert_eq!(follow(&[&repetition, &failed, &repetition]), Ended::Failed("no room".to_owned()));
        assert!(matches!(follow(&[&repetition, "{\"meas"]), Ended::Failed(reason) if reason.contains("meas")));
        assert_eq!(seen, 4);
    }

    #[test]
    fn output_that_does_not_end_is_not_waited_for() {
        // Somebody else holds it open.
        let (sender, receiver) = mpsc::channel();
        let follow = |timeout, cancel: &Cancel| follow(&receiver, timeout, cancel, &mut || {});
        assert_eq!(follow(Duration::from_millis(1), &Cancel::new()), Ended::Late);
        let cancel = Cancel::new();
        cancel.cancel();
        assert_eq!(follow(Duration::from_secs(600), &cancel), Ended::Cancelled);
        drop(sender);
    }
}
