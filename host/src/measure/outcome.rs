//! How a cell ended.

use serde::{Deserialize, Serialize};

/// Whether a cell was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was.
    Ok,
    /// Something refused, and said why.
    Failed,
    /// Its process ended without saying anything.
    Crashed,
    /// Its process took too long, and was ended.
    Timeout,
}

impl Status {
    /// The name in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::Timeout => "timeout",
        }
    }
}

/// Why a cell was not measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which way it failed; never [`Status::Ok`].
    pub status: Status,
    /// What happened, in one sentence.
    pub reason: String,
}

impl Failure {
    /// A failure with its reason, made one line.
    pub fn new(status: Status, reason: &str) -> Self {
        let lines = reason.lines().map(str::trim).filter(|line| !line.is_empty());
        Self { status, reason: lines.collect::<Vec<_>>().join(" ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json() {
        for status in [Status::Ok, Status::Failed, Status::Crashed, Status::Timeout] {
            assert_eq!(serde_json::to_value(status).unwrap(), status.name());
        }
    }

    #[test]
    fn reasons_are_one_line() {
        let failure = Failure::new(Status::Failed, "the graph differs:\n  - no input a\n\n  - no input b\n");
        assert_eq!(failure.reason, "the graph differs: - no input a - no input b");
    }
}
