//! The decoder on exported packages: against transformers, and against itself in every way of cutting a prompt.

use std::fs;
use std::path::{Path, PathBuf};

use lfm2_export::package::{DialectName, Options, Output, export};
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::Padding;
use lfm2_host::decoder::{Decoder, DecoderError, OrtDecoder};
use lfm2_host::package::Package;
use lfm2_host::provider;
use lfm2_host::runtime::Runtime;
use lfm2_host::session::{Session, SessionOptions};
use lfm2_tests::packages::complete;
use ndarray::Array2;
use safetensors::SafeTensors;

/// Largest difference allowed, relative to the largest value.
const EXACT: f32 = 2e-5;

/// The same for activations of 16 bits.
const HALF: f32 = 2e-2;

#[test]
fn every_checkpoint_gives_the_logits_and_states_of_transformers() {
    for (name, folder) in checkpoints() {
        let reference = Reference::read(&name);
        for (dialect, precision, tolerance) in [
            (DialectName::Contrib, Precision::Fp32, EXACT),
            (DialectName::Portable, Precision::Fp32, EXACT),
            (DialectName::Contrib, Precision::Fp16, HALF),
        ] {
            let Some(exported) = Exported::new(&folder, dialect, precision) else { continue };
            let case = format!("{name} {dialect:?} {precision:?}");
            let mut decoder = exported.decoder(None);
            let logits = decoder.step_all(&reference.tokens).unwrap();
            assert_close(&case, logits.as_slice().unwrap(), &reference.values("logits"), tolerance);
            if tolerance == EXACT {
                assert_eq!(argmax(&logits), argmax(&reference.logits()), "{case}");
            }
            for (state, shape, values) in decoder.states().unwrap() {
                let state = state.replace("present_conv", "past_conv").replace("present.", "past_key_values.");
                let (expected_shape, expected) = reference.tensor(&state);
                assert_eq!(shape[1..], expected_shape, "{case}: {state}");
                assert_close(&format!("{case}: {state}"), &values, &expected, tolerance);
            }
        }
    }
}

#[test]
fn every_way_of_cutting_a_prompt_is_the_same() {
    for (name, folder) in checkpoints() {
        let tokens = Reference::read(&name).tokens;
        for dialect in [DialectName::Contrib, DialectName::Portable] {
            let Some(exported) = Exported::new(&folder, dialect, Precision::Fp32) else { continue };
            let mut decoder = exported.decoder(None);
            let expected = decoder.step_all(&tokens).unwrap();
            let states = decoder.states().unwrap();
            let last = expected.row(tokens.len() - 1).to_vec();
            for chunk in [1, 2, 5, 7, tokens.len() - 1] {
                let case = format!("{name} {dialect:?} in chunks of {chunk}");
                // Over the buffers of the run before: nothing of it may be seen.
                decoder.reset();
                decoder.set_chunk(chunk);
                assert_close(&case, decoder.step(&tokens).unwrap().as_slice().unwrap(), &last, EXACT);
                assert_same_states(&case, &decoder, &states);
                decoder.reset();
                assert_close(
                    &case,
                    decoder.step_all(&tokens).unwrap().as_slice().unwrap(),
                    expected.as_slice().unwrap(),
                    EXACT,
                );
            }
            decoder.reset();
            let (first, rest) = tokens.split_at(3);
            for (index, &token) in first.iter().enumerate() {
                let logits = decoder.step(&[token]).unwrap().to_vec();
                assert_close(&format!("{name} token {index}"), &logits, &expected.row(index).to_vec(), EXACT);
            }
            decoder.set_chunk(512);
            assert_close(&name, decoder.step(rest).unwrap().as_slice().unwrap(), &last, EXACT);
            assert_same_states(&name, &decoder, &states);
        }
    }
}

#[test]
fn caches_grow_without_changing_the_result() {
    let folder = fixtures().join("tiny-chat");
    for precision in [Precision::Fp32, Precision::Fp16] {
        let exported = Exported::new(&folder, DialectName::Contrib, precision).unwrap();
        let mut decoder = exported.decoder(None);
        // Past several blocks; the tokens repeat with a period that fits no block.
        let tokens: Vec<u32> = (0..1300).map(|index| 20 + index % 37).collect();
        let expected = decoder.step(&tokens).unwrap().to_vec();
        let states = decoder.states().unwrap();
        let tolerance = if precision == Precision::Fp32 { EXACT } else { HALF };

        let mut grown = exported.decoder(None);
        for part in tokens[..1298].chunks(100) {
            grown.step(part).unwrap();
        }
        grown.step(&tokens[1298..1299]).unwrap();
        let logits = grown.step(&tokens[1299..]).unwrap().to_vec();
        assert_close(&format!("{precision:?} logits"), &logits, &expected, tolerance);
        for ((name, shape, found), (_, expected_shape, expected)) in grown.states().unwrap().iter().zip(&states) {
            assert_eq!(shape, expected_shape);
            assert_close(&format!("{precision:?} {name}"), found, expected, tolerance);
        }
    }
}

