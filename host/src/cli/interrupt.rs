//! Ctrl-C.

use crate::cancel::Cancel;

/// From now on Ctrl-C makes this request instead of ending the program, and ends it if the request is still there. One request
/// per process can have it.
///
/// While a line is read, the line editor gets Ctrl-C as a key, so that the request is made only while work goes on.
pub(super) fn takes_over(cancel: &Cancel) -> Result<(), InterruptError> {
    let request = cancel.clone();
    let handler = move || {
        if request.is_cancelled() {
            leave();
        }
        request.cancel();
    };
    ctrlc::set_handler(handler).map_err(|source| InterruptError { source })
}

#[expect(
    clippy::exit,
    reason = "whoever presses Ctrl-C twice waits for nothing; whatever is being written gets its name only when whole"
)]
fn leave() {
    std::process::exit(130)
}

/// Ctrl-C could not be taken over.
#[derive(Debug, thiserror::Error)]
#[error("Ctrl-C cannot be handled: {source}")]
pub(super) struct InterruptError {
    source: ctrlc::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_handler_per_process() {
        takes_over(&Cancel::new()).unwrap();
        let message = takes_over(&Cancel::new()).unwrap_err().to_string();
        assert!(message.contains("Ctrl-C"), "{message}");
    }
}
