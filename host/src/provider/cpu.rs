//! The processor.

use ort::session::builder::SessionBuilder;

use super::{Device, Fallback, Provider, ProviderError, SessionOptions, Setup, common};
use crate::runtime::Runtime;

/// ONNX Runtime's own kernels.
pub(super) struct Cpu;

impl Provider for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn runtime_name(&self) -> &'static str {
        "CPUExecutionProvider"
    }

    fn dialects(&self) -> &'static [&'static str] {
        // Static graphs have standard operators and a few that this provider has too; they are slow here, and good for comparison.
        &["contrib", "portable", "qnn", "coreml", "nnapi"]
    }

    fn fallback(&self) -> Fallback {
        Fallback::Refused
    }

    fn devices(&self, runtime: &Runtime, options: &SessionOptions) -> Result<Vec<Device>, ProviderError> {
        common::settled(self, &options.provider, &[])?;
        Ok(common::devices(runtime, self)?.iter().map(Device::new).collect())
    }

    fn configure(&self, builder: SessionBuilder, setup: &Setup<'_>) -> Result<SessionBuilder, ProviderError> {
        common::settled(self, &setup.options.provider, &[])?;
        // Without an explicit choice ONNX Runtime picks a provider itself: CoreML on a Mac, a plugin if one is registered.
        let devices = common::devices(setup.runtime, self)?;
        common::set_up(self, builder, setup, "", |builder| Ok(builder.with_devices(devices, None)?))
    }
}
