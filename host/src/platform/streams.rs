//! The standard streams.

use std::fs::File;
use std::io;

/// Sends what is printed to standard output from now on elsewhere: to standard error if that `is_wanted`, or else nowhere. What is
/// written to the file that comes back still goes where standard output went. Nothing comes back, and nothing is done, on systems
/// where that is not possible.
pub fn divert_output(is_wanted: bool) -> io::Result<Option<File>> {
    #[cfg(unix)]
    {
        use std::io::Write;
        use std::os::fd::{AsFd, OwnedFd};

        io::stdout().flush()?;
        let own = io::stdout().as_fd().try_clone_to_owned()?;
        let elsewhere: OwnedFd = match is_wanted {
            true => io::stderr().as_fd().try_clone_to_owned()?,
            false => File::options().write(true).open("/dev/null")?.into(),
        };
        nix::unistd::dup2_stdout(elsewhere)?;
        Ok(Some(own.into()))
    }
    #[cfg(not(unix))]
    {
        let _ = is_wanted;
        Ok(None)
    }
}
