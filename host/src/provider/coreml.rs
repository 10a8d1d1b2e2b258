//! Apple's Core ML: Neural Engine, GPU and processor of Macs, iPhones and iPads.

use std::fs;

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider};
use ort::session::builder::SessionBuilder;

use super::known::{KnownOption, Values};
use super::{Device, Fallback, Provider, ProviderError, SessionOptions, Setup, common};
use crate::platform;
use crate::runtime::Runtime;

/// Core ML.
pub(super) struct CoreMl;

/// ML programs are the newer of the two formats, and the only one with all operators of our graphs. Their shapes are fixed, which the
/// Neural Engine asks for.
const DEFAULTS: [(&str, &str); 3] =
    [("ModelFormat", "MLProgram"), ("MLComputeUnits", "ALL"), ("RequireStaticInputShapes", "1")];

/// Where compiled models are kept.
const CACHE_OPTION: &str = "ModelCacheDirectory";

const REMEDY: &str =
    "only ONNX Runtime for macOS and iOS has it; on such a system, `make runtime` in the repository fetches it";

impl Provider for CoreMl {
    fn name(&self) -> &'static str {
        "coreml"
    }

    fn runtime_name(&self) -> &'static str {
        "CoreMLExecutionProvider"
    }

    fn dialects(&self) -> &'static [&'static str] {
        &["coreml"]
    }

    fn known_options(&self) -> &'static [KnownOption] {
        OPTIONS
    }

    /// With more than one part on Core ML a graph is slower than on the processor alone.
    fn fallback(&self) -> Fallback {
        Fallback::Refused
    }

    fn devices(&self, runtime: &Runtime, options: &SessionOptions) -> Result<Vec<Device>, ProviderError> {
        common::settled(self, &options.provider, &DEFAULTS)?;
        common::require_built_in(runtime, self, REMEDY)?;
        // Core ML decides itself, within MLComputeUnits.
        Ok(vec![Device::unlisted("NPU", "Apple")])
    }

    fn configure(&self, builder: SessionBuilder, setup: &Setup<'_>) -> Result<SessionBuilder, ProviderError> {
        let mut options = common::settled(self, &setup.options.provider, &DEFAULTS)?;
        common::require_built_in(setup.runtime, self, REMEDY)?;
        if !options.iter().any(|(key, _)| key == CACHE_OPTION) {
            options.extend(cache(setup.fingerprint).map(|folder| (CACHE_OPTION.to_owned(), folder)));
        }
        let with = |coreml: ep::CoreML, (key, value): &(String, String)| coreml.with_arbitrary_config(key, value);
        let coreml = options.iter().fold(ep::CoreML::default(), with).build().error_on_failure();
        common::set_up(self, builder, setup, "", |builder| Ok(builder.with_execution_providers([coreml])?))
    }
}

/// A folder for what Core ML compiles from the graph with this fingerprint. Core ML's own names tell graphs apart by their paths,
/// and would go on using what was compiled from another export.
fn cache(fingerprint: Option<&str>) -> Option<String> {
    let folder = platform::cache_folder()?.join("lfm2").join("coreml").join(fingerprint?);
    match fs::create_dir_all(&folder) {
        Ok(()) => Some(folder.display().to_string()),
        Err(error) => {
            tracing::warn!("what Core ML compiles is not kept: {} cannot be made: {error}", folder.display());
            None
        }
    }
}

/// The options of ONNX Runtime 1.32, as its documentation lists them.
const OPTIONS: &[KnownOption] = &[
    KnownOption::new("ModelFormat", Values::OneOf(&["MLProgram", "NeuralNetwork"])),
    KnownOption::new("MLComputeUnits", Values::OneOf(&["ALL", "CPUAndNeuralEngine", "CPUAndGPU", "CPUOnly"])),
    KnownOption::switch("RequireStaticInputShapes"),
    KnownOption::switch("EnableOnSubgraphs"),
    KnownOption::new("SpecializationStrategy", Values::OneOf(&["Default", "FastPrediction"])),
    KnownOption::switch("ProfileComputePlan"),
    KnownOption::switch("AllowLowPrecisionAccumulationOnGPU"),
    KnownOption::new(CACHE_OPTION, Values::Path),
];
