//! What every provider is told about a session.

/// How a graph is run.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Number of threads of one run; by default [`crate::platform::default_threads`].
    pub threads: Option<usize>,
    /// Whether threads wait actively for more work for a short time: faster, and costs energy.
    pub spinning: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { threads: None, spinning: true }
    }
}
