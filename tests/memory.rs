//! Tier "command line", memory: exporting needs far less of it than the model is large.
//!
//! The checkpoints are files with holes: they have the real shapes, and no disk is used for their zeros. How much memory a
//! program needed at most is asked of Linux, so that elsewhere these tests have nothing to look at.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Child;

use lfm2_export::config::ModelConfig;
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::Padding;
use lfm2_graphs::dialect::Contrib;
use lfm2_graphs::lfm2::{Extras, build};
use lfm2_tests::packages::{TINY_CHAT, fixture};
use lfm2_tests::programs::program;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Megabytes that exporting the checkpoint may need.
fn peak(hidden_size: usize, feed_forward_size: usize, heads: usize, precision: Precision) -> u64 {
    let folder = TempDir::new().unwrap();
    peak_in(&folder, hidden_size, feed_forward_size, heads, &["--precision", precision.as_str()])
}

/// The same with these flags, and with the package in `folder`.
fn peak_in(folder: &TempDir, hidden_size: usize, feed_forward_size: usize, heads: usize, flags: &[&str]) -> u64 {
    let checkpoint = folder.path().join("checkpoint");
    fs::create_dir(&checkpoint).unwrap();
    write_checkpoint(&checkpoint, hidden_size, feed_forward_size, heads);
    let out = folder.path().join("lfm2.onnx");
    let mut command = program(env!("CARGO_BIN_EXE_export-under-test"), flags);
    let mut child = command.arg(&checkpoint).arg("--out").arg(&out).spawn().unwrap();
    let peak = watch(&mut child);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("{hidden_size} {flags:?}: {peak} MB at most");
    peak
}

/// Largest resident size of a running program in megabytes, as it was when the program was last looked at.
fn watch(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        // The program may end between the two questions; it then has no size any more.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kilobytes) = line.and_then(|line| line.trim().strip_suffix(" kB")) {
            peak = kilobytes.trim().parse::<u64>().unwrap() / 1000;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(peak > 0, "the program was never seen running");
    peak
}

fn write_checkpoint(folder: &Path, hidden_size: usize, feed_forward_size: usize, heads: usize) {
    let config = json!({
        "architectures": ["Lfm2ForCausalLM"],
        "model_type": "lfm2",
        "vocab_size": 65536,
        "hidden_size": hidden_size,
        "intermediate_size": feed_forward_size,
        "block_auto_adjust_ff_dim": false,
        "num_hidden_layers": 16,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        "max_position_embeddings": 128_000,
        "norm_eps": 1e-5,
        "rope_theta": 1e6,
        "conv_L_cache": 3,
        "conv_bias": false,
        "tie_word_embeddings": true,
        "bos_token_id": 1,
        "eos_token_id": 7,
        "pad_token_id": 0,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture(TINY_CHAT).join(name), folder.join(name)).unwrap();
    }
    let model = ModelConfig::load(folder).unwrap();
    let graph = lfm2_tests::models::graph(Precision::Fp32);
    build(&model.graph, &Contrib { padding: Padding::None }, Extras::default(), &graph).unwrap();
    let content = graph.content();

    let mut header = Map::new();
    let mut end = 0_u64;
    for weight in content.initializers.iter().filter_map(|(_, initializer)| initializer.source.weight()) {
        if !header.contains_key(&weight.name) {
            let start = end;
            end += 2 * weight.len() as u64;
            header.insert(
                weight.name.clone(),
                json!({"dtype": "BF16", "shape": weight.shape, "data_offsets": [start, end]}),
            );
        }
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}

/// Ctrl-C ends an export with the status for it, and nothing is left of it.
#[test]
fn an_interrupt_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    fs::create_dir(&checkpoint).unwrap();
    write_checkpoint(&checkpoint, 2048, 8192, 32);
    let out = folder.path().join("out");
    let mut command = program(env!("CARGO_BIN_EXE_export-under-test"), &["--precision", "q8"]);
    let child = command.arg(&checkpoint).arg("--out").arg(out.join("lfm2.onnx")).spawn().unwrap();
    while !out.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let interrupted = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!out.exists());
}

#[test]
fn a_model_of_350m() {
    // Plain numbers hold the widest stripes of transposed matrices.
    for precision in Precision::ALL {
        let peak = peak(1024, 4608, 16, precision);
        assert!(peak <= 300, "{precision}: {peak} MB");
    }
}

/// Graphs that carry their weights themselves are written as data files are, and looked into without reading them.
#[test]
fn weights_within_graphs_stay_on_disk() {
    let folder = TempDir::new().unwrap();
    let peak = peak_in(&folder, 512, 2304, 8, &["--for", "nnapi"]);
    let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len() / 1_000_000;
    let (token, chunk) = (size("lfm2.nnapi-token.onnx"), size("lfm2.nnapi-chunk.onnx"));
    // The head is in the one and not in the other.
    assert!(token > 300 && chunk > 200 && token > chunk + 100, "{token} MB, {chunk} MB");
    assert!(peak <= 150, "{peak} MB");

    // It is done before its size could be looked at, so that it is given less than the larger graph has.
    let limited = r#"ulimit -v 300000 && exec "$0" check --ep nnapi "$1""#;
    let mut command = program("sh", &["-c", limited, env!("CARGO_BIN_EXE_export-under-test")]);
    let output = command.arg(folder.path().join("lfm2.onnx")).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&said));
}

/// 1.2 billion numbers of four bytes are more than an ONNX file may have.
#[test]
fn weights_that_are_too_many_for_a_graph_are_told_before_anything_is_written() {
    let folder = TempDir::new().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    fs::create_dir(&checkpoint).unwrap();
    write_checkpoint(&checkpoint, 2048, 8192, 32);
    let out = folder.path().join("out");
    let mut command = program(env!("CARGO_BIN_EXE_export-under-test"), &["--for", "nnapi"]);
    let output = command.arg(&checkpoint).arg("--out").arg(out.join("lfm2.onnx")).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    for part in ["lfm2.nnapi-token.onnx: the weights have to be in the ONNX file itself", "protobuf allows 2147483647"]
    {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
    assert!(!out.exists());
}

#[test]
fn a_model_of_1_2b() {
    for precision in [Precision::Q4, Precision::Fp16] {
        let peak = peak(2048, 8192, 32, precision);
        assert!(peak <= 400, "{precision}: {peak} MB");
    }
}
