//! The command line of `lfm2-export`: raw arguments, then one function for each command.
//!
//! Results go to stdout, everything else to stderr.

mod args;
mod export;
mod reports;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Arguments, Command};

/// How a command ends that has not failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Done.
    Done,
    /// `diff` found differences.
    Different,
}

/// Runs the program with the arguments of the process. clap itself ends it with 2 if they cannot be understood.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging(arguments.verbose);
    // As with `diff`, 1 says that there are differences, so that failures have to be told from them.
    let (outcome, failure) = match arguments.command {
        Some(Command::Inspect(inspect)) => (reports::inspect(&inspect), 1),
        Some(Command::Diff(diff)) => (reports::diff(&diff), 2),
        None => (export::export(&arguments.export), 1),
    };
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Different) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // When stderr is gone as well, the exit status is all that is left to tell.
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { failure })
        }
    }
}

/// What the arguments alone show to be wrong, though clap cannot see it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Prints a result.
fn print(text: &str) -> anyhow::Result<Outcome> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(Outcome::Done)
}

/// Whether the reader of our output, such as `head`, has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn start_logging(verbose: u8) {
    let default = ["warn", "info", "debug"][usize::from(verbose.min(2))];
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
}
