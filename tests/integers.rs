//! Tier "provider": graphs whose activations are 16-bit integers, from the calibration to the simulator of an NPU.
//!
//! The reference of such a graph is ONNX Runtime's processor without optimizations: with them, it computes something else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use lfm2_export::check::{graphs_for, rules};
use lfm2_export::checkpoint::Checkpoint;
use lfm2_export::package::{Caches, DialectName, Options, Output, QnnPrecision, Targets, export};
use lfm2_export::quantize::quantize_rows;
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::{Calibration, DType, MANIFEST_NAME, Manifest, Target};
use lfm2_host::calibrate::{calibrate, ranges};
use lfm2_host::cancel::Cancel;
use lfm2_host::chat::ChatTemplate;
use lfm2_host::decoder::{AnyDecoder, Decoder, DecoderError, FixedDecoder, RangeObserver};
use lfm2_host::documents::{self, Window};
use lfm2_host::engine::Engine;
use lfm2_host::evaluate::{Evaluation, Pass, evaluate};
use lfm2_host::generation::{GenerationDefaults, Overrides};
use lfm2_host::package::Package;
use lfm2_host::provider::{self, SessionOptions};
use lfm2_host::runtime::Runtime;
use lfm2_host::session::Session;
use lfm2_host::text::Tokenizer;
use lfm2_tests::compare::{argmax, error};
use lfm2_tests::packages::{
    Exported, TINY_CHAT, TINY_RANDOM, calibrating, complete, contrib, fixture, needs_portable, with_static,
};
use lfm2_tests::programs::{program, run};
use safetensors::tensor::TensorView;
use serde_json::Value;
use tempfile::TempDir;

const CHUNK: usize = 16;
const CONTEXT: usize = 128;

/// Session options of a reference.
fn exact() -> SessionOptions {
    SessionOptions { optimized: false, ..SessionOptions::with_threads(Some(1)) }
}

/// Dialogues of a file of the fixture, `count` of them.
fn dialogues(file: &str, count: usize) -> Vec<Window> {
    let folder = fixture(TINY_CHAT);
    let (tokenizer, template) = (Tokenizer::load(&folder).unwrap(), ChatTemplate::load(&folder).unwrap());
    let documents = documents::read(&folder.join(file), &tokenizer, template.as_ref(), None).unwrap();
    let cut = |mut tokens: Vec<u32>| {
        tokens.truncate(CONTEXT);
        Window { tokens, counted_from: 1 }
    };
    documents.into_iter().take(count).map(cut).collect()
}

/// One text of many tokens.
fn text(count: usize) -> Vec<u32> {
    dialogues("held-out.jsonl", 9).into_iter().flat_map(|window| window.tokens).take(count).collect()
}

/// A calibration of a fixture, in a file of its own.
struct Calibrated {
    _folder: TempDir,
    path: PathBuf,
}

impl Calibrated {
    fn new(name: &str, windows: &[Window]) -> Self {
        let exported = Exported::new(name, small(calibrating(DialectName::Contrib)));
        let package = Package::open(&exported.graph).unwrap();
        let graph = package.ranges().unwrap().expect("there is a graph for ranges");
        let cpu = provider::named("cpu").unwrap();
        let session = Session::new(Runtime::load(None).unwrap(), &graph, cpu, &exact()).unwrap();
        let mut observer = RangeObserver::new(session, &exported.package()).unwrap();
        let tokens: usize = windows.iter().map(|window| window.tokens.len()).sum();
        let mut done = 0;
        let (decoder, cancel) = (&mut exported.decoder(), Cancel::new());
        let model = package.model().unwrap();
        let mut found = calibrate(decoder, windows, model, &cancel, &mut |now| done = now).unwrap();
        assert_eq!(std::mem::take(&mut done), tokens);
        // Within a window, too, nothing more is run.
        let stopped = Cancel::new();
        stopped.cancel();
        assert!(matches!(observer.observe(&windows[0].tokens, &stopped), Err(DecoderError::Cancelled)));
        found.ranges = ranges(&mut observer, windows, &cancel, &mut |now| done = now).unwrap();
        assert_eq!(done, tokens);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("calibration.json");
        fs::write(&path, found.to_json().unwrap()).unwrap();
        Self { _folder: folder, path }
    }
}

