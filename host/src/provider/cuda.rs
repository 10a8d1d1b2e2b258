//! NVIDIA's GPUs. The provider is in a build of ONNX Runtime of its own, which needs the libraries of CUDA.

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider};
use ort::session::builder::SessionBuilder;

use super::known::{ANY_NUMBER, KnownOption, Values};
use super::{Device, Fallback, Provider, ProviderError, SessionOptions, Setup, common};
use crate::runtime::{LIBRARY_FOLDER, Runtime};
use crate::session::Memory;

/// ONNX Runtime's kernels for CUDA.
pub(super) struct Cuda;

/// Products of float32 are computed with all bits of their mantissas, so that a graph computes what it does elsewhere; graphs
/// with 16-bit activations, which are what this provider is fast with, do not care.
const DEFAULTS: [(&str, &str); 1] = [("use_tf32", "0")];

const REMEDY: &str =
    "run `make runtime-cuda` in the repository, which fetches a build with it, or name one with --ort-lib";

const HINT: &str =
    "; it needs an NVIDIA driver and the libraries of CUDA 13 and cuDNN 9 where the system's loader finds them";

impl Provider for Cuda {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn runtime_name(&self) -> &'static str {
        "CUDAExecutionProvider"
    }

    fn dialects(&self) -> &'static [&'static str] {
        &["contrib-gpu", "portable"]
    }

    fn known_options(&self) -> &'static [KnownOption] {
        OPTIONS
    }

    fn memory(&self, options: &SessionOptions) -> Memory {
        let device = options.provider.iter().find(|(key, _)| key == "device_id");
        Memory::Cuda { device: device.and_then(|(_, value)| value.parse().ok()).unwrap_or_default() }
    }

    fn builds(&self) -> &'static [&'static str] {
        &["onnxruntime-cuda", LIBRARY_FOLDER]
    }

    /// ONNX Runtime computes shapes and lengths on the processor on purpose.
    fn fallback(&self) -> Fallback {
        Fallback::Allowed
    }

    fn devices(&self, runtime: &Runtime, options: &SessionOptions) -> Result<Vec<Device>, ProviderError> {
        common::settled(self, &options.provider, &DEFAULTS)?;
        common::require_built_in(runtime, self, REMEDY)?;
        // Which there are is known to the driver only, and the provider asks it when a session is created.
        Ok(vec![Device::unlisted("GPU", "NVIDIA")])
    }

    fn configure(&self, builder: SessionBuilder, setup: &Setup<'_>) -> Result<SessionBuilder, ProviderError> {
        let options = common::settled(self, &setup.options.provider, &DEFAULTS)?;
        common::require_built_in(setup.runtime, self, REMEDY)?;
        let with = |cuda: ep::CUDA, (key, value): &(String, String)| cuda.with_arbitrary_config(key, value);
        let cuda = options.iter().fold(ep::CUDA::default(), with).build().error_on_failure();
        common::set_up(self, builder, setup, HINT, |builder| Ok(builder.with_execution_providers([cuda])?))
    }
}

/// The options of ONNX Runtime 1.31, as its documentation lists them and its library contains them, without those that are pointers.
const OPTIONS: &[KnownOption] = &[
    KnownOption::new("device_id", ANY_NUMBER),
    KnownOption::new("gpu_mem_limit", ANY_NUMBER),
    KnownOption::new("arena_extend_strategy", Values::OneOf(&["kNextPowerOfTwo", "kSameAsRequested"])),
    KnownOption::new("cudnn_conv_algo_search", Values::OneOf(&["EXHAUSTIVE", "HEURISTIC", "DEFAULT"])),
    KnownOption::switch("cudnn_conv_use_max_workspace"),
    KnownOption::switch("cudnn_conv1d_pad_to_nc1d"),
    KnownOption::switch("do_copy_in_default_stream"),
    KnownOption::switch("enable_cuda_graph"),
    KnownOption::switch("enable_skip_layer_norm_strict_mode"),
    KnownOption::switch("tunable_op_enable"),
    KnownOption::switch("tunable_op_tuning_enable"),
    KnownOption::new("tunable_op_max_tuning_duration_ms", ANY_NUMBER),
    KnownOption::switch("prefer_nhwc"),
    KnownOption::switch("use_ep_level_unified_stream"),
    KnownOption::switch("use_tf32"),
    KnownOption::switch("fuse_conv_bias"),
    KnownOption::new("sdpa_kernel", ANY_NUMBER),
];
