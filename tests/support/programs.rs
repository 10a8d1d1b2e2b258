//! Programs run as they are used: arguments and standard input in; standard output, standard error and exit status out.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a program left.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

impl Outcome {
    /// Standard output, if all went well and nothing was remarked.
    pub fn answer(self) -> String {
        assert_eq!((self.status, self.errors.as_str()), (Some(0), ""), "{}", self.output);
        self.output
    }

    /// [`Outcome::answer`] as JSON.
    pub fn json(self) -> Value {
        serde_json::from_str(&self.answer()).unwrap()
    }

    /// Standard error, if the program failed with this status and wrote nothing else.
    pub fn failure(self, status: i32) -> String {
        assert_eq!((self.status, self.output.as_str()), (Some(status), ""), "{}", self.errors);
        assert!(self.errors.starts_with("error: "), "{}", self.errors);
        self.errors
    }
}

/// `program` with these arguments, no input, and nothing of the tester's settings.
pub fn program(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    let settings = ["RUST_LOG", "HF_TOKEN", "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"];
    settings.into_iter().for_each(|name| {
        command.env_remove(name);
    });
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end.
pub fn run(mut command: Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        status: output.status.code(),
        output: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs to the end with this text on standard input.
pub fn run_with(mut command: Command, input: &str) -> Outcome {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Outcome {
        status: output.status.code(),
        output: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}