/// A calibration over a few dialogues, taken once.
static CALIBRATION: LazyLock<Calibrated> =
    LazyLock::new(|| Calibrated::new(TINY_CHAT, &dialogues("calibration.jsonl", 30)));

type Ranges = BTreeMap<String, [f32; 2]>;

fn calibration() -> Calibration {
    Calibration::from_json(&fs::read_to_string(&CALIBRATION.path).unwrap()).unwrap()
}

fn small(options: Options) -> Options {
    let (chunk, static_context) = (Some(CHUNK), Some(CONTEXT));
    Options { targets: Targets { chunk, static_context, ..Targets::default() }, ..options }
}

/// An export of exact weights with graphs of integers for NPUs.
fn options(qnn: QnnPrecision) -> Options {
    calibrated(qnn, &CALIBRATION)
}

fn calibrated(qnn: QnnPrecision, calibration: &Calibrated) -> Options {
    let options = with_static(Precision::Fp32, &[Target::Qnn], CHUNK, CONTEXT);
    Options { targets: Targets { qnn, ..options.targets }, calibration: Some(calibration.path.clone()), ..options }
}

fn on_processor(exported: &Exported) -> FixedDecoder {
    exported.static_decoder(Target::Qnn, provider::named("cpu").unwrap(), &exact())
}

/// How far the graphs are from the checkpoint's own numbers over dialogues that the calibration has not seen.
fn measured(exported: &Exported, count: usize) -> Evaluation {
    let mut fixed = AnyDecoder::Fixed(on_processor(exported));
    let mut reference = AnyDecoder::Dynamic(exported.decoder());
    let windows = dialogues("held-out.jsonl", count);
    evaluate(&mut fixed, Some(&mut reference), &windows, Pass::Decode, &Cancel::new(), &mut |_| {}).unwrap()
}

#[test]
fn integers_are_close_to_the_checkpoint() {
    // A prototype over other dialogues had 0.0004 and 0.017. Nearly all of the first is the weights' 8 bits; the second is that
    // of 4 bits with one scale for each row.
    for (precision, most, agreement) in [(QnnPrecision::W8a16, 1e-3, 0.97), (QnnPrecision::W4a16, 3e-2, 0.9)] {
        let exported = Exported::new(TINY_CHAT, options(precision));
        let found = measured(&exported, 12);
        let found = found.fidelity.expect("there is a reference");
        println!("{precision}: {found:?}");
        assert!(found.divergence.mean.value <= most, "{precision}: {found:?}");
        assert!(found.agreement.value >= agreement, "{precision}: {found:?}");
    }
}

/// A checkpoint whose matrices are multiples of a scale for each row already, so that 8 bits hold them exactly.
fn rounded_checkpoint(name: &str) -> TempDir {
    changed_checkpoint(name, |_, shape, values| {
        let &mut [_, columns] = &mut shape[..] else { return };
        let (numbers, scales) = quantize_rows(8, columns, None, values);
        let number = |(i, number): (usize, &u8)| f32::from(*number as i8) * scales[i / columns];
        *values = numbers.iter().enumerate().map(number).collect();
    })
}

