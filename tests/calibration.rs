//! Tier "calibration": statistics of activations, from the export of the graph to the file that quantization reads.
//!
//! `tests/reference/calibration.py` took the same statistics with transformers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lfm2_export::package::DialectName;
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::{Calibration, MANIFEST_NAME, Manifest, Purpose};
use lfm2_host::calibrate::calibrate;
use lfm2_host::cancel::Cancel;
use lfm2_host::decoder::Decoder;
use lfm2_host::documents::Window;
use lfm2_host::package::Package;
use lfm2_tests::compare::error;
use lfm2_tests::packages::{Exported, TINY_CHAT, calibrating, contrib, fixture};
use lfm2_tests::programs::{program, run};
use lfm2_tests::reference::Reference;
use tempfile::TempDir;

/// Sums of a thousand squares in another order, of activations that differ by 1e-6 of the largest.
const TOLERANCE: f64 = 1e-5;

/// The documents of a reference, and the statistics that transformers took.
struct Expected {
    documents: Vec<Window>,
    statistics: BTreeMap<String, Vec<f32>>,
}

impl Expected {
    fn load(name: &str) -> Self {
        let reference = Reference::load(&format!("{name}-calibration"));
        let mut tokens = reference.input_ids.as_slice();
        let lengths = &reference.integers["lengths"].1;
        let documents = lengths.iter().map(|&length| {
            let (document, rest) = tokens.split_at(usize::try_from(length).unwrap());
            tokens = rest;
            Window { tokens: document.to_vec(), counted_from: 1 }
        });
        let documents = documents.collect();
        let statistics = reference.floats.into_iter().map(|(name, (_, values))| (name, values)).collect();
        Self { documents, statistics }
    }

    fn assert_equal(&self, found: &Calibration) {
        let tokens: usize = self.documents.iter().map(|document| document.tokens.len()).sum();
        assert_eq!(found.tokens, tokens as u64);
        let all: BTreeMap<_, _> = found.weights.iter().chain(&found.states).collect();
        assert!(all.keys().copied().eq(self.statistics.keys()), "{:?}", all.keys());
        for (name, values) in all {
            let error = error(values, &self.statistics[name]);
            assert!(error <= TOLERANCE, "{name}: {error}");
        }
    }
}

fn take(exported: &Exported, documents: &[Window]) -> Calibration {
    let mut done = 0;
    let mut progress = |now| done = now;
    let found = calibrate(&mut exported.decoder(), documents, "ab", &Cancel::new(), &mut progress).unwrap();
    assert_eq!(done as u64, found.tokens);
    found
}

#[test]
fn statistics_are_those_of_transformers() {
    for name in ["untied", TINY_CHAT] {
        let expected = Expected::load(name);
        for dialect in [DialectName::Contrib, DialectName::Portable] {
            let exported = Exported::new(name, calibrating(dialect));
            expected.assert_equal(&take(&exported, &expected.documents));
        }
    }
}

/// The rotary embedding turns keys further with every position: what windows of 64 tokens have shown must bound the keys of 3000.
#[test]
fn keys_are_bounded_at_positions_that_calibration_never_saw() {
    let exported = Exported::new(TINY_CHAT, calibrating(DialectName::Contrib));
    let expected = Expected::load(TINY_CHAT);
    let tokens: Vec<u32> = expected.documents.iter().flat_map(|it| it.tokens.iter().copied()).take(3000).collect();
    let window = |tokens: &[u32]| Window { tokens: tokens.to_vec(), counted_from: 1 };
    let short: Vec<_> = tokens.chunks(64).map(window).collect();
    let bounds = take(&exported, &short).states;
    let mut decoder = Exported::new(TINY_CHAT, contrib(Precision::Fp32)).decoder();
    decoder.step(&tokens).unwrap();
    let keys: Vec<_> = decoder.states().unwrap().into_iter().filter(|(name, ..)| name.ends_with(".key")).collect();
    assert!(!keys.is_empty());
    for (name, shape, values) in keys {
        let [heads, rows, width] = [shape[1], shape[2], shape[3]];
        for (at, value) in values.iter().enumerate() {
            let channel = at / (rows * width) * width + at % width;
            // A tenth more is what the exporter leaves for values that the text did not show.
            let bound = 1.1 * bounds[&name][channel];
            assert!(value.abs() <= bound, "{name}, head of {heads}, channel {channel}: {value} is beyond {bound}");
        }
    }
}

