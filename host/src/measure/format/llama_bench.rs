//! Rows as `llama-bench -o jsonl` writes them: its fields in its order with its types, and no others.
//!
//! The schema is that of `test::get_fields` in llama.cpp's tools/llama-bench/llama-bench.cpp. Fields about things that do not exist
//! here have the value that llama-bench has for "none".

use std::io::{self, Write};

use serde::Serialize;

use crate::measure::Row;

/// How actively threads wait, in llama-bench's percent: always, as ONNX Runtime's spinning does, or never.
const SPINNING: u32 = 100;

#[derive(Serialize)]
struct LlamaBench<'a> {
    build_commit: &'a str,
    build_number: u32,
    cpu_info: &'a str,
    gpu_info: &'a str,
    backends: String,
    model_filename: &'a str,
    model_type: &'a str,
    model_size: u64,
    model_n_params: u64,
    n_batch: usize,
    n_ubatch: usize,
    n_threads: usize,
    cpu_mask: &'a str,
    cpu_strict: bool,
    poll: u32,
    type_k: &'a str,
    type_v: &'a str,
    n_gpu_layers: i32,
    n_cpu_moe: i32,
    split_mode: &'a str,
    main_gpu: i32,
    no_kv_offload: bool,
    flash_attn: i32,
    devices: &'a str,
    tensor_split: &'a str,
    tensor_buft_overrides: &'a str,
    load_mode: &'a str,
    embeddings: bool,
    no_op_offload: i32,
    no_host: bool,
    fit_target: u64,
    fit_min_ctx: u32,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    test_time: &'a str,
    avg_ns: u64,
    stddev_ns: u64,
    avg_ts: f64,
    stddev_ts: f64,
    samples_ns: &'a [u64],
    samples_ts: &'a [f64],
}

/// Writes the row of a cell that was measured; llama-bench has no others.
pub(super) fn line(row: &Row, output: &mut dyn Write) -> io::Result<()> {
    let (Some(avg_ns), Some(avg_ts)) = (row.avg_ns, row.avg_ts) else { return Ok(()) };
    let is_cpu = row.provider == "cpu";
    let kv = match row.kv.as_deref() {
        Some("float16") => "f16",
        Some("bfloat16") => "bf16",
        Some("int8") => "i8",
        _ => "f32",
    };
    let line = LlamaBench {
        build_commit: row.program.build_commit.unwrap_or("unknown"),
        build_number: 0,
        cpu_info: row.machine.cpu_info.as_deref().unwrap_or_default(),
        gpu_info: "",
        backends: format!("ONNX Runtime {}", row.provider),
        model_filename: &row.subject.model_filename,
        model_type: &row.subject.model_type,
        model_size: row.subject.model_size.unwrap_or_default(),
        model_n_params: 0,
        n_batch: row.chunk,
        n_ubatch: row.chunk,
        n_threads: row.n_threads,
        cpu_mask: "0x0",
        cpu_strict: false,
        poll: if row.spinning { SPINNING } else { 0 },
        type_k: kv,
        type_v: kv,
        n_gpu_layers: if is_cpu { 0 } else { -1 },
        n_cpu_moe: 0,
        split_mode: "none",
        main_gpu: 0,
        no_kv_offload: false,
        flash_attn: 0,
        devices: "auto",
        tensor_split: "0.00",
        tensor_buft_overrides: "none",
        load_mode: "mmap",
        embeddings: false,
        no_op_offload: 0,
        no_host: false,
        fit_target: 0,
        fit_min_ctx: 0,
        n_prompt: row.n_prompt,
        n_gen: row.n_gen,
        n_depth: row.n_depth,
        test_time: &row.test_time,
        avg_ns,
        stddev_ns: row.stddev_ns.unwrap_or_default(),
        avg_ts,
        stddev_ts: row.stddev_ts.unwrap_or_default(),
        samples_ns: &row.samples_ns,
        samples_ts: &row.samples_ts,
    };
    writeln!(output, "{}", serde_json::to_string(&line)?)
}
