//! Streams an answer to its reader, and stops the work when nobody reads any more.

use std::io::{self, Write};

use crate::cancel::Cancel;

/// Writes the pieces of an answer as they come.
pub(super) struct Sink<'a> {
    output: &'a mut dyn Write,
    cancel: &'a Cancel,
    /// The last thing written.
    last: Option<u8>,
    error: Option<io::Error>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(output: &'a mut dyn Write, cancel: &'a Cancel) -> Self {
        Self { output, cancel, last: None, error: None }
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
        self.last = text.bytes().last();
    }

    /// Ends the last line of an answer, and tells whether all could be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.last != Some(b'\n') {
            self.write("\n");
        }
        self.error.map_or(Ok(()), Err)
    }

    /// Ends the last line of an answer that failed, if there is one: then nothing may be written for an empty answer.
    pub(super) fn abandon(self) -> io::Result<()> {
        if self.last.is_some() { self.finish() } else { self.error.map_or(Ok(()), Err) }
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
    fn nothing_is_written_if_nothing_was_said() {
        for (pieces, written) in [(vec!["a"], "a\n"), (vec![], "")] {
            let (mut output, cancel) = (Vec::new(), Cancel::new());
            let mut sink = Sink::new(&mut output, &cancel);
            pieces.iter().for_each(|piece| sink.write(piece));
            sink.abandon().unwrap();
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