#[test]
fn graphs_that_cannot_be_observed_are_refused() {
    let mut decoder = Exported::new(TINY_CHAT, contrib(Precision::Fp32)).decoder();
    let window = Window { tokens: vec![1, 20], counted_from: 1 };
    let refused = |decoder: &mut _, windows: &[Window]| {
        calibrate(decoder, windows, "ab", &Cancel::new(), &mut |_| {}).unwrap_err().to_string()
    };
    let message = refused(&mut decoder, std::slice::from_ref(&window));
    assert!(message.contains("--for calibrate"), "{message}");
    let mut decoder = Exported::new(TINY_CHAT, calibrating(DialectName::Contrib)).decoder();
    assert!(refused(&mut decoder, &[]).contains("no tokens"));
    let long = Window { tokens: vec![20; 5000], counted_from: 1 };
    assert!(refused(&mut decoder, &[long]).contains("context of 4096"));
    let unknown = Window { tokens: vec![1024], counted_from: 1 };
    assert!(refused(&mut decoder, &[unknown]).contains("1024"));
}

/// The exporter with these arguments, on the trained checkpoint.
fn export(out: &Path, arguments: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_export-under-test"), arguments);
    command.arg(fixture(TINY_CHAT)).arg("--out").arg(out);
    command
}

/// `lfm2-host calibrate` with these arguments, on the committed dialogues.
fn calibrate_command(model: &Path, out: &Path, arguments: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_host-under-test"), &["calibrate", "--threads=1"]);
    command.arg("--model").arg(model).arg("--out").arg(out);
    command.arg("--text").arg(fixture(TINY_CHAT).join("calibration.jsonl")).args(arguments);
    command
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.collect();
    names.sort();
    names
}

#[test]
fn the_commands_write_what_quantization_reads() {
    let folder = TempDir::new().unwrap();
    let graph = folder.path().join("package/x.onnx");
    run(export(&graph, &["--for", "calibrate"])).answer();
    let out = folder.path().join("calibration.json");
    // What was there is replaced.
    fs::write(&out, "old").unwrap();
    assert_eq!(run(calibrate_command(&graph, &out, &[])).answer(), format!("{}\n", out.display()));
    let text = fs::read_to_string(&out).unwrap();
    let found = Calibration::from_json(&text).unwrap();
    Expected::load(TINY_CHAT).assert_equal(&found);
    let package = Package::open(&graph).unwrap();
    assert_eq!(Some(found.model.as_str()), package.model());
    assert_eq!(names(folder.path()), ["calibration.json", "package"], "nothing is left beside it");

    run(calibrate_command(&graph, &out, &["--max-tokens=100"])).answer();
    assert_eq!(Calibration::from_json(&fs::read_to_string(&out).unwrap()).unwrap().tokens, 100);
    run(calibrate_command(&graph, &out, &[])).answer();
    assert_eq!(fs::read_to_string(&out).unwrap(), text, "the same again, to the byte");
}

