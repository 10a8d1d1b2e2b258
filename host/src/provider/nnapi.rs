//! Android's Neural Networks API, which Google has deprecated with Android 15: for devices that have nothing better.

use ort::ep;
use ort::session::builder::SessionBuilder;

use super::known::KnownOption;
use super::{Device, Fallback, Provider, ProviderError, SessionOptions, Setup, common};
use crate::runtime::Runtime;

/// The Neural Networks API.
pub(super) struct Nnapi;

const REMEDY: &str =
    "only ONNX Runtime for Android has it: put libonnxruntime.so of the package onnxruntime-android beside the program";

/// An optimizer that makes products with a bias of a kind that the API takes no more.
const HARMFUL_OPTIMIZER: &str = "MatMulAddFusion";

impl Provider for Nnapi {
    fn name(&self) -> &'static str {
        "nnapi"
    }

    fn runtime_name(&self) -> &'static str {
        "NnapiExecutionProvider"
    }

    fn dialects(&self) -> &'static [&'static str] {
        &["nnapi"]
    }

    fn known_options(&self) -> &'static [KnownOption] {
        OPTIONS
    }

    fn fallback(&self) -> Fallback {
        Fallback::Refused
    }

    fn devices(&self, runtime: &Runtime, options: &SessionOptions) -> Result<Vec<Device>, ProviderError> {
        common::settled(self, &options.provider, &[])?;
        common::require_built_in(runtime, self, REMEDY)?;
        // Drivers decide what they run.
        Ok(vec![Device::unlisted("NPU", "")])
    }

    fn configure(&self, builder: SessionBuilder, setup: &Setup<'_>) -> Result<SessionBuilder, ProviderError> {
        let options = common::settled(self, &setup.options.provider, &[])?;
        common::require_built_in(setup.runtime, self, REMEDY)?;
        let is_on = |key: &str| options.iter().any(|(other, value)| other == key && value == "1");
        let nnapi = ep::NNAPI::default()
            .with_fp16(is_on("use_fp16"))
            .with_nchw(is_on("use_nchw"))
            .with_disable_cpu(is_on("cpu_disabled"))
            .with_cpu_only(is_on("cpu_only"));
        let nnapi = nnapi.build().error_on_failure();
        common::set_up(self, builder, setup, "", |builder| {
            Ok(builder.with_disabled_optimizers(HARMFUL_OPTIMIZER)?.with_execution_providers([nnapi])?)
        })
    }
}

/// The flags of ONNX Runtime 1.32 (`NNAPI_FLAG_USE_FP16` and so on), in lower case.
const OPTIONS: &[KnownOption] = &[
    KnownOption::switch("use_fp16"),
    KnownOption::switch("use_nchw"),
    KnownOption::switch("cpu_disabled"),
    KnownOption::switch("cpu_only"),
];
