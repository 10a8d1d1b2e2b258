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

/// What ONNX Runtime remarks on every graph that is written as it should be. The logits are declared with one position,
/// because another runtime sizes its buffer by that, and asking for more is allowed. How many positions get logits is an
/// input with a default, so that only who wants another number feeds it.
fn is_expected(message: &str) -> bool {
    let more_logits =
        message.contains("Expected shape from model of") && message.contains("does not match actual shape of");
    // What the plugin for Qualcomm's NPUs says about every session, on systems where it could not be otherwise.
    let inevitable = [
        "File mapped weights feature is only available",
        "EPContext encryption config unavailable",
        "Skip compatibility validation on x86 platforms",
    ];
    inevitable.iter().any(|remark| message.contains(remark))
        || more_logits
        || message.contains("appears in graph inputs and will not be treated as constant value/weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_on_graphs_as_they_should_be_are_expected() {
        assert!(is_expected(
            "Expected shape from model of {-1,1,96} does not match actual shape of {1,24,96} for output logits"
        ));
        assert!(is_expected(
            "Initializer num_logits_to_keep appears in graph inputs and will not be treated as constant value/weight. This may"
        ));
        assert!(!is_expected("Some nodes were not assigned to the preferred execution providers"));
    }
}
