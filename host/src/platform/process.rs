//! Other processes.

use std::process::Command;

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
