//! Tier "evaluation": how far models are from references and from transformers, in the library and on the command line.
//!
//! `tests/reference/fidelity.py` scored the held-out dialogues.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use lfm2_export::package::DialectName;
use lfm2_export::recipe::{Precision, Recipe};
use lfm2_graphs::contract::Padding;
use lfm2_host::cancel::Cancel;
use lfm2_host::chat::ChatTemplate;
use lfm2_host::decoder::OrtDecoder;
use lfm2_host::documents::{self, Window, windows};
use lfm2_host::evaluate::{Evaluation, EvaluationError, Fidelity, Pass, evaluate, work};
use lfm2_host::text::Tokenizer;
use lfm2_tests::packages::{Exported, TINY_CHAT, calibrating, contrib, fixture, portable, with_recipe};
use lfm2_tests::programs::{program, run};
use lfm2_tests::reference_data;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

static EXACT: LazyLock<Exported> = LazyLock::new(|| Exported::new(TINY_CHAT, contrib(Precision::Fp32)));
static SMALL: LazyLock<Exported> = LazyLock::new(|| Exported::new(TINY_CHAT, contrib(Precision::Q4)));

/// What transformers found.
#[derive(Debug, Deserialize)]
struct Reference {
    documents: Vec<Document>,
    windows: Windows,
}

#[derive(Debug, Deserialize)]
struct Document {
    sha256: String,
    tokens: usize,
    nll: f64,
}

#[derive(Debug, Deserialize)]
struct Windows {
    context: usize,
    windows: usize,
    scored: usize,
    nll: f64,
}