/// A checkpoint with other weights: `change` gets the name, the shape and the numbers of each.
fn changed_checkpoint(name: &str, change: impl Fn(&str, &mut Vec<usize>, &mut Vec<f32>)) -> TempDir {
    let folder = TempDir::new().unwrap();
    complete(&fixture(name), folder.path());
    let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
    let mut tensors = BTreeMap::new();
    for (name, info) in checkpoint.tensors() {
        let (mut shape, mut values) = (info.shape.clone(), Vec::new());
        checkpoint.read_rows(name, 0, info.rows(), &mut values).unwrap();
        change(name, &mut shape, &mut values);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.insert(name.to_owned(), (shape, bytes));
    }
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains(".safetensors") {
            fs::remove_file(path).unwrap();
        }
    }
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        (name.as_str(), TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

/// Biases, convolutions of other widths, models of one kind of layer, heads of their own: where the weights are exact, all that is off
/// is the rounding of activations.
#[test]
fn every_checkpoint_can_be_computed_with_integers() {
    let mut checked = 0;
    for name in TINY_RANDOM.iter().copied().filter(|name| !needs_portable(name)) {
        let checkpoint = rounded_checkpoint(name);
        let checkpoint = checkpoint.path().to_str().unwrap();
        let tokens: Vec<u32> = (0..40).map(|index| 20 + index * 7 % 67).collect();
        let window = Window { tokens: tokens.clone(), counted_from: 1 };
        let calibration = Calibrated::new(checkpoint, &[window]);
        let exported = Exported::new(checkpoint, calibrated(QnnPrecision::W8a16, &calibration));
        let (mut fixed, mut general) = (on_processor(&exported), exported.decoder());
        // A value of 16 bits over one and a half times its range is off by 1e-5 of it; there are some hundred of them in a row, and norms
        // enlarge what small residuals are off by.
        for (found, expected) in logits(&mut fixed, &tokens).iter().zip(logits(&mut general, &tokens)) {
            let off = error(found, &expected);
            assert!(off <= 3e-3, "{name}: logits are off by {off}");
        }
        for graph in &graphs_for(&exported.graph, Target::Qnn).unwrap().graphs {
            let checked = lfm2_export::check::check(name, &graph.model, rules(Target::Qnn).unwrap());
            assert!(checked.is_whole(), "{checked}");
        }
        checked += 1;
    }
    assert!(checked > 9);
}

/// The logits behind a prompt and behind each token after it.
fn logits<D: Decoder>(decoder: &mut D, tokens: &[u32]) -> Vec<Vec<f32>> {
    let (prompt, rest) = tokens.split_at(30);
    let first = decoder.step(prompt).unwrap().to_vec();
    let rest: Vec<_> = rest.iter().map(|token| decoder.step(&[*token]).unwrap().to_vec()).collect();
    [vec![first], rest].concat()
}

#[test]
fn prompts_and_single_tokens_share_their_states() {
    let exported = Exported::new(TINY_CHAT, options(QnnPrecision::W8a16));
    let mut fixed = on_processor(&exported);
    let tokens = &text(40);
    // Whole chunks and a padded one against token by token: the same integers but for what kernels for floats add up in another order.
    let by_chunks = fixed.step(tokens).unwrap().to_vec();
    let states = fixed.states().unwrap();
    fixed.reset();
    let mut by_tokens = Vec::new();
    for token in tokens {
        by_tokens = fixed.step(&[*token]).unwrap().to_vec();
    }
    assert!(error(&by_chunks, &by_tokens) <= 5e-3, "{}", error(&by_chunks, &by_tokens));
    for ((name, _, found), (_, _, expected)) in states.iter().zip(&fixed.states().unwrap()) {
        assert!(error(found, expected) <= 5e-3, "{name}: {}", error(found, expected));
    }
}

#[test]
fn states_are_integers_with_one_scale_in_both_graphs() {
    for precision in [QnnPrecision::W8a16, QnnPrecision::W4a16] {
        let exported = Exported::new(TINY_CHAT, options(precision));
        let pair = Package::open(&exported.graph).unwrap().pair(Target::Qnn).unwrap();
        let [chunk, token] = [&pair.chunk, &pair.token].map(|graph| graph.contract());
        assert_eq!((chunk.precision.as_str(), token.precision.as_str()), (precision.as_str(), precision.as_str()));
        for (a, b) in chunk.states.iter().zip(&token.states) {
            assert_eq!((a.past.dtype, a.present.dtype), (DType::Int16, DType::Int16));
            assert!(a.scale.is_some_and(|scale| scale > 0.0) && a.scale == b.scale, "{}", a.past.name);
        }
        assert_eq!(pair.token.contract().logits().unwrap().dtype, DType::Float32);
    }
}

/// The command that adds graphs for another provider keeps the integers of those that are there.
#[test]
fn printed_commands_keep_integers() {
    let exported = Exported::new(TINY_CHAT, options(QnnPrecision::W8a16));
    let message = Package::open(&exported.graph).unwrap().pair(Target::Nnapi).unwrap_err().to_string();
    for part in ["--for cpu,nnapi,qnn", "--qnn-precision w8a16 --calibration CALIBRATION", "; CALIBRATION is the file"]
    {
        assert!(message.contains(part), "{message}");
    }
}

/// Each trap of the compiler is a rule, and the graphs break none: no product of two unsigned factors, no norm of several dimensions of
/// rows, no weights without zero points.
#[test]
fn the_rules_of_the_provider_are_kept() {
    for precision in [QnnPrecision::W8a16, QnnPrecision::W4a16] {
        let exported = Exported::new(TINY_CHAT, options(precision));
        let selected = graphs_for(&exported.graph, Target::Qnn).unwrap();
        assert_eq!(selected.graphs.len(), 2);
        for graph in &selected.graphs {
            let checked = lfm2_export::check::check("graph", &graph.model, rules(Target::Qnn).unwrap());
            assert!(checked.is_whole() && checked.partitions == 1, "{checked}");
        }
    }
}

#[test]
fn weights_are_smaller_and_the_rest_of_the_package_stays() {
    let size = |exported: &Exported, name: &str| {
        let manifest = fs::read_to_string(exported.package().join(MANIFEST_NAME)).unwrap();
        let files = Manifest::from_json(&manifest).unwrap().files;
        files.iter().find(|file| file.name == name).map(|file| (file.size, file.sha256.clone()))
    };
    let plain = Exported::new(TINY_CHAT, with_static(Precision::Fp32, &[Target::Qnn], CHUNK, CONTEXT));
    let [eight, four] =
        [QnnPrecision::W8a16, QnnPrecision::W4a16].map(|precision| Exported::new(TINY_CHAT, options(precision)));
    let general = size(&plain, "lfm2.onnx_data");
    for exported in [&eight, &four] {
        assert_eq!(size(exported, "lfm2.onnx_data"), general);
    }
    let [(eight, _), (four, _)] = [&eight, &four].map(|it| size(it, "lfm2.qnn.onnx_data").unwrap());
    // A byte and half a byte for each number, and the head with a byte in both.
    assert!(eight * 39 / 10 < general.unwrap().0 && four * 3 < eight * 2, "{eight} {four}");
    assert!(size(&plain, "lfm2.qnn.onnx_data").is_none());
}

#[test]
fn what_is_missing_is_told_before_anything_is_written() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("x.onnx");
    let refused = |options: &Options| {
        let output = Output::new(&out, &options.recipe).unwrap();
        let refused = export(&fixture(TINY_CHAT), &output, options, &mut |_, _| ControlFlow::Continue(()));
        assert!(!out.exists());
        refused.unwrap_err().to_string()
    };
    let wanted = options(QnnPrecision::W8a16);
    let message = refused(&Options { calibration: None, ..wanted.clone() });
    assert!(message.contains("--qnn-precision w8a16 needs --calibration"), "{message}");
    let idle = Targets { qnn: QnnPrecision::W8a16, ..contrib(Precision::Fp32).targets };
    let message = refused(&Options { targets: idle, ..wanted.clone() });
    assert!(message.contains("none are asked for"), "{message}");

    let written = |change: &dyn Fn(&mut Ranges)| {
        let mut calibration = calibration();
        change(&mut calibration.ranges);
        let path = folder.path().join("changed.json");
        fs::write(&path, calibration.to_json().unwrap()).unwrap();
        refused(&Options { calibration: Some(path), ..wanted.clone() })
    };
    let message = written(&BTreeMap::clear);
    assert!(message.contains("changed.json") && message.contains("no ranges"), "{message}");
    let message = written(&|ranges| ranges.retain(|name, _| !name.contains("w1") && !name.starts_with("past_conv.0")));
    assert!(
        message.contains("w1/Gemm") && message.contains("past_conv.0") && message.contains("calibrate"),
        "{message}"
    );
    for wrong in [[1.0, -1.0], [-3e38, 0.0], [f32::MIN, f32::MAX]] {
        let message = written(&|ranges| ranges.iter_mut().take(2).for_each(|(_, range)| *range = wrong));
        assert_eq!(message.matches("its range of").count(), 2, "{message}");
    }

    // Calibrations had no ranges before.
    let path = folder.path().join("old.json");
    fs::write(&path, calibration().to_json().unwrap().replacen("\"version\":3", "\"version\":2", 1)).unwrap();
    let message = refused(&Options { calibration: Some(path), ..wanted });
    assert!(message.contains("version 2") && message.contains("lfm2-export MODEL --for calibrate"), "{message}");
}

