//! Rows as submissions to Pipette: bodies of `POST /benchmarks`, one a line, as pipette-mgmt's docs/benchmarks.md and
//! docs/httpapi.md describe them. Times are milliseconds; rates are the server's business.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::measure::{Row, Status, Test};
use crate::platform::ThermalZone;

/// Pipette's forms of devices.
pub const FORM_FACTORS: [&str; 6] = ["phone", "tablet", "laptop", "desktop", "server", "embedded"];

/// Repetitions that Pipette's rules ask for.
pub const REPETITIONS: usize = 5;

/// The benchmark of Pipette's that a test is, by its id. Nothing if it has none like it.
///
/// Pipette counts the token that a prompt gives as the first of an answer, and its decoding begins behind a prompt without a token
/// of its own: `tg100 @ d511` is `decode_throughput_512_100`, and `pp512+tg255` is `end_to_end_latency_512_256`.
pub fn benchmark_id(test: Test) -> Option<String> {
    match test {
        Test { prompt, generate: 0, depth: 0 } => Some(format!("prefill_throughput_{prompt}")),
        Test { prompt: 0, generate, .. } => Some(format!("decode_throughput_{}_{generate}", test.held())),
        Test { prompt, generate, depth: 0 } => Some(format!("end_to_end_latency_{prompt}_{}", generate + 1)),
        _ => None,
    }
}

/// Writes the submissions of a cell that was measured: its times, and for prompts the largest memory too. Cells without a result are
/// not submitted: only jobs that Pipette has handed out can fail.
pub(super) fn lines(row: &Row, output: &mut dyn Write) -> io::Result<()> {
    let test = Test { prompt: row.n_prompt, generate: row.n_gen, depth: row.n_depth };
    let Some(id) = benchmark_id(test).filter(|_| row.status == Status::Ok) else { return Ok(()) };
    let milliseconds = |nanoseconds: Option<u64>| nanoseconds.map(|time| time as f64 / 1e6);
    let (field, mean, deviation) = if row.n_gen == 0 {
        // Until the first token is chosen, which the window of a prompt does not include.
        let samples: Vec<f64> = row.first_token_samples_ns.iter().map(|&time| time as f64 / 1e6).collect();
        let deviation = crate::measure::statistics::deviation(&samples);
        ("prefill_time_ms", milliseconds(row.first_token_avg_ns), deviation)
    } else {
        let field = if row.n_prompt == 0 { "decode_time_ms" } else { "total_time_ms" };
        (field, milliseconds(row.avg_ns), milliseconds(row.stddev_ns))
    };
    let mut body = common(row, &id);
    body.insert(field.to_owned(), mean.into());
    body.insert(format!("{field}_stddev"), deviation.into());
    write(&body, output)?;
    if let (0, Some(peak)) = (row.n_gen, row.peak_memory) {
        let mut body = common(row, &format!("max_memory_usage_{}", row.n_prompt));
        body.insert("max_host_bytes".to_owned(), peak.into());
        // Pipette takes only what a probe inside the process has seen.
        body.insert("max_gpu_bytes".to_owned(), Value::Null);
        body.insert("max_npu_bytes".to_owned(), Value::Null);
        write(&body, output)?;
    }
    Ok(())
}

fn write(body: &Map<String, Value>, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "{}", serde_json::to_string(body)?)
}

/// What every submission says.
fn common(row: &Row, id: &str) -> Map<String, Value> {
    let (program, machine, subject) = (&row.program, &row.machine, &row.subject);
    let system = match machine.arch.as_str() {
        _ if machine.os == "android" => "Android",
        _ if machine.os == "macos" => "macOS",
        _ if machine.os == "windows" => "Windows",
        _ => "Linux",
    };
    let folder = subject.model_filename.split('/').next().unwrap_or_default();
    let model = json!({
        "type": "LfmOnnx",
        "filename": subject.model_filename,
        "sha256": subject.model_sha256,
        "weights_sha256": subject.weights_sha256,
        "files": subject.model_files,
        "precision": subject.precision,
        "dialect": subject.dialect,
    });
    let runtime = json!({
        "type": "LfmHost",
        "version": program.build_version,
        "commit": program.build_commit,
        "onnxruntime": program.runtime_version,
        "onnxruntime_sha256": program.runtime_sha256,
        "provider": row.provider,
        "device": row.provider_device,
    });
    let flags = json!({
        "provider_options": row.provider_options,
        "threads": row.n_threads,
        "spinning": row.spinning,
        "low_memory": row.low_memory,
        "chunk": row.chunk,
        "prefill": row.prefill,
        "speculate": row.speculate,
        "kv": row.kv,
    });
    let harness = json!({ "repetitions": row.repetitions, "warm_up": 1, "seed": row.seed, "readiness_gate": false });
    let body = json!({
        "message_type": "success",
        "benchmark_id": id,
        "device_name": row.device,
        "device_form_factor": row.form_factor,
        "device_os_name": system,
        "device_os_version": machine.os,
        "device_os_build": machine.kernel,
        "device_chip_model": machine.cpu_info.as_deref().unwrap_or(&machine.arch),
        "device_ram_bytes": machine.memory_bytes,
        // On mains it may charge or not, which the system does not tell everywhere.
        "device_power_state": machine.power_source.as_deref().filter(|source| *source == "battery").map(|_| "not_charging"),
        "device_linux_thermal_zones_before": zones(row.thermal_before.as_deref(), 0),
        "device_linux_thermal_zones_after": zones(row.thermal_after.as_deref(), row.repetitions.saturating_sub(1)),
        "model_name": row.model_name.as_deref().unwrap_or(folder),
        "model_quant": subject.precision,
        "model_descriptor": model.to_string(),
        "runtime_name": "lfm2-host",
        "runtime_version": program.build_version,
        "runtime_descriptor": runtime.to_string(),
        "runtime_flags": flags.to_string(),
        "benchmark_flags": harness.to_string(),
        "client_version": program.build_version,
    });
    match body {
        Value::Object(body) => body,
        _ => Map::new(),
    }
}

/// Temperatures at one repetition, in whole degrees.
fn zones(zones: Option<&[ThermalZone]>, iteration: usize) -> Value {
    let zone = |zone: &ThermalZone| json!({ "iteration": iteration, "type": zone.kind, "celsius": zone.celsius.round() as i64 });
    zones.map_or(Value::Null, |zones| zones.iter().map(zone).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_benchmarks_of_pipettes() {
        let id = |prompt, generate, depth| benchmark_id(Test { prompt, generate, depth });
        assert_eq!(id(512, 0, 0).as_deref(), Some("prefill_throughput_512"));
        assert_eq!(id(0, 100, 1023).as_deref(), Some("decode_throughput_1024_100"));
        assert_eq!(id(256, 255, 0).as_deref(), Some("end_to_end_latency_256_256"));
        assert_eq!(id(512, 0, 100), None);
        assert_eq!(id(512, 5, 100), None);
    }
}
