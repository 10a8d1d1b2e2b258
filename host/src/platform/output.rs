//! Standard output, which is for answers alone.
#![allow(unsafe_code, reason = "the buffer of the C library can be emptied by the C library only")]

/// Does `work`, during which what libraries print goes to standard error: some of vendors announce themselves where answers are
/// expected. Affects the whole process; of other systems than Unix no such library is known, and nothing happens there.
pub(crate) fn keep_output_clean<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(unix)]
    {
        use std::io::{self, Write};

        use nix::unistd::{dup, dup2_stdout};

        // What this program has written until now belongs there.
        let moved = io::stdout().flush().is_ok().then(|| dup(io::stdout())).and_then(Result::ok);
        let moved = moved.filter(|_| dup2_stdout(io::stderr()).is_ok());
        let done = work();
        if let Some(output) = moved {
            // What a library has printed waits in the C library's buffer, and would come out when the program ends.
            // SAFETY: a null pointer means all streams that are open for writing.
            if unsafe { nix::libc::fflush(std::ptr::null_mut()) } != 0 {
                tracing::debug!("what libraries have printed cannot be written");
            }
            if let Err(error) = dup2_stdout(output) {
                tracing::error!("standard output is lost: {error}");
            }
        }
        done
    }
    #[cfg(not(unix))]
    work()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_there_again() {
        let before = nix::sys::stat::fstat(std::io::stdout()).unwrap();
        let seen = keep_output_clean(|| nix::sys::stat::fstat(std::io::stdout()).unwrap());
        let errors = nix::sys::stat::fstat(std::io::stderr()).unwrap();
        assert_eq!((seen.st_dev, seen.st_ino), (errors.st_dev, errors.st_ino));
        let after = nix::sys::stat::fstat(std::io::stdout()).unwrap();
        assert_eq!((after.st_dev, after.st_ino), (before.st_dev, before.st_ino));
    }
}
