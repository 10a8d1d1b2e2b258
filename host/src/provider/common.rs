//! What all providers have in common.

use std::fmt;

use ort::memory::DeviceType;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use serde::{Deserialize, Serialize};

use super::{Prepack, Provider, ProviderError, SessionOptions, Setup, SharedContext, option_problems};
use crate::platform;
use crate::runtime::Runtime;

/// Something that a provider runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// `CPU`, `GPU` or `NPU`.
    pub kind: String,
    /// Who made it, as far as ONNX Runtime knows; of a simulator, what it runs on.
    pub vendor: String,
    /// Whether it is simulated on the processor.
    pub simulated: bool,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vendor.as_str() {
            _ if self.simulated => write!(f, "{}, simulated on the CPU", self.kind),
            "" => write!(f, "{}", self.kind),
            vendor => write!(f, "{} ({vendor})", self.kind),
        }
    }
}

impl Device {
    /// What ONNX Runtime says about a device.
    pub(super) fn new(device: &ort::device::Device<'_>) -> Self {
        let hardware = device.hardware_device();
        let kind = match hardware.ty() {
            DeviceType::GPU => "GPU",
            DeviceType::NPU => "NPU",
            _ => "CPU",
        };
        Self { kind: kind.to_owned(), vendor: hardware.vendor().unwrap_or_default().to_owned(), simulated: false }
    }

    /// A device that ONNX Runtime does not list.
    pub(super) fn unlisted(kind: &str, vendor: &str) -> Self {
        Self { kind: kind.to_owned(), vendor: vendor.to_owned(), simulated: false }
    }
}

/// ONNX Runtime's key for packing weights with all threads.
const PREPACK_BY_ALL: &str = "session.prepack.enable_parallel";

/// The devices that ONNX Runtime has for `provider`; there must be one.
pub(super) fn devices<'r>(
    runtime: &'r Runtime,
    provider: &dyn Provider,
) -> Result<Vec<ort::device::Device<'r>>, ProviderError> {
    let environment = runtime.environment();
    let is_own = |device: &ort::device::Device<'_>| device.ep().is_ok_and(|ep| ep == provider.runtime_name());
    let devices: Vec<_> = environment.devices().filter(is_own).collect();
    if devices.is_empty() {
        let mut found: Vec<_> = environment.devices().filter_map(|device| device.ep().ok()).collect();
        found.dedup();
        let found = if found.is_empty() { "none".to_owned() } else { format!("one for {}", found.join(", ")) };
        return Err(ProviderError::NoDevice { provider: provider.name(), found });
    }
    Ok(devices)
}

/// Fails unless the loaded library was built with `provider`. `remedy` says how to get one that was.
pub(super) fn require_built_in(
    runtime: &Runtime,
    provider: &dyn Provider,
    remedy: &'static str,
) -> Result<(), ProviderError> {
    if runtime.built_in().iter().any(|name| name == provider.runtime_name()) {
        return Ok(());
    }
    Err(ProviderError::NotBuiltIn {
        provider: provider.name(),
        library: runtime.library().display().to_string(),
        version: runtime.version().to_owned(),
        remedy,
    })
}

/// The options that are set for `provider`, behind its `defaults` that are not set. Fails if it does not take one.
pub(super) fn settled(
    provider: &dyn Provider,
    set: &[(String, String)],
    defaults: &[(&str, &str)],
) -> Result<Vec<(String, String)>, ProviderError> {
    let problems = option_problems(&[provider], set);
    if !problems.is_empty() {
        return Err(ProviderError::Options { problems });
    }
    let is_set = |key: &str| set.iter().any(|(other, _)| other == key);
    let defaults = defaults.iter().filter(|(key, _)| !is_set(key));
    let defaults = defaults.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Ok(defaults.chain(set.iter().cloned()).collect())
}

/// Sets up what every session needs.
fn session(builder: SessionBuilder, options: &SessionOptions) -> ort::Result<SessionBuilder> {
    let level = if options.optimized { GraphOptimizationLevel::All } else { GraphOptimizationLevel::Disable };
    let builder = builder
        .with_intra_threads(options.threads.unwrap_or_else(platform::default_threads))?
        .with_optimization_level(level)?
        // One plan is kept for every combination of input shapes, and each decode step is a new one.
        .with_memory_pattern(false)?
        // Threads wait actively between the hundreds of small operations of a step; without it each waking costs more
        // than the operation. They sleep soon after the last one.
        .with_intra_op_spinning(options.spinning)?
        // Versions before 1.31 do not know the key, and pack one weight after the other.
        .with_config_entry(PREPACK_BY_ALL, if options.prepack == Prepack::Parallel { "1" } else { "0" })?;
    match &options.shared {
        Some(shared) => share(builder, shared),
        None => Ok(builder),
    }
}

/// Lets the session share its compiled form with another one.
fn share(builder: SessionBuilder, shared: &SharedContext) -> ort::Result<SessionBuilder> {
    let mut builder = builder.with_config_entry("ep.share_ep_contexts", "1")?;
    if shared.is_last {
        builder = builder.with_config_entry("ep.stop_share_ep_contexts", "1")?;
    }
    if let Some(path) = &shared.written {
        builder = builder
            .with_config_entry("ep.context_enable", "1")?
            .with_config_entry("ep.context_file_path", path.to_string_lossy())?
            .with_config_entry("ep.context_embed_mode", "0")?;
    }
    Ok(builder)
}

/// Runs `set_up` and tells whose settings were refused. `hint` is as in [`ProviderError::Setup`].
pub(super) fn set_up(
    provider: &dyn Provider,
    builder: SessionBuilder,
    setup: &Setup<'_>,
    hint: &'static str,
    set_up: impl FnOnce(SessionBuilder) -> ort::Result<SessionBuilder>,
) -> Result<SessionBuilder, ProviderError> {
    session(builder, setup.options).and_then(set_up).map_err(|error| ProviderError::Setup {
        provider: provider.name(),
        reason: plain(&error.to_string()),
        hint,
    })
}

/// What ONNX Runtime said, on one line and without the place in its sources in front of it.
pub(crate) fn plain(message: &str) -> String {
    // `file:line function [ONNXRuntimeError] : 1 : FAIL : what went wrong`
    let said = message.split_once("[ONNXRuntimeError]").map_or(message, |(_, rest)| {
        let mut parts = rest.splitn(4, " : ");
        parts.nth(3).unwrap_or(rest)
    });
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_without_their_place() {
        let message = "/src/bridge.cc:2043 Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library x.so\nwith error: y.so : 13\n";
        assert_eq!(plain(message), "Failed to load library x.so with error: y.so : 13");
        assert_eq!(plain(" something else\n"), "something else");
        assert_eq!(plain("[ONNXRuntimeError] : 1"), ": 1");
    }
}
