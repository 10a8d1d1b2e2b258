//! Standard output, kept for results: libraries of vendors print there too.

use std::fs::File;
use std::io::{self, IsTerminal, LineWriter, Write};
use std::sync::OnceLock;

use super::CliError;
use crate::platform;

/// Where results go if what libraries print to standard output goes elsewhere.
static APART: OnceLock<File> = OnceLock::new();

/// Standard output.
pub(super) enum Output {
    /// As it is.
    Shared(io::Stdout),
    /// Without what libraries print.
    Apart(LineWriter<&'static File>),
}

/// Where results go.
pub(super) fn output() -> Output {
    APART.get().map_or_else(|| Output::Shared(io::stdout()), |file| Output::Apart(LineWriter::new(file)))
}

/// Sends what others in this process print to standard output to standard error, or nowhere if nobody asked for more than warnings.
/// Does nothing where a person is watching, who can tell the one from the other.
pub(super) fn keep_apart() -> Result<(), CliError> {
    if io::stdout().is_terminal() || APART.get().is_some() {
        return Ok(());
    }
    let is_wanted = tracing::enabled!(tracing::Level::INFO);
    let own = platform::divert_output(is_wanted);
    if let Some(own) = own.map_err(|source| CliError::Stream { stream: "standard output", source })? {
        // If another thread was faster, both files are the same.
        drop(APART.set(own));
    }
    Ok(())
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Shared(output) => output.write(bytes),
            Self::Apart(output) => output.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Shared(output) => output.flush(),
            Self::Apart(output) => output.flush(),
        }
    }
}