#[test]
fn the_context_ends_with_an_error_and_nothing_is_lost() {
    for dialect in [DialectName::Contrib, DialectName::Portable] {
        let exported = Exported::new(&fixtures().join("tiny-chat"), dialect, Precision::Fp32).unwrap();
        let mut decoder = exported.decoder(Some(10));
        assert_eq!((decoder.context_length(), decoder.len(), decoder.is_empty()), (10, 0, true));
        let tokens: Vec<u32> = (20..40).collect();
        let error = decoder.step(&tokens[..11]).unwrap_err();
        assert!(matches!(error, DecoderError::ContextFull { held: 0, given: 11, context_length: 10 }), "{error}");
        decoder.step(&tokens[..9]).unwrap();
        let error = decoder.step(&tokens[9..11]).unwrap_err();
        assert!(matches!(error, DecoderError::ContextFull { held: 9, given: 2, context_length: 10 }), "{error}");
        let last = decoder.step(&tokens[9..10]).unwrap().to_vec();
        assert!(matches!(decoder.step(&[1]), Err(DecoderError::ContextFull { held: 10, .. })));
        assert!(matches!(decoder.step(&[]), Err(DecoderError::NoTokens)));
        decoder.reset();
        let vocab_size = decoder.vocab_size();
        let error = decoder.step(&[1, vocab_size as u32]).unwrap_err();
        assert!(matches!(error, DecoderError::UnknownToken { .. }) && decoder.is_empty(), "{error}");
        assert_close("after errors", &decoder.step(&tokens[..10]).unwrap().to_vec(), &last, EXACT);
    }
}

#[test]
fn the_whole_context_of_the_model_can_be_used() {
    let exported = Exported::new(&fixtures().join("tiny-random/resaved"), DialectName::Contrib, Precision::Fp32);
    let mut decoder = exported.unwrap().decoder(None);
    let tokens: Vec<u32> = (0..decoder.context_length() as u32).map(|index| index % 90).collect();
    decoder.step(&tokens[..tokens.len() - 1]).unwrap();
    assert!(decoder.step(&tokens[tokens.len() - 1..]).unwrap().iter().all(|value| value.is_finite()));
    assert!(matches!(decoder.step(&[1]), Err(DecoderError::ContextFull { .. })));
}

/// A package made for a test.
struct Exported {
    folder: tempfile::TempDir,
}

impl Exported {
    /// None if the dialect does not take the model.
    fn new(checkpoint: &Path, dialect: DialectName, precision: Precision) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::new(&folder.path().join("x.onnx"), precision).unwrap();
        let options = Options { precision, dialect, padding: Padding::None, max_context: None };
        let source = folder.path().join("checkpoint");
        complete(checkpoint, &source);
        match export(&source, &output, &options, &mut |_, _| ()) {
            Ok(_) => Some(Self { folder }),
            // The fused attention takes heads of a multiple of 16 only.
            Err(_) if dialect == DialectName::Contrib && checkpoint.ends_with("head-dim-24") => None,
            Err(error) => panic!("{}: {error}", checkpoint.display()),
        }
    }

    fn decoder(&self, max_context: Option<usize>) -> OrtDecoder {
        let package = Package::open(self.folder.path()).unwrap();
        package.verify().unwrap();
        let cpu = provider::named("cpu").unwrap();
        let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
        let session = Session::new(Runtime::load(None).unwrap(), &package, cpu, &options).unwrap();
        OrtDecoder::new(session, max_context).unwrap()
    }
}

/// What transformers computed.
struct Reference {
    file: Vec<u8>,
    tokens: Vec<u32>,
}

impl Reference {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/data").join(format!("{name}.safetensors"));
        let file = fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let bytes = tensors.tensor("input_ids").unwrap();
        let ids = bytes.data().chunks_exact(8).map(|it| i64::from_le_bytes(it.try_into().unwrap()) as u32);
        Self { tokens: ids.collect(), file }
    }

    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let tensors = SafeTensors::deserialize(&self.file).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        let values = tensor.data().chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().unwrap()));
        (tensor.shape().to_vec(), values.collect())
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.tensor(name).1
    }

    fn logits(&self) -> Array2<f32> {
        let (shape, values) = self.tensor("logits");
        Array2::from_shape_vec((shape[0], shape[1]), values).unwrap()
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Every checkpoint by the name of its reference.
fn checkpoints() -> Vec<(String, PathBuf)> {
    let random = fs::read_dir(fixtures().join("tiny-random")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = random.chain([fixtures().join("tiny-chat")]).collect();
    all.sort();
    assert!(all.len() > 8);
    all.into_iter().map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

fn argmax(logits: &Array2<f32>) -> Vec<usize> {
    let largest = |row: ndarray::ArrayView1<f32>| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    logits.rows().into_iter().map(largest).collect()
}

fn assert_same_states(case: &str, decoder: &OrtDecoder, expected: &[(String, Vec<usize>, Vec<f32>)]) {
    for ((name, shape, found), (_, expected_shape, expected)) in decoder.states().unwrap().iter().zip(expected) {
        assert_eq!(shape, expected_shape, "{case}: {name}");
        assert_close(&format!("{case}: {name}"), found, expected, EXACT);
    }
}

fn assert_close(case: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{case}");
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let error = found.iter().zip(expected).fold(0.0_f32, |error, (a, b)| error.max((a - b).abs()));
    // Written so that a result that is no number fails.
    assert!(error <= tolerance * largest && found.iter().all(|it| it.is_finite()), "{case}: {error} of {largest}");
}
