//! What every provider is told about a session.

/// How a graph is loaded and run.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Number of threads of one run; by default [`crate::platform::default_threads`].
    pub threads: Option<usize>,
    /// Whether threads wait actively for more work for a short time: faster, and costs energy.
    pub spinning: bool,
    /// How weights are packed for the kernels while a session is created.
    pub prepack: Prepack,
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
    /// Settings for long battery life: half of the threads, rounded up, and none of them waits actively.
    pub fn battery() -> Self {
        let threads = crate::platform::default_threads().div_ceil(2);
        Self { threads: Some(threads), spinning: false, ..Self::default() }
    }
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { threads: None, spinning: true, prepack: Prepack::default() }
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