/// Who says which numbers graphs are to have has asked for them, though they are among those of every package.
#[test]
fn numbers_that_are_asked_for_are_not_left_out() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("x.onnx");
    let wanted = options(QnnPrecision::W8a16);
    let wanted = Options { targets: Targets { asked: false, ..wanted.targets }, ..wanted };
    for (options, flag) in [
        (Options { caches: Caches::Int8, ..wanted.clone() }, "--kv int8"),
        (Options { dialect: DialectName::Portable, ..wanted }, "--dialect portable"),
    ] {
        let output = Output::new(&out, &options.recipe).unwrap();
        let refused = export(&fixture(TINY_CHAT), &output, &options, &mut |_, _| ControlFlow::Continue(()));
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("no graphs for qnn") && message.contains(flag), "{message}");
        assert!(!out.exists());
    }

    let options = calibrating(DialectName::Portable);
    let options = Options { targets: Targets::default(), ..options };
    let output = Output::for_calibration(&out).unwrap();
    let found = export(&fixture(TINY_CHAT), &output, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert!(found.targets.is_empty() && found.notes.iter().any(|note| note.contains("no ranges")), "{found:?}");
}

#[test]
fn graphs_for_calibration_are_not_mistaken_for_each_other() {
    let exported =
        Exported::new(TINY_CHAT, Options { targets: Targets::default(), ..calibrating(DialectName::Contrib) });
    let general = Package::open(&exported.graph).unwrap();
    general.require_statistics().unwrap();
    let observer = general.ranges().unwrap().unwrap();
    let rows = observer.contract().rows().unwrap();
    assert_eq!((rows.tokens, rows.past), (32, 512));

    let message = observer.require_statistics().unwrap_err().to_string();
    assert!(message.contains("name that one"), "{message}");
    let message = Package::open(&exported.package()).unwrap_err().to_string();
    let name = exported.graph.file_name().unwrap().to_str().unwrap();
    assert!(message.contains(&format!("only graphs for `lfm2-host calibrate`, which takes them by name: {name}")));
    assert!(!message.contains("qnn-calibrate"), "{message}");
}

