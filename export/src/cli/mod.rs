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

/// What the program ends with, beside clap's 2 for arguments that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Done.
    Done,
    /// `diff` found differences.
    Different,
}

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging(arguments.verbose);
    let outcome = match arguments.command {
        Some(Command::Inspect(inspect)) => reports::inspect(&inspect),
        Some(Command::Diff(diff)) => reports::diff(&diff),
        None => export::export(&arguments.export),
    };
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Different) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // When stderr is gone as well, the exit status is all that is left to tell.
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::from(FAILURE)
        }
    }
}

/// Exit status of a failure. As in `diff`, 1 is for differences, so that failures are told from them.
const FAILURE: u8 = 2;

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
