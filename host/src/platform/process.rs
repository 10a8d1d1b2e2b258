//! Other processes.

use std::process::{Command, ExitStatus};

/// Keeps Ctrl-C on the terminal from the process that is started: who starts it decides when it ends.
pub fn keep_from_interrupts(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(windows)]
    {
        /// Groups of their own do not get Ctrl-C.
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
        std::os::windows::process::CommandExt::creation_flags(command, CREATE_NEW_PROCESS_GROUP);
    }
}

/// How a process ended, as a phrase that follows "its process": `was ended by SIGSEGV (signal 11)`, `ended with exit status 3`.
pub fn ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(number) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let name = nix::sys::signal::Signal::try_from(number).map_or("a signal", |signal| signal.as_str());
        return format!("was ended by {name} (signal {number})");
    }
    match status.code() {
        // Windows tells crashes by their exception, such as 0xC0000005 for an access violation.
        Some(code) if code < 0 => format!("ended with the exception {code:#010X}"),
        Some(code) => format!("ended with exit status {code}"),
        None => "ended".to_owned(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names() {
        let ended = |script: &str| ended(Command::new("sh").args(["-c", script]).status().unwrap());
        assert_eq!(ended("kill -SEGV $$"), "was ended by SIGSEGV (signal 11)");
        assert_eq!(ended("exit 3"), "ended with exit status 3");
    }
}