/// Rows of the token table come from the general graph, whatever the numbers of the graphs that take them.
#[test]
fn a_table_of_fewer_bits_is_named() {
    // Eight bits are what the head has, and what the note recommends.
    let cases = [
        (Precision::Q4, "w8a16, table q4"),
        (Precision::Q4Mixed, "w8a16"),
        (Precision::Q8, "w8a16"),
        (Precision::Fp16, "w8a16"),
    ];
    for (precision, expected) in cases {
        let options = Options { recipe: precision.recipe().unwrap(), ..options(QnnPrecision::W8a16) };
        let exported = Exported::new(TINY_CHAT, options);
        let pair = Package::open(&exported.graph).unwrap().pair(Target::Qnn).unwrap();
        for graph in [&pair.chunk, &pair.token] {
            assert_eq!(graph.contract().formats(), expected);
        }
    }
}

#[test]
fn graphs_whose_states_have_other_scales_are_no_pair() {
    let [one, other] = [1.0, 2.0].map(|factor| {
        let mut calibration = calibration();
        calibration.ranges.get_mut("past_conv.0").unwrap().iter_mut().for_each(|bound| *bound *= factor);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("calibration.json");
        fs::write(&path, calibration.to_json().unwrap()).unwrap();
        Exported::new(TINY_CHAT, calibrated(QnnPrecision::W8a16, &Calibrated { _folder: folder, path }))
    });
    fs::remove_file(one.package().join(MANIFEST_NAME)).unwrap();
    let name = |exported: &Exported| exported.graph.to_str().unwrap().replace(".onnx", ".qnn-chunk.onnx");
    Package::open(&one.graph).unwrap().pair(Target::Qnn).unwrap();
    fs::copy(name(&other), name(&one)).unwrap();
    let message = Package::open(&one.graph).unwrap().pair(Target::Qnn).unwrap_err().to_string();
    assert!(message.contains("states differ"), "{message}");
}