#[test]
fn a_graph_for_calibration_is_no_model() {
    let folder = TempDir::new().unwrap();
    let package = folder.path().join("lfm2/");
    fs::create_dir(&package).unwrap();
    let names_of = |folder: &Path| names(&folder.join("onnx"));
    run(export(&package, &["--for", "calibrate"])).answer();
    let files = ["model_calibrate.onnx", "model_calibrate.onnx_data", "model_calibrate.qnn-calibrate.onnx"];
    assert_eq!(names_of(&package), files);
    assert!(!package.join("genai_config.json").exists(), "there is nothing for onnxruntime-genai to run");
    let config = || fs::read_to_string(package.join("config.json")).unwrap();
    assert!(!config().contains("model_calibrate"), "Transformers.js has no use for it");
    let message = Package::open(&package).unwrap_err().to_string();
    assert!(
        message.contains("no model to run") && message.ends_with("by name: onnx/model_calibrate.onnx"),
        "{message}"
    );

    // A model joins it, and is joined.
    run(export(&package, &["--precision", "q8", "--for", "cpu"])).answer();
    let genai = fs::read_to_string(package.join("genai_config.json")).unwrap();
    assert!(genai.contains("model_quantized.onnx"), "{genai}");
    run(export(&package, &["--for", "calibrate"])).answer();
    assert_eq!(fs::read_to_string(package.join("genai_config.json")).unwrap(), genai);
    let manifest = Manifest::from_json(&fs::read_to_string(package.join(MANIFEST_NAME)).unwrap()).unwrap();
    let graphs: Vec<_> = manifest.graphs.iter().map(|graph| (graph.file.as_str(), graph.purpose)).collect();
    let expected = [
        ("onnx/model_calibrate.onnx", Purpose::Calibrate),
        ("onnx/model_calibrate.qnn-calibrate.onnx", Purpose::Calibrate),
        ("onnx/model_quantized.onnx", Purpose::General),
    ];
    assert_eq!(graphs, expected);
    let opened = Package::open(&package).unwrap();
    assert_eq!(opened.contract().precision, "q8");
    opened.verify().unwrap();
    Package::open(&package.join("onnx/model_calibrate.onnx")).unwrap().verify().unwrap();
    let ranges = Package::open(&package.join("onnx/model_calibrate.qnn-calibrate.onnx")).unwrap();
    ranges.verify().unwrap();
    let refused = ranges.require(Purpose::General).unwrap_err().to_string();
    assert!(refused.contains("takes statistics"), "{refused}");
    let inspect = ["inspect", package.to_str().unwrap()];
    let text = run(program(env!("CARGO_BIN_EXE_export-under-test"), &inspect)).answer();
    assert!(text.contains("fp32 for calibration"), "{text}");
}

#[test]
fn wrong_arguments_are_told() {
    let folder = TempDir::new().unwrap();
    let inside = |name: &str| folder.path().join(name);
    let refused = |arguments: &[&str]| run(export(&inside("x.onnx"), &[&["--for", "calibrate"], arguments].concat()));
    let errors = refused(&["--precision", "q4"]).failure(2);
    assert!(errors.contains("fp32 only") && errors.contains("q4"), "{errors}");
    refused(&["--precision", "fp32"]).answer();

    let model = Exported::new(TINY_CHAT, contrib(Precision::Fp32));
    let errors = run(calibrate_command(&model.graph, &inside("a.json"), &[])).failure(1);
    assert!(errors.contains("takes no statistics") && errors.contains("--for calibrate"), "{errors}");
    let graph = inside("x.onnx");
    let nowhere: PathBuf = inside("nowhere/a.json");
    let errors = run(calibrate_command(&graph, &nowhere, &[])).failure(1);
    assert!(errors.contains("nowhere") && errors.contains("cannot be written"), "{errors}");
    let errors = run(calibrate_command(&graph, &inside("a.json"), &["--max-tokens=-1"])).failure(2);
    assert!(errors.contains("--max-tokens"), "{errors}");
    fs::remove_file(inside(MANIFEST_NAME)).unwrap();
    let outcome = run(calibrate_command(&graph, &inside("a.json"), &[]));
    assert_eq!(outcome.status, Some(1));
    assert!(outcome.errors.contains("no manifest"), "{}", outcome.errors);
    assert!(!names(folder.path()).iter().any(|name| name.contains("a.json")), "nothing is left of failures");

    let help = run(program(env!("CARGO_BIN_EXE_host-under-test"), &["calibrate", "--help"])).answer();
    for text in ["--model", "--text", "--out", "--max-tokens", "--context", "Examples:"] {
        assert!(help.contains(text), "{text} is missing in:\n{help}");
    }
}
