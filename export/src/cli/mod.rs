//! The command line of `lfm2-export`: raw arguments, then one function for each command.
//!
//! Results go to stdout, everything else to stderr.

mod args;
mod export;
mod recipes;
mod reports;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use args::{Arguments, Command};

/// How a command ends that has not failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Done.
    Done,
    /// `diff` found differences, or `check` nodes that the provider does not take.
    Different,
    /// Ctrl-C, after tidying up.
    Interrupted,
}

/// Runs the program with the arguments of the process. clap itself ends it with 2 if they cannot be understood.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = start_logging(arguments.verbose) {
        drop(writeln!(io::stderr(), "error: RUST_LOG is no filter for log lines: {error}"));
        return ExitCode::from(2);
    }
    // As with `diff`, 1 says that there are differences, so that failures have to be told from them.
    let (outcome, failure) = match arguments.command {
        Some(Command::Inspect(inspect)) => (reports::inspect(&inspect), 1),
        Some(Command::Diff(diff)) => (reports::diff(&diff), 2),
        Some(Command::Check(check)) => (reports::check(&check), 1),
        Some(Command::Recipes(names)) => (recipes::recipes(&names), 1),
        None => (export::export(&arguments.export), 1),
    };
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Different) => ExitCode::from(1),
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Err(error) => {
            // Messages of the libraries have their causes in them. When stderr is gone as well, the exit status is all that is
            // left to tell.
            drop(writeln!(io::stderr(), "error: {error}"));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { failure })
        }
    }
}

/// What the arguments alone show to be wrong, though clap cannot see it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Prints a result. A reader that has seen enough of it, such as `head`, is no failure.
fn print(text: &str) -> anyhow::Result<Outcome> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).map_err(|error| anyhow!("standard output cannot be written: {error}"))
        }
        _ => Ok(Outcome::Done),
    }
}

/// Logs to stderr what `RUST_LOG` asks for; without it, as much as `-v` asks for.
fn start_logging(verbose: u8) -> Result<(), ParseError> {
    let default = ["warn", "info", "debug"][usize::from(verbose.min(2))];
    let asked = env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = EnvFilter::builder().parse(asked.as_deref().unwrap_or(default))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        .without_time()
        .with_target(false)
        .init();
    Ok(())
}
