//! Qualcomm's NPUs (Hexagon), through the plugin `onnxruntime-qnn`. On x86 processors Qualcomm's library simulates an NPU: the same
//! compiler and the same numbers, slowly.

pub mod soc;

use ort::memory::DeviceType;
use ort::session::builder::SessionBuilder;

use super::known::ANY_NUMBER;
use super::{Device, Fallback, KnownOption, Provider, ProviderError, SessionOptions, Setup, Values, common, plugin};
use crate::runtime::{Plugin, Runtime};

/// Qualcomm AI Engine Direct.
pub(super) struct Qnn;

/// Name of the provider and of its registration.
const RUNTIME_NAME: &str = "QNNExecutionProvider";

static PLUGIN: Plugin = Plugin {
    runtime_name: RUNTIME_NAME,
    what: "the QNN plugin",
    library: "onnxruntime_providers_qnn",
    folder: "onnxruntime-qnn",
    remedy: "run `make runtime-qnn` in the repository, which fetches it, or name it with --ep-lib",
};

/// What is set unless `--ep-option` says otherwise. Both NPU and simulator have no default backend; without the last one,
/// conversions at inputs and outputs would be left to the processor.
const DEFAULTS: [(&str, &str); 3] =
    [("backend_type", "htp"), ("htp_performance_mode", "burst"), ("offload_graph_io_quantization", "0")];

impl Provider for Qnn {
    fn name(&self) -> &'static str {
        "qnn"
    }

    fn runtime_name(&self) -> &'static str {
        RUNTIME_NAME
    }

    fn dialects(&self) -> &'static [&'static str] {
        &["qnn"]
    }

    fn known_options(&self) -> &'static [KnownOption] {
        OPTIONS
    }

    fn plugin(&self) -> Option<&'static Plugin> {
        Some(&PLUGIN)
    }

    fn compiles(&self) -> bool {
        true
    }

    fn fallback(&self) -> Fallback {
        Fallback::Refused
    }

    fn devices(&self, runtime: &Runtime, options: &SessionOptions) -> Result<Vec<Device>, ProviderError> {
        let settled = common::settled(self, &options.provider, &DEFAULTS)?;
        let devices = chosen(plugin::devices(runtime, self, &PLUGIN, options)?, &settled);
        let simulator = |device: Device| Device { kind: "NPU".to_owned(), simulated: true, ..device };
        let shown = devices.iter().map(Device::new);
        Ok(shown.map(|device| if device.kind == "CPU" { simulator(device) } else { device }).collect())
    }

    fn configure(&self, builder: SessionBuilder, setup: &Setup<'_>) -> Result<SessionBuilder, ProviderError> {
        let options = setup.options;
        let mut settled = common::settled(self, &options.provider, &DEFAULTS)?;
        let devices = chosen(plugin::devices(setup.runtime, self, &PLUGIN, options)?, &settled);
        // A Snapdragon knows what it is. A simulator has to be told: without a model it computes in float32 and refuses half of
        // the operators.
        let is_simulator = !devices.iter().any(|device| device.hardware_device().ty() == DeviceType::NPU);
        if is_simulator && !settled.iter().any(|(key, _)| key == "soc_model") {
            settled.push(("soc_model".to_owned(), soc::SIMULATED.model.to_string()));
        }
        plugin::configure(self, builder, setup, devices, &settled)
    }
}

/// The devices for the backend: on a Snapdragon there are some for GPU and processor, too.
fn chosen<'r>(devices: Vec<ort::device::Device<'r>>, options: &[(String, String)]) -> Vec<ort::device::Device<'r>> {
    let backend = options.iter().find(|(key, _)| key == "backend_type").map(|(_, value)| value.as_str());
    let wanted = if backend == Some("gpu") { DeviceType::GPU } else { DeviceType::NPU };
    let is_wanted = |device: &ort::device::Device<'_>| device.hardware_device().ty() == wanted;
    if devices.iter().any(is_wanted) { devices.into_iter().filter(is_wanted).collect() } else { devices }
}

