//! Streams an answer to its reader, and stops the work when nobody reads any more.

use std::io::{self, Write};

use crate::cancel::Cancel;

/// Writes the pieces of an answer as they come.
pub(super) struct Sink<'a> {
    output: &'a mut dyn Write,
    cancel: &'a Cancel,
    /// Whether the last thing written was a line break.
    line_ended: bool,
    error: Option<io::Error>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(output: &'a mut dyn Write, cancel: &'a Cancel) -> Self {
        Self { output, cancel, line_ended: false, error: None }
    }

    /// Writes a piece at once. After a failure nothing more is written, and the generation is cancelled.
    pub(super) fn write(&mut self, text: &str) {
        if self.error.is_some() {
            return;
        }
        if let Err(error) = self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush()) {
            self.error = Some(error);
            self.cancel.cancel();
        }
        self.line_ended = text.ends_with('\n');
    }

    /// Ends the last line, and tells whether all could be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if !self.line_ended {
            self.write("\n");
        }
        self.error.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_ended_once() {
        for (pieces, written) in [(vec!["a", "b"], "ab\n"), (vec!["a\n"], "a\n"), (vec![], "\n")] {
            let (mut output, cancel) = (Vec::new(), Cancel::new());
            let mut sink = Sink::new(&mut output, &cancel);
            pieces.iter().for_each(|piece| sink.write(piece));
            sink.finish().unwrap();
            assert_eq!(output, written.as_bytes());
        }
    }

    #[test]
    fn a_closed_output_cancels() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut output, cancel) = (Closed, Cancel::new());
        let mut sink = Sink::new(&mut output, &cancel);
        sink.write("a");
        assert!(cancel.is_cancelled());
        assert_eq!(sink.finish().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
