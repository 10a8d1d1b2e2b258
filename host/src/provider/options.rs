//! What every provider is told about a session.

use std::path::PathBuf;

/// How a graph is loaded and run.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Number of threads of one run; by default [`crate::platform::default_threads`].
    pub threads: Option<usize>,
    /// Whether threads wait actively for more work for a short time: faster, and costs energy.
    pub spinning: bool,
    /// How weights are packed for the kernels while a session is created.
    pub prepack: Prepack,
    /// Whether ONNX Runtime writes the graph in a form that is faster on the provider. Graphs of integers then compute something else on
    /// the processor than they say, so that it is no reference for them.
    pub optimized: bool,
    /// Options of the provider (`--ep-option`), which come before its defaults. Those that it does not know are refused.
    pub provider: Vec<(String, String)>,
    /// The library of a provider that comes in one of its own (`--ep-lib`); without it, the usual places are searched.
    pub plugin: Option<PathBuf>,
    /// What is done if a part of the graph would run on another provider; by default
    /// [`Provider::fallback`](super::Provider::fallback).
    pub fallback: Option<Fallback>,
    /// The compiled form that the session has in common with another one, if it has.
    pub shared: Option<SharedContext>,
}

/// A compiler's context with the weights of two graphs: that for chunks, which comes first, and that for single tokens. If the second
/// one fails, the first has begun to share with whatever shares next: end the process then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedContext {
    /// Whether the session is the second one.
    pub is_last: bool,
    /// Where the compiled graph is written, with the binary beside it; none where it is loaded.
    pub written: Option<PathBuf>,
}

/// What is done if a part of a graph would run on another provider than the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The session is refused (`--strict`).
    Refused,
    /// It runs there, and a warning says what does (`--allow-fallback`).
    Allowed,
}

/// How weights are packed for the kernels while a session is created. What is resident afterwards is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prepack {
    /// By all threads at once. The pages of the weights file are let go only when all weights are packed, so that the peak
    /// of memory is that of the file and the packed weights together.
    #[default]
    Parallel,
    /// One weight after the other, each let go when it is packed: slower, and the peak is little more than what stays.
    Frugal,
}

impl SessionOptions {
    /// The usual settings, with so many threads.
    pub const fn with_threads(threads: Option<usize>) -> Self {
        let prepack = Prepack::Parallel;
        let provider = Vec::new();
        Self { threads, spinning: true, prepack, optimized: true, provider, plugin: None, fallback: None, shared: None }
    }

    /// Settings for long battery life: half of the threads, rounded up, and none of them waits actively.
    pub fn battery() -> Self {
        let threads = crate::platform::default_threads().div_ceil(2);
        Self { spinning: false, ..Self::with_threads(Some(threads)) }
    }
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self::with_threads(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform;

    #[test]
    fn a_battery_gets_no_thread_that_waits_actively() {
        let (battery, usual) = (SessionOptions::battery(), SessionOptions::default());
        let threads = battery.threads.unwrap();
        assert!((1..=platform::default_threads()).contains(&threads));
        assert!(!battery.spinning && usual.spinning);
        assert_eq!(battery.prepack, usual.prepack);
    }
}