/// The options of version 2.7.0 of the plugin: what its documentation lists, and what its MIT-licensed library contains.
const OPTIONS: &[KnownOption] = &[
    KnownOption::switch("enable_htp_fp16_precision"),
    KnownOption::switch("htp_bf16_enable"),
    KnownOption::switch("enable_htp_fp16_clamp_overflow"),
    KnownOption::switch("enable_htp_monolithic_lstm"),
    KnownOption::switch("offload_graph_io_quantization"),
    KnownOption::switch("enable_block_quant_weight_optimization"),
    KnownOption::switch("enable_htp_spill_fill_buffer"),
    KnownOption::switch("enable_htp_shared_memory_allocator"),
    KnownOption::switch("enable_dx12_shared_memory_allocator"),
    KnownOption::switch("htp_share_resource_optimization"),
    KnownOption::switch("enable_vtcm_backup_buffer_sharing"),
    KnownOption::switch("extended_udma"),
    KnownOption::switch("enable_htp_graph_splitting"),
    KnownOption::switch("enable_htp_prepare_only"),
    KnownOption::switch("enable_htp_prepare_and_load"),
    KnownOption::switch("disable_file_mapped_weights"),
    KnownOption::switch("enable_framework_op_trace"),
    KnownOption::switch("dump_json_qnn_graph"),
    KnownOption::switch("dump_qnn_ep_input_graph"),
    KnownOption::switch("dump_qnn_ir_dlc"),
    KnownOption::switch("skip_backend_op_validation"),
    KnownOption::switch("skip_qnn_version_check"),
    KnownOption::new("backend_type", Values::OneOf(&["htp", "gpu", "cpu", "saver", "ir"])),
    KnownOption::new("backend_path", Values::Path),
    KnownOption::new("soc_model", Values::Listed(soc::TAKES, soc::is_known)),
    KnownOption::new(
        "htp_arch",
        Values::Listed("68, 69, 73, 75, 79 or 81, or several with commas", soc::is_generation),
    ),
    KnownOption::new("device_id", ANY_NUMBER),
    KnownOption::new("vtcm_mb", ANY_NUMBER),
    KnownOption::new(
        "htp_performance_mode",
        Values::OneOf(&[
            "burst",
            "balanced",
            "default",
            "high_performance",
            "sustained_high_performance",
            "high_power_saver",
            "low_power_saver",
            "low_balanced",
            "power_saver",
            "extreme_power_saver",
        ]),
    ),
    KnownOption::new("htp_graph_finalization_optimization_mode", Values::Number(0, 3)),
    KnownOption::new("htp_reused_io_limit_mb", ANY_NUMBER),
    KnownOption::new("htp_graph_splitting_num_prepare_threads", ANY_NUMBER),
    KnownOption::new("num_graph_prepare_threads", ANY_NUMBER),
    KnownOption::new("rpc_control_latency", ANY_NUMBER),
    KnownOption::new(
        "qnn_context_priority",
        Values::OneOf(&[
            "low",
            "normal_low",
            "normal",
            "normal_high",
            "high",
            "high_plus",
            "critical",
            "critical_plus",
        ]),
    ),
    KnownOption::new("profiling_level", Values::OneOf(&["off", "basic", "detailed", "optrace"])),
    KnownOption::new("profiling_file_path", Values::Path),
    KnownOption::new("framework_op_trace_dir", Values::Path),
    KnownOption::new("json_qnn_graph_dir", Values::Path),
    KnownOption::new("dump_qnn_ep_input_graph_dir", Values::Path),
    KnownOption::new("dump_qnn_ir_dlc_dir", Values::Path),
    KnownOption::new("qnn_ir_backend_path", Values::Path),
    KnownOption::new("qnn_saver_path", Values::Path),
    KnownOption::new("op_packages", Values::Text),
    KnownOption::new("op_affinity", Values::Text),
    KnownOption::new("genie_log_level", Values::Text),
];