fn reference() -> Reference {
    let text = fs::read_to_string(reference_data().join("tiny-chat-fidelity.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn held_out() -> PathBuf {
    fixture(TINY_CHAT).join("held-out.jsonl")
}

fn tools() -> (Tokenizer, ChatTemplate) {
    let folder = fixture(TINY_CHAT);
    (Tokenizer::load(&folder).unwrap(), ChatTemplate::load(&folder).unwrap().unwrap())
}

/// The held-out dialogues in windows.
fn text(context: usize, limit: Option<usize>) -> Vec<Window> {
    let (tokenizer, template) = tools();
    let documents = documents::read(&held_out(), &tokenizer, Some(&template), limit).unwrap();
    windows(&documents, context, tokenizer.beginning())
}

fn measure(model: &Exported, reference: Option<&Exported>, windows: &[Window], pass: Pass) -> Evaluation {
    let mut reference = reference.map(Exported::decoder);
    let mut done = 0;
    let mut progress = |now| done = now;
    let found = evaluate(&mut model.decoder(), reference.as_mut(), windows, pass, &Cancel::new(), &mut progress);
    assert_eq!(done, work(windows));
    found.unwrap()
}

fn fidelity(model: &Exported, windows: &[Window], pass: Pass) -> Fidelity {
    measure(model, Some(&EXACT), windows, pass).fidelity.unwrap()
}

/// The documents are those that transformers rendered, token by token, and the sums of their logarithms are the same.
#[test]
fn perplexities_are_those_of_transformers() {
    let reference = reference();
    let (tokenizer, template) = tools();
    let documents = documents::read(&held_out(), &tokenizer, Some(&template), None).unwrap();
    assert_eq!(documents.len(), reference.documents.len());
    for (tokens, expected) in documents.iter().zip(&reference.documents) {
        let text = tokenizer.decode_with_special_tokens(tokens).unwrap();
        let hash: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((tokens.len(), &hash), (expected.tokens, &expected.sha256), "{text}");
    }

    // The logits differ by some 1e-6 of the largest; their errors average out.
    let close = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-4, "{found}, not {expected}");
    let scored = reference.documents.iter().map(|document| document.tokens - 1).sum::<usize>();
    let nll: f64 = reference.documents.iter().map(|document| document.nll).sum();
    let whole = measure(&EXACT, None, &text(512, None), Pass::Prefill);
    assert_eq!((whole.tokens, whole.windows), (scored, reference.documents.len()));
    close(whole.perplexity.value, (nll / scored as f64).exp());
    // By the definition, with the sums of transformers.
    let mean = nll / scored as f64;
    let residuals: f64 =
        reference.documents.iter().map(|it| (it.nll - mean * (it.tokens - 1) as f64).powi(2)).sum::<f64>();
    let number = whole.windows as f64;
    let error = (number / (number - 1.0) * residuals).sqrt() / scored as f64;
    close(whole.perplexity.standard_error.unwrap(), error * mean.exp());

    let Windows { context, windows, scored, nll } = reference.windows;
    let cut = measure(&EXACT, None, &text(context, None), Pass::Prefill);
    assert_eq!((cut.tokens, cut.windows), (scored, windows));
    close(cut.perplexity.value, (nll / scored as f64).exp());
}

#[test]
fn a_model_is_faithful_to_itself() {
    let text = text(512, Some(2000));
    let itself = fidelity(&EXACT, &text, Pass::Prefill);
    assert_eq!((itself.divergence.mean.value, itself.divergence.max), (0.0, 0.0));
    assert_eq!((itself.agreement.value, itself.perplexity_ratio.value), (1.0, 1.0));
    // Other kernels compute single tokens, and the other dialect: only rounding is left.
    let other = Exported::new(TINY_CHAT, portable(Precision::Fp32));
    for found in [fidelity(&EXACT, &text, Pass::Decode), fidelity(&other, &text, Pass::Prefill)] {
        assert!(found.divergence.mean.value < 1e-8 && found.divergence.max < 1e-6, "{found:?}");
        assert!(found.agreement.value > 0.998, "{found:?}");
    }
}

/// What rounding to few bits costs this model: see the numbers in the README. A broken packing would cost a hundred times as much.
#[test]
fn quantization_costs_what_it_should() {
    let text = text(512, Some(6000));
    let q4 = fidelity(&SMALL, &text, Pass::Prefill);
    println!("q4: {q4:?}");
    let decoded = fidelity(&SMALL, &self::text(512, Some(2000)), Pass::Decode);
    println!("q4, one token at a time: {decoded:?}");
    let q8 = fidelity(&Exported::new(TINY_CHAT, contrib(Precision::Q8)), &text, Pass::Prefill);
    println!("q8: {q8:?}");
    for found in [&q4, &decoded] {
        assert!((0.005..0.2).contains(&found.divergence.mean.value), "{found:?}");
        assert!((0.75..0.99).contains(&found.agreement.value), "{found:?}");
        assert!(found.divergence.median.value < found.divergence.mean.value, "{found:?}");
        assert!(found.divergence.p99.value < found.divergence.p999.value, "{found:?}");
    }
    assert!(q8.divergence.mean.value <= 0.001 && q8.agreement.value > 0.97, "{q8:?}");
}

/// What the presets promise: q4 loses at most 0.6 times of what plain rounding to blocks of 32 loses, and q4-mixed at most a fifth.
#[test]
fn presets_keep_their_promises() {
    let text = text(512, Some(6000));
    let plain = "name = \"plain\"\ndescription = \"rounded\"\nactivations = \"float32\"\n[[rule]]\n\
                 weights = [\"table\", \"head\", \"matrix\"]\nbits = 4\nblock = 32\nsymmetric = true\nmethod = \"round\"\n";
    let plain = with_recipe(Recipe::parse(plain, "plain.toml").unwrap(), DialectName::Contrib, Padding::None);
    let loss = |model: &Exported| fidelity(model, &text, Pass::Prefill).divergence.mean.value;
    let plain = loss(&Exported::new(TINY_CHAT, plain));
    let [q4, mixed] = [loss(&SMALL), loss(&Exported::new(TINY_CHAT, contrib(Precision::Q4Mixed)))];
    println!("plain rounding {plain:.4}, q4 {q4:.4}, q4-mixed {mixed:.4}");
    assert!(q4 <= 0.6 * plain, "{q4} of {plain}");
    assert!(mixed <= 0.2 * plain, "{mixed} of {plain}");
}

#[test]
fn the_same_text_gives_the_same_numbers() {
    let text = text(100, Some(1500));
    let once = measure(&SMALL, Some(&EXACT), &text, Pass::Prefill);
    assert_eq!(measure(&SMALL, Some(&EXACT), &text, Pass::Prefill), once);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let evaluate = |model: &mut OrtDecoder, reference: Option<&mut OrtDecoder>, windows: &[Window], cancel: &Cancel| {
        evaluate(model, reference, windows, Pass::Prefill, cancel, &mut |_| {}).unwrap_err()
    };
    let other = Exported::new("untied", contrib(Precision::Fp32));
    let text = text(64, Some(100));
    let (mut model, cancel) = (EXACT.decoder(), Cancel::new());
    let error = evaluate(&mut model, Some(&mut other.decoder()), &text, &cancel).to_string();
    assert!(error.contains("1024") && error.contains("112"), "{error}");
    let error = evaluate(&mut other.decoder(), None, &text, &cancel).to_string();
    assert!(error.contains("not in the vocabulary"), "{error}");
    assert!(evaluate(&mut model, None, &[], &cancel).to_string().contains("longer"));
    cancel.cancel();
    let error = evaluate(&mut model, None, &text, &cancel);
    assert!(matches!(error, EvaluationError::Decoder(_)), "{error}");
}

/// `lfm2-host eval` with these arguments.
fn eval(arguments: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_host-under-test"), &[&["eval"], arguments].concat())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_command_prints_a_table_or_json() {
    let held_out = held_out();
    let arguments = [
        "--model",
        path(&SMALL.graph),
        "--reference",
        path(&EXACT.graph),
        "--text",
        path(&held_out),
        "--max-tokens=1000",
        "--context=64",
        "--threads=1",
    ];
    let table = run(eval(&arguments)).answer();
    for part in
        ["lfm2.onnx (q4, contrib)", "(fp32, contrib)", "held-out.jsonl", "divergence", "p99.9", "top-1", "ratio", "±"]
    {
        assert!(table.contains(part), "{part} is missing in:\n{table}");
    }
    let json = run(eval(&[&arguments[..], &["--json"]].concat())).json();
    let number =
        |pointer: &str| json.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {json}"));
    assert_eq!(
        (&json["context"], &json["pass"], &json["model"]["precision"]),
        (&64.into(), &"prefill".into(), &"q4".into())
    );
    let library = measure(&SMALL, Some(&EXACT), &text(64, Some(1000)), Pass::Prefill);
    let fidelity = library.fidelity.unwrap();
    assert_eq!(number("/tokens") as usize, library.tokens);
    // JSON is read back to the last bit but one.
    let equal = |pointer: &str, expected: f64| {
        let found = number(pointer);
        assert!((found / expected - 1.0).abs() < 4e-15, "{pointer}: {found}, not {expected}");
    };
    equal("/fidelity/divergence/mean/value", fidelity.divergence.mean.value);
    equal("/fidelity/divergence/p99/standard_error", fidelity.divergence.p99.standard_error.unwrap());
    equal("/fidelity/agreement/value", fidelity.agreement.value);
    equal("/perplexity/value", library.perplexity.value);

    let decode = ["--model", path(&SMALL.graph), "--text", path(&held_out), "--max-tokens=200", "--decode", "--json"];
    let json = run(eval(&decode)).json();
    assert_eq!((&json["pass"], &json["reference"], &json["fidelity"]), (&"decode".into(), &Value::Null, &Value::Null));
    assert!(json["perplexity"]["value"].as_f64().unwrap() > 1.0);
}

#[test]
fn help_names_the_command_and_its_flags() {
    let host = env!("CARGO_BIN_EXE_host-under-test");
    let help = run(program(host, &["--help"])).answer();
    assert!(help.contains("eval") && help.contains("calibrate"), "{help}");
    let help = run(eval(&["--help"])).answer();
    for text in [
        "--model",
        "--reference",
        "--text",
        "--context",
        "--max-tokens",
        "--decode",
        "--json",
        "--ep",
        "--threads",
        "--quiet",
        "Examples:",
    ] {
        assert!(help.contains(text), "{text} is missing in:\n{help}");
    }
}

#[test]
fn wrong_arguments_and_files_are_told() {
    let held_out = held_out();
    let (model, held_out) = (path(&EXACT.graph), path(&held_out));
    let errors =
        run(eval(&["--model", model, "--text", held_out, "--context=1", "--max-tokens=0", "--threads=x", "--ep=tpu"]))
            .failure(2);
    for part in ["--context \"1\"", "--max-tokens \"0\"", "--threads \"x\"", "tpu"] {
        assert_eq!(errors.matches(part).count(), 1, "{part}: {errors}");
    }
    let errors = run(eval(&["--model", model, "--text", held_out, "--context=100000"])).failure(2);
    assert!(errors.contains("4096"), "{errors}");
    let errors = run(eval(&["--model", model, "--text", "nowhere.jsonl"])).failure(1);
    assert!(errors.contains("nowhere.jsonl cannot be read"), "{errors}");
    assert!(run(eval(&["--model", "nowhere.onnx", "--text", held_out])).failure(1).contains("nowhere.onnx"));

    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.jsonl");
    fs::write(&bad, "{\"text\": \"fine\"}\n{}\n[]\n").unwrap();
    let errors = run(eval(&["--model", model, "--text", path(&bad)])).failure(1);
    assert!(errors.contains("bad.jsonl") && errors.contains("line 2") && errors.contains("line 3"), "{errors}");
}

#[test]
fn other_vocabularies_and_other_graphs_are_refused() {
    let held_out = held_out();
    let (model, held_out) = (path(&EXACT.graph), path(&held_out));
    // As many tokens, of which two have changed places.
    let other = Exported::new(TINY_CHAT, contrib(Precision::Fp32));
    let file = other.package().join("tokenizer.json");
    let text = fs::read_to_string(&file).unwrap();
    let swapped = text.replacen("\"a\":", "\"~\":", 1).replacen("\"b\":", "\"a\":", 1).replacen("\"~\":", "\"b\":", 1);
    assert_eq!(text.len(), swapped.len());
    assert_ne!(text, swapped);
    fs::write(&file, swapped).unwrap();
    let errors = run(eval(&["--model", model, "--reference", path(&other.graph), "--text", held_out])).failure(1);
    assert!(errors.contains("different vocabularies"), "{errors}");

    let calibrating = Exported::new(TINY_CHAT, calibrating(DialectName::Contrib));
    for arguments in [
        &["eval", "--model", path(&calibrating.graph), "--text", held_out][..],
        &["eval", "--model", model, "--reference", path(&calibrating.graph), "--text", held_out],
        &["--model", path(&calibrating.graph), "--prompt", "x"],
    ] {
        let errors = run(program(env!("CARGO_BIN_EXE_host-under-test"), arguments)).failure(1);
        assert!(errors.contains("no model to run") && errors.contains("--for"), "{errors}");
    }
}
