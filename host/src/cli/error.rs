//! How the program ends.

use std::{error::Error, fmt, fmt::Display, io, process::ExitCode};

/// How the program ended without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// All was done.
    Done,
    /// All was done, and a comparison has found changes, or an examination that something does not work.
    Changed,
    /// Ctrl-C ended it, or SIGTERM in the same way; shells expect 128 + the number of the first.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Changed => Self::from(1),
            Exit::Interrupted => Self::from(130),
        }
    }
}

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The arguments are wrong: exit status 2.
    #[error(transparent)]
    Usage(#[from] Problems),
    /// Nobody reads the output any more, which is no failure.
    #[error("standard output is closed")]
    Closed,
    /// Reading or writing a standard stream failed.
    #[error("{stream} failed: {source}")]
    Stream {
        /// Which one.
        stream: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A comparison failed: exit status 2, as 1 says that something has changed.
    #[error(transparent)]
    Comparison(Box<dyn Error + Send + Sync>),
    /// Everything else.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

impl CliError {
    /// Wraps the error of a library.
    pub(super) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    /// Wraps the error of a comparison.
    pub(super) fn comparison(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Comparison(error.into())
    }

    /// What writing to standard output came back with.
    pub(super) fn output(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Stream { stream: "standard output", source },
        }
    }

    /// The exit status that `--help` promises.
    pub(super) fn status(&self) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Usage(_) | Self::Comparison(_) => ExitCode::from(2),
            Self::Stream { .. } | Self::Failed(_) => ExitCode::FAILURE,
        }
    }

    /// The message with its causes, unless a message tells its cause itself. Nothing if there is nothing to say.
    pub(super) fn report(&self) -> Option<String> {
        if matches!(self, Self::Closed) {
            return None;
        }
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let message = error.to_string();
            if !text.contains(&message) {
                text = format!("{text}: {message}");
            }
            cause = error.source();
        }
        Some(text)
    }
}

/// Everything that is wrong with the arguments.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    /// `flag` is wrong because it `problem`.
    pub(super) fn add(&mut self, flag: &str, problem: impl Display) {
        self.say(format!("{flag} {problem}"));
    }

    /// A problem that names its flag itself.
    pub(super) fn say(&mut self, problem: impl Display) {
        self.0.push(problem.to_string());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails if there are problems; those that were found twice are told once.
    pub(super) fn distinct(mut self) -> Result<(), Self> {
        let mut known = Vec::new();
        self.0.retain(|problem| {
            let new = !known.contains(problem);
            known.push(problem.clone());
            new
        });
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl Error for Problems {}

impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [line] => write!(f, "{line}")?,
            lines => write!(f, "{} arguments are wrong:\n  {}", lines.len(), lines.join("\n  "))?,
        }
        write!(f, "\nFor more information, try '--help'.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer{told}")]
    struct Outer {
        told: &'static str,
        source: io::Error,
    }

    #[test]
    fn causes_are_told_once() {
        for told in ["", ": inner"] {
            let error = CliError::failed(Outer { told, source: io::Error::other("inner") });
            assert_eq!(error.report().unwrap(), "outer: inner");
        }
        let closed = CliError::output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((closed.report(), closed.status()), (None, ExitCode::SUCCESS));
    }
}
