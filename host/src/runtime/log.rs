//! What ONNX Runtime logs, passed on to `tracing` under the target `onnxruntime`.

use ort::logging::LogLevel;

/// Passes a message on.
pub(super) fn forward(level: LogLevel, category: &str, id: &str, location: &str, message: &str) {
    if is_expected(message) {
        return;
    }
    match level {
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", category, id, location, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", category, id, location, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", category, id, location, "{message}"),
        LogLevel::Error | LogLevel::Fatal => {
            tracing::error!(target: "onnxruntime", category, id, location, "{message}")
        }
    }
}

/// The least severe level that somebody listens to.
pub(super) fn level() -> LogLevel {
    if tracing::enabled!(target: "onnxruntime", tracing::Level::TRACE) {
        LogLevel::Verbose
    } else if tracing::enabled!(target: "onnxruntime", tracing::Level::DEBUG) {
        LogLevel::Info
    } else {
        LogLevel::Warning
    }
}

/// The logits are declared with one position, because another runtime sizes its buffer by that. Asking for more is
/// allowed, and ONNX Runtime remarks on it at every run.
fn is_expected(message: &str) -> bool {
    message.contains("Expected shape from model of") && message.contains("does not match actual shape of")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remark_on_more_logits_is_expected() {
        assert!(is_expected(
            "Expected shape from model of {-1,1,96} does not match actual shape of {1,24,96} for output logits"
        ));
        assert!(!is_expected("Some nodes were not assigned to the preferred execution providers"));
    }
}