/// What exports a package again with graphs for another provider keeps the numbers of those that are there.
#[test]
fn the_command_for_another_provider_keeps_the_integers() {
    let exported = Exported::new(TINY_CHAT, options(QnnPrecision::W4a16));
    let message = Package::open(&exported.graph).unwrap().pair(Target::Coreml).unwrap_err().to_string();
    assert!(message.contains("--qnn-precision w4a16 --calibration CALIBRATION"), "{message}");
    assert!(message.contains("CALIBRATION is the file of `lfm2-host calibrate`"), "{message}");
}

/// Two numbers of 4 bits share a byte, of which no row may have a half.
#[test]
fn rows_that_4_bits_cannot_hold_are_refused() {
    let name = "bias";
    let folder = changed_checkpoint(name, |name, shape, values| {
        if name.ends_with("w1.weight") || name.ends_with("w3.weight") {
            shape[0] -= 1;
        } else if name.ends_with("w2.weight") {
            let columns = shape[1];
            *values = values.chunks(columns).flat_map(|row| &row[1..]).copied().collect();
            shape[1] -= 1;
        }
        values.truncate(shape.iter().product());
    });
    let path = folder.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("\"intermediate_size\": 64", "\"intermediate_size\": 63")).unwrap();
    let checkpoint = folder.path().to_str().unwrap();
    let window = Window { tokens: (20..60).collect(), counted_from: 1 };
    let calibration = Calibrated::new(checkpoint, &[window]);
    Exported::new(checkpoint, calibrated(QnnPrecision::W8a16, &calibration));
    let options = calibrated(QnnPrecision::W4a16, &calibration);
    let out = TempDir::new().unwrap();
    let output = Output::new(&out.path().join("x.onnx"), &options.recipe).unwrap();
    let refused = export(folder.path(), &output, &options, &mut |_, _| ControlFlow::Continue(()));
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("w2.weight` has rows of 63 values") && message.contains("w8a16"), "{message}");
    assert!(!output.graph().exists());
}

#[test]
fn ranges_are_those_of_the_values() {
    let ranges = calibration().ranges;
    // Everything that follows from what is known has no entry.
    let parts: BTreeSet<_> = ranges.keys().filter_map(|name| name.rsplit('/').next()).collect();
    for absent in ["Reshape", "Transpose", "Slice", "Split", "Softmax", "Sigmoid"] {
        assert!(parts.iter().all(|part| !part.starts_with(absent)), "{absent} in {parts:?}");
    }
    for (name, [least, largest]) in &ranges {
        assert!(least <= largest && least.is_finite() && largest.is_finite(), "{name}");
    }
    // The largest magnitude of a value is that of its channels, which the general graph tells too.
    let calibration = calibration();
    for (name, channels) in calibration.states.iter().filter(|(name, _)| name.ends_with("value")) {
        let largest = channels.iter().fold(0.0_f32, |largest, it| largest.max(*it));
        let [low, high] = ranges[&name.replace("present", "past_key_values")];
        let found = high.max(-low);
        // Chunks are filled up with the beginning of the text, which the other graph does not see at that place.
        assert!(found >= largest * 0.999 && found <= largest * 1.2, "{name}: {found} and {largest}");
    }
}

/// The simulator takes all processors: one of its tests at a time.
static SIMULATOR: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    SIMULATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The simulator, if it is here.
fn simulator() -> Option<&'static dyn provider::Provider> {
    let provider = provider::named("qnn").unwrap();
    match provider.devices(Runtime::load(None).unwrap(), &SessionOptions::with_threads(Some(1))) {
        Ok(_) => Some(provider),
        Err(error) => {
            println!("skipped: --ep qnn is not here: {error}");
            None
        }
    }
}

