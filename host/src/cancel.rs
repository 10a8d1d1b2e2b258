//! Stopping an answer on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request to stop, shared between who asks and who works. Clones are the same request.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A request that nobody has made yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop at its next step.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the work should stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes the request back, before new work begins.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// From now on Ctrl-C makes this request instead of ending the program. One request per process can have it.
    ///
    /// While a line is read, the line editor gets Ctrl-C as a key, so that the request is made only while work goes on.
    pub fn on_interrupt(&self) -> Result<(), CancelError> {
        let request = self.clone();
        ctrlc::set_handler(move || request.cancel()).map_err(|source| CancelError { source })
    }
}

/// Ctrl-C could not be taken over.
#[derive(Debug, thiserror::Error)]
#[error("Ctrl-C cannot be handled: {source}")]
pub struct CancelError {
    source: ctrlc::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_one_request() {
        let (asked, seen) = (Cancel::new(), Cancel::new());
        let shared = asked.clone();
        asked.cancel();
        assert!(shared.is_cancelled() && !seen.is_cancelled());
        shared.clear();
        assert!(!asked.is_cancelled());
    }

    #[test]
    fn one_handler_per_process() {
        Cancel::new().on_interrupt().unwrap();
        let message = Cancel::new().on_interrupt().unwrap_err().to_string();
        assert!(message.contains("Ctrl-C"), "{message}");
    }
}
