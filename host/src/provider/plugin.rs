//! Providers that come as plugins: libraries of their own, which ONNX Runtime loads when one of them is asked for and not before,
//! because a registered plugin takes part in every choice that ONNX Runtime makes by itself.

use ort::session::builder::SessionBuilder;

use super::{Provider, ProviderError, SessionOptions, Setup, common};
use crate::runtime::{Plugin, Runtime};

/// The devices of `provider`, whose plugin is loaded if it is not yet.
pub(super) fn devices<'r>(
    runtime: &'r Runtime,
    provider: &dyn Provider,
    plugin: &'static Plugin,
    options: &SessionOptions,
) -> Result<Vec<ort::device::Device<'r>>, ProviderError> {
    let failed = |source| ProviderError::Plugin { provider: provider.name(), source };
    runtime.register(plugin, options.plugin.as_deref()).map_err(failed)?;
    common::devices(runtime, provider)
}

/// Sets up a session on these devices with these options of the provider.
pub(super) fn configure(
    provider: &dyn Provider,
    builder: SessionBuilder,
    setup: &Setup<'_>,
    devices: Vec<ort::device::Device<'_>>,
    options: &[(String, String)],
) -> Result<SessionBuilder, ProviderError> {
    let key = |key: &str| format!("{}.{key}", provider.runtime_name());
    let options: Vec<_> = options.iter().map(|(name, value)| (key(name), value.clone())).collect();
    common::set_up(provider, builder, setup, "", |builder| Ok(builder.with_devices(devices, Some(&options))?))
}
