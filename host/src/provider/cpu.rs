//! The processor.

use ort::session::builder::{BuilderResult, GraphOptimizationLevel, SessionBuilder};

use super::{Prepack, Provider, ProviderError, SessionOptions};
use crate::platform;
use crate::runtime::Runtime;

/// ONNX Runtime's own kernels.
pub(super) struct Cpu;

/// ONNX Runtime's name of the provider.
const EP_NAME: &str = "CPUExecutionProvider";

/// ONNX Runtime's key for packing weights with all threads.
const PREPACK_BY_ALL: &str = "session.prepack.enable_parallel";

impl Provider for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn dialects(&self) -> &'static [&'static str] {
        &["contrib", "portable"]
    }

    fn configure(
        &self,
        runtime: &Runtime,
        builder: SessionBuilder,
        options: &SessionOptions,
    ) -> Result<SessionBuilder, ProviderError> {
        // Without an explicit choice ONNX Runtime picks a provider itself: CoreML on a Mac, a plugin if one is registered.
        let environment = runtime.environment();
        let is_cpu = |ep: Result<&str, _>| ep.is_ok_and(|ep| ep == EP_NAME);
        if !environment.devices().any(|device| is_cpu(device.ep())) {
            let found: Vec<_> = environment.devices().filter_map(|device| device.ep().ok()).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            return Err(ProviderError::NoDevice { provider: self.name(), found });
        }
        let devices = environment.devices().filter(|device| is_cpu(device.ep()));
        #[expect(clippy::result_large_err, reason = "the error of a builder gives the builder back")]
        let set_up = || -> BuilderResult {
            builder
                .with_devices(devices, None)?
                .with_intra_threads(options.threads.unwrap_or_else(platform::default_threads))?
                .with_optimization_level(GraphOptimizationLevel::All)?
                // One plan is kept for every combination of input shapes, and each decode step is a new one.
                .with_memory_pattern(false)?
                // Threads wait actively between the hundreds of small operations of a step; without it each waking costs more
                // than the operation. They sleep soon after the last one.
                .with_intra_op_spinning(options.spinning)?
                // Versions before 1.31 do not know the key, and pack one weight after the other.
                .with_config_entry(PREPACK_BY_ALL, if options.prepack == Prepack::Parallel { "1" } else { "0" })
        };
        set_up().map_err(|error| ProviderError::Setup { provider: self.name(), reason: error.to_string() })
    }
}
