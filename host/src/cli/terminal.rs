//! Lines from the terminal, with editing and history.

use std::io;

use rustyline::{Config, Editor, error::ReadlineError, history::MemHistory};

use super::chat::{Line, Lines};

/// The line editor. The history lasts as long as the program: what is said in a chat is not written to disk.
pub(super) struct Terminal(Editor<(), MemHistory>);

impl Terminal {
    pub(super) fn new() -> io::Result<Self> {
        let config = Config::builder().auto_add_history(true).build();
        let history = MemHistory::with_config(&config);
        Editor::with_history(config, history).map(Self).map_err(io_error)
    }
}

impl Lines for Terminal {
    fn next(&mut self, prompt: &str) -> io::Result<Line> {
        match self.0.readline(prompt) {
            Ok(text) => Ok(Line::Text(text)),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(error) => match io_error(error) {
                error if error.kind() == io::ErrorKind::InvalidData => Ok(Line::Undecodable),
                error => Err(error),
            },
        }
    }
}

fn io_error(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        other => io::Error::other(other),
    }
}