#[test]
fn the_simulator_computes_what_the_processor_computes() {
    let Some(qnn) = simulator() else { return };
    let _alone = alone();
    let tokens = text(CHUNK + 3);
    // Of 4 bits the products differ more: the compiler keeps fewer bits of their scales.
    for (precision, count, most) in [(QnnPrecision::W8a16, 64, 1e-2), (QnnPrecision::W4a16, 24, 6e-2)] {
        let exported = Exported::new(TINY_CHAT, options(precision));
        let mut expected = on_processor(&exported);
        // Whatever does not run there is an error: nothing falls back.
        let mut found = exported.static_decoder(Target::Qnn, qnn, &SessionOptions::with_threads(Some(2)));
        let prompt = &tokens;
        let mut equal = 0;
        let mut next = None;
        for step in 0..=count - prompt.len() {
            let fed = next.map_or_else(|| prompt.clone(), |token| vec![token]);
            let [expected, found] = [expected.step(&fed).unwrap().to_vec(), found.step(&fed).unwrap().to_vec()];
            let off = error(&found, &expected);
            assert!(off <= most, "{precision}, step {step}: off by {off}");
            equal += usize::from(argmax(&found) == argmax(&expected));
            next = Some(argmax(&expected) as u32);
        }
        let steps = count - prompt.len() + 1;
        println!("{precision}: the best token is the same in {equal} of {steps} steps");
        assert!(equal * 10 >= steps * 9, "{equal} of {steps}");
        for ((name, _, found), (_, _, expected)) in found.states().unwrap().iter().zip(&expected.states().unwrap()) {
            assert!(error(found, expected) <= most, "{precision}: {name} is off by {}", error(found, expected));
        }
    }
}

#[test]
fn questions_are_answered_with_integers() {
    let Some(qnn) = simulator() else { return };
    let _alone = alone();
    let exported = Exported::new(TINY_CHAT, options(QnnPrecision::W8a16));
    let folder = exported.package();
    let (tokenizer, template) = (Tokenizer::load(&folder).unwrap(), ChatTemplate::load(&folder).unwrap());
    let decoder = exported.static_decoder(Target::Qnn, qnn, &SessionOptions::with_threads(Some(2)));
    let mut engine = Engine::new(decoder, tokenizer, template);
    let greedy = Overrides { temperature: Some(0.0), ..Overrides::default() };
    let generation = GenerationDefaults::load(&folder).unwrap().resolve(&greedy).unwrap();
    for (question, answer) in [
        ("What is C. elegans?", "C. elegans is a tiny transparent worm that lives in soil."),
        ("What is the capital of France?", "The capital of France is Paris."),
    ] {
        let prompt = engine.tokenizer().encode_prompt(&chat(question)).unwrap();
        let found = engine.generate(&prompt, &generation, &Cancel::new(), &mut |_| {}).unwrap();
        assert_eq!(found.text.trim(), answer);
    }
}

/// Loading such a binary on x86 ends the process: it is refused, and a device has to show that it loads.
#[test]
fn both_graphs_can_have_their_weights_in_one_binary() {
    if simulator().is_none() {
        return;
    }
    let _alone = alone();
    let exported = Exported::new(TINY_CHAT, options(QnnPrecision::W8a16));
    let out = TempDir::new().unwrap();
    let compile = |folder: &str, more: &[&str]| {
        let host = env!("CARGO_BIN_EXE_host-under-test");
        let mut command = program(host, &["compile", "--ep", "qnn", "--soc", "SM8750", "--json", "--model"]);
        command.arg(&exported.graph).arg("--out").arg(out.path().join(folder)).args(more);
        let row: Value = serde_json::from_str(&run(command).answer()).unwrap();
        let files = out.path().join(folder).join("SM8750").read_dir().unwrap();
        let binaries = files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|it| it == "bin"));
        (row["bytes"].as_u64().unwrap(), binaries.count())
    };
    let ((apart, two), (shared, one)) = (compile("apart", &[]), compile("shared", &["--share-weights"]));
    println!("two binaries of {apart} bytes together, one of {shared}");
    assert_eq!((two, one), (2, 1));
    assert!(shared * 10 < apart * 7, "{shared} of {apart}");

    let ask = |folder: &str| {
        let host = env!("CARGO_BIN_EXE_host-under-test");
        let mut command = program(host, &["--ep", "qnn", "--prompt", "hi", "--max-new-tokens", "1", "--model"]);
        command.arg(&exported.graph).arg("--compiled").arg(out.path().join(folder));
        run(command)
    };
    let message = ask("shared").failure(1);
    assert!(message.contains("share their weights") && message.contains("--share-weights"), "{message}");
    ask("apart").answer();
}

/// A question in the form of the template.
fn chat(question: &str) -> String {
    format!("<|startoftext|><|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
}
