//! Tier "provider": static graphs compute what the general graph computes, on every provider that is here.
//!
//! The processor is always here and runs the graphs of all providers, so that this suite always tests something. Where Qualcomm's
//! plugin is there (`make runtime-qnn`), its simulator of an NPU runs the whole package, and nothing may fall back to the
//! processor.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::Target;
use lfm2_host::cancel::Cancel;
use lfm2_host::chat::ChatTemplate;
use lfm2_host::decoder::{AnyDecoder, Decoder, DecoderError, FixedDecoder, OrtDecoder, Rewind};
use lfm2_host::documents::Window;
use lfm2_host::engine::{Engine, FinishReason};
use lfm2_host::evaluate::{EvaluationError, Pass, evaluate};
use lfm2_host::generation::{Generation, GenerationDefaults, Overrides};
use lfm2_host::measure::agreement::agreement as agreement_with;
use lfm2_host::package::{FileRole, Package, PackageError};
use lfm2_host::provider::{self, Fallback, Provider, SessionOptions};
use lfm2_host::runtime::Runtime;
use lfm2_host::text::Tokenizer;
use lfm2_tests::compare::{FLOAT16, OTHER_GRAPH, agreement, argmax, error};
use lfm2_tests::packages::{Exported, TINY_CHAT, TINY_RANDOM, contrib, needs_portable, with_static};
use lfm2_tests::programs::{Outcome, program, run};
use lfm2_tests::reference_data;
use serde_json::Value;
use tempfile::TempDir;

/// Largest error of logits over packed weights: the processor's kernels for them round activations to bytes, by blocks of them, so that a last bit that
/// differs before moves a byte by one, which is 1/254 of the largest number of its block. Up to 6.1e-3 is seen, and 1.4e-2 beside float16.
const BYTES: f64 = 2e-2;

const STATIC: [Target; 3] = [Target::Coreml, Target::Nnapi, Target::Qnn];

/// The simulator takes all processors and gigabytes of memory: one of its tests at a time.
static SIMULATOR: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    SIMULATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cpu() -> &'static dyn Provider {
    provider::named("cpu").unwrap()
}

fn thread() -> SessionOptions {
    SessionOptions::with_threads(Some(1))
}

/// The provider called `name`, if it can be used here. If not, why is printed.
fn present(name: &str) -> Option<&'static dyn Provider> {
    let provider = provider::named(name).unwrap();
    match provider.devices(Runtime::load(None).unwrap(), &thread()) {
        Ok(_) => Some(provider),
        Err(error) => {
            println!("skipped: --ep {name} is not here: {error}");
            None
        }
    }
}

/// Tokens that look like a text of the tiny vocabularies.
fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|index| 20 + index * 7 % 67).collect()
}

/// Feeds `prompt` and then `decoded`, token by token; the logits after each.
fn logits<D: Decoder>(decoder: &mut D, prompt: &[u32], decoded: &[u32]) -> Vec<Vec<f32>> {
    decoder.reset();
    let mut rows = vec![decoder.step(prompt).unwrap().to_vec()];
    rows.extend(decoded.iter().map(|token| decoder.step(&[*token]).unwrap().to_vec()));
    rows
}

/// Rows of keys and values of static graphs in the order of the general graph's, `[heads, rows, width]`, and columns as
/// `[channels, columns]`.
fn in_order(fixed: &FixedDecoder) -> Vec<Vec<f32>> {
    let general = |(name, shape, values): &(String, Vec<usize>, Vec<f32>)| {
        if name.contains("value") {
            return values.clone();
        }
        let [rows, columns] = [shape[shape.len() - 2], shape[shape.len() - 1]];
        let swapped = |part: &[f32]| -> Vec<f32> {
            (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column)).map(|i| part[i]).collect()
        };
        values.chunks(rows * columns).flat_map(swapped).collect()
    };
    fixed.states().unwrap().iter().map(general).collect()
}

fn states_agree(fixed: &FixedDecoder, general: &OrtDecoder, tolerance: f64, what: &str) {
    let expected = general.states().unwrap();
    let found = in_order(fixed);
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, (name, _, expected)) in found.iter().zip(&expected) {
        assert!(error(found, expected) <= tolerance, "{what}: {name} is off by {}", error(found, expected));
    }
}

#[test]
fn static_graphs_compute_what_the_general_graph_computes() {
    for fixture in TINY_RANDOM.iter().copied().filter(|fixture| !needs_portable(fixture)) {
        let exported = Exported::new(fixture, with_static(Precision::Fp32, &STATIC, 8, 48));
        let mut general = exported.decoder();
        let all = tokens(40);
        for target in STATIC {
            // The graphs for Core ML compute in float16 whatever the recipe: 11 bits, over a few layers.
            let tolerance = if target == Target::Coreml { 2.0 * FLOAT16 } else { OTHER_GRAPH };
            let mut fixed = exported.static_decoder(target, cpu(), &thread());
            assert_eq!((fixed.chunk(), fixed.context_length()), (8, 48));
            // Whole chunks, a padded one, a single token, a token more than a chunk.
            for prompt in [1, 2, 9, 16, 21, 24] {
                let what = format!("{fixture}, {target}, a prompt of {prompt}");
                let (prompt, decoded) = (&all[..prompt], &all[prompt..prompt + 6]);
                let expected = logits(&mut general, prompt, decoded);
                for (found, expected) in logits(&mut fixed, prompt, decoded).iter().zip(&expected) {
                    let off = error(found, expected);
                    assert!(off <= tolerance, "{what}: logits are off by {off}");
                }
                states_agree(&fixed, &general, tolerance, &what);
            }
        }
    }
}

#[test]
fn quantized_rows_are_those_of_the_general_graph() {
    for (precision, tolerance) in [
        (Precision::Fp16, 2.0 * FLOAT16),
        (Precision::Q8, BYTES),
        (Precision::Q4, BYTES),
        (Precision::Q4Mixed, BYTES),
        (Precision::Q4f16, BYTES + FLOAT16),
    ] {
        let exported = Exported::new(TINY_CHAT, with_static(precision, &[Target::Qnn], 16, 64));
        let (mut general, mut fixed) = (exported.decoder(), exported.static_decoder(Target::Qnn, cpu(), &thread()));
        let all = tokens(45);
        let (expected, found) =
            (logits(&mut general, &all[..37], &all[37..]), logits(&mut fixed, &all[..37], &all[37..]));
        let mut most = 0.0_f64;
        for (found, expected) in found.iter().zip(&expected) {
            let off = error(found, expected);
            assert!(off <= tolerance, "{precision}: logits are off by {off}");
            most = most.max(off);
        }
        println!("{precision}: logits are off by {most:e} at most");
    }
}

#[test]
fn the_context_ends_where_the_rows_end() {
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Fp32, &[Target::Qnn], 8, 24));
    let mut fixed = exported.static_decoder(Target::Qnn, cpu(), &thread());
    let all = tokens(25);
    let full = |result: Result<_, DecoderError>, held: usize, given: usize| match result {
        Err(DecoderError::ContextFull { held: h, given: g, context_length: 24 }) => assert_eq!((h, g), (held, given)),
        Err(other) => panic!("{other}"),
        Ok(()) => panic!("there are 24 rows"),
    };
    full(fixed.step(&all).map(drop), 0, 25);
    assert!(fixed.is_empty());
    let expected = fixed.step(&all[..24]).unwrap().to_vec();
    full(fixed.step(&all[..1]).map(drop), 24, 1);
    fixed.reset();
    fixed.step(&all[..23]).unwrap();
    full(fixed.step(&all[..2]).map(drop), 23, 2);
    assert!(error(fixed.step(&all[23..24]).unwrap().as_slice().unwrap(), &expected) <= OTHER_GRAPH);
    assert!(matches!(fixed.step(&[]), Err(DecoderError::NoTokens)));
    fixed.reset();
    assert!(matches!(fixed.step(&[100_000]), Err(DecoderError::UnknownToken { id: 100_000, .. })));
    assert!(!fixed.can_rollback());
    assert!(matches!(fixed.verify(&all[..2]), Err(DecoderError::NoRollback)));
}

#[test]
fn an_answer_ends_where_the_rows_end() {
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Fp32, &[Target::Qnn], 8, 24));
    let folder = exported.package();
    let finish = |generation: &Generation, decoder: FixedDecoder| {
        let (tokenizer, template) = (Tokenizer::load(&folder).unwrap(), ChatTemplate::load(&folder).unwrap());
        let mut engine = Engine::new(decoder, tokenizer, template);
        assert!(matches!(engine.speculate(4), Err(DecoderError::NoRollback)));
        let prompt = engine.tokenizer().encode_prompt(QUESTION).unwrap();
        engine.generate(&prompt, generation, &Cancel::new(), &mut |_| {}).unwrap().finish_reason
    };
    let never_ends = |overrides: Overrides| {
        let mut generation = GenerationDefaults::load(&folder).unwrap().resolve(&overrides).unwrap();
        generation.eos.clear();
        generation
    };
    let decoder = || exported.static_decoder(Target::Qnn, cpu(), &thread());
    assert_eq!(finish(&never_ends(Overrides::default()), decoder()), FinishReason::Context);
    let two = Overrides { max_new_tokens: Some(2), ..Overrides::default() };
    assert_eq!(finish(&never_ends(two), decoder()), FinishReason::Length);
}

#[test]
fn what_was_marked_is_come_back_to() {
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Fp32, &[Target::Qnn], 8, 40));
    let mut fixed = exported.static_decoder(Target::Qnn, cpu(), &thread());
    let all = tokens(30);
    assert!(matches!(fixed.rewind(), Err(DecoderError::NotMarked)));
    fixed.step(&all[..11]).unwrap();
    fixed.mark().unwrap();
    let expected = fixed.step(&all[11..20]).unwrap().to_vec();
    fixed.step(&all[20..]).unwrap();
    for _ in 0..2 {
        fixed.rewind().unwrap();
        assert_eq!(fixed.len(), 11);
        assert_eq!(fixed.step(&all[11..20]).unwrap().to_vec(), expected);
    }
    // A cancelled prompt keeps what was run: whole parts, and no part by half.
    let cancel = Cancel::new();
    fixed.set_cancel(cancel.clone());
    fixed.reset();
    cancel.cancel();
    assert!(matches!(fixed.step(&all), Err(DecoderError::Cancelled)));
    let held = fixed.len();
    cancel.clear();
    let rest = fixed.step(&all[held..]).unwrap().to_vec();
    fixed.reset();
    assert!(error(&rest, fixed.step(&all).unwrap().as_slice().unwrap()) <= OTHER_GRAPH, "after {held}");
    let rows = {
        fixed.reset();
        fixed.step_all(&all[..5]).unwrap()
    };
    fixed.reset();
    assert!(error(&rows.row(4).to_vec(), fixed.step(&all[..5]).unwrap().as_slice().unwrap()) <= OTHER_GRAPH);
}

/// Damages the graph for chunks alone: it reads its weights from another file.
fn damage_chunks(exported: &Exported) {
    let (name, other) = (b"lfm2.onnx_data", b"lfmX.onnx_data");
    let path = exported.package().join("lfm2.qnn-chunk.onnx");
    let mut graph = std::fs::read(&path).unwrap();
    let mut found = 0;
    for place in 0..graph.len() - name.len() {
        if graph[place..].starts_with(name) {
            graph[place..place + name.len()].copy_from_slice(other);
            found += 1;
        }
    }
    assert!(found > 0);
    std::fs::write(&path, graph).unwrap();
    // The numbers of other weights, a page further on.
    let mut weights = std::fs::read(exported.package().join("lfm2.onnx_data")).unwrap();
    weights.rotate_left(4096);
    std::fs::write(exported.package().join("lfmX.onnx_data"), weights).unwrap();
}

#[test]
fn prompts_are_compared_through_the_graph_for_chunks() {
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Fp32, &[Target::Qnn], 8, 48));
    let reference = Package::open(&exported.graph).unwrap();
    let compare = |pass| {
        let mut model = AnyDecoder::Fixed(exported.static_decoder(Target::Qnn, cpu(), &thread()));
        agreement_with(&mut model, Runtime::load(None).unwrap(), &reference, 1, pass).unwrap()
    };
    let (prompts, answers) = (compare(Pass::Prefill), compare(Pass::Decode));
    // Four texts: prompts of 2, 5, 9 and 10 tokens, and all tokens but the first.
    assert_eq!((prompts.tokens, answers.tokens), (16, 4 * 47));
    for found in [&prompts, &answers] {
        // Both are float32 and add up in another order.
        assert!(found.top1 > 0.99 && found.mean_kld < 1e-6, "{found:?}");
    }
    damage_chunks(&exported);
    let damaged = compare(Pass::Prefill);
    assert!(damaged.mean_kld > 1e-2, "{damaged:?}");
    assert_eq!(compare(Pass::Decode), answers);
}

#[test]
fn a_text_is_not_evaluated_as_a_prompt_where_prompts_have_no_logits() {
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Fp32, &[Target::Qnn], 8, 48));
    let mut fixed = exported.static_decoder(Target::Qnn, cpu(), &thread());
    let windows = [Window { tokens: tokens(20), counted_from: 1 }];
    let mut evaluated = |pass| evaluate(&mut fixed, None, &windows, pass, &Cancel::new(), &mut |_| {});
    let refused = evaluated(Pass::Prefill).unwrap_err();
    assert!(matches!(refused, EvaluationError::OnlyLast) && refused.to_string().contains("--decode"), "{refused}");
    assert_eq!(evaluated(Pass::Decode).unwrap().tokens, 19);
}

#[test]
fn pairs_that_do_not_belong_here_are_refused() {
    let exported = Exported::new(TINY_CHAT, contrib(Precision::Fp32));
    let package = Package::open(&exported.graph).unwrap();
    let message = package.pair(Target::Qnn).unwrap_err().to_string();
    assert!(message.contains("--for cpu,qnn") && message.contains("lfm2.onnx"), "{message}");

    let options = with_static(Precision::Fp32, &[Target::Qnn], 8, 24);
    let (first, second) = (
        Exported::new(TINY_CHAT, &options),
        Exported::new(TINY_CHAT, with_static(Precision::Fp32, &[Target::Qnn], 8, 32)),
    );
    let chunk = first.package().join("lfm2.qnn-chunk.onnx");
    std::fs::copy(second.package().join("lfm2.qnn-chunk.onnx"), &chunk).unwrap();
    std::fs::remove_file(first.package().join("lfm2.manifest.json")).unwrap();
    let refused = Package::open(&first.graph).unwrap().pair(Target::Qnn).unwrap_err();
    let PackageError::Pair { problems, .. } = &refused else { panic!("{refused}") };
    assert!(problems.iter().any(|problem| problem.contains("rows of the past")), "{refused}");
    std::fs::copy(first.package().join("lfm2.qnn-token.onnx"), &chunk).unwrap();
    assert!(matches!(Package::open(&first.graph).unwrap().pair(Target::Qnn), Err(PackageError::Purpose { .. })));
}

/// The program with these arguments.
fn host(arguments: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_host-under-test"), arguments)
}

const QUESTION: &str = "What is C. elegans?";
const ANSWER: &str = "C. elegans is a tiny transparent worm that lives in soil.";

/// Asks [`QUESTION`] with the best token each time.
fn ask(graph: &Path, arguments: &[&str]) -> Outcome {
    let mut command = host(&["--prompt", QUESTION, "--temperature=0", "--json", "--model"]);
    command.arg(graph).args(arguments);
    run(command)
}

/// Whether a small graph runs on the provider, in a process of its own: each may need another build of the runtime.
fn works(name: &str) -> bool {
    let outcome = run(host(&["doctor", "--json", "--ep", name]));
    let report: Value = serde_json::from_str(&outcome.output).unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    report["works"].as_bool().unwrap()
}

/// Of each provider's graphs their own files, and not those of the processor's graph.
#[test]
fn every_graph_lists_what_it_is_loaded_from() {
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Fp16, &[Target::Qnn, Target::Cuda], 16, 64));
    let package = Package::open(&exported.graph).unwrap();
    let pair = package.pair(Target::Qnn).unwrap();
    for (graph, name) in [
        (package.dynamic(Target::Cuda).unwrap(), "package/lfm2.cuda.onnx"),
        (pair.chunk, "package/lfm2.qnn-chunk.onnx"),
        (pair.token, "package/lfm2.qnn-token.onnx"),
    ] {
        let files = graph.used_files().unwrap();
        let graphs: Vec<_> = files.iter().filter(|file| file.role == FileRole::Graph).map(|file| &*file.name).collect();
        assert_eq!((graphs, files.len() > 1), (vec![name], true), "{files:?}");
        for file in &files {
            let path = exported.package().parent().unwrap().join(&file.name);
            assert_eq!(path.metadata().unwrap().len(), file.size, "{}", file.name);
        }
        // The token table is looked up by the host, or is one of the weights.
        let table = format!("package/{}", graph.contract().table.values.file);
        assert!(files.iter().any(|file| file.name == table), "{files:?}");
    }
}

/// Every provider answers from one package, or is told not to be here with what to do.
#[test]
fn every_provider_answers_or_says_what_is_missing() {
    let _alone = alone();
    let targets = [&STATIC[..], &[Target::Cuda]].concat();
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Fp16, &targets, 16, 128));
    for name in provider::names() {
        let outcome = ask(&exported.graph, &["--ep", name]);
        if !works(name) {
            let reason = outcome.failure(1);
            println!("skipped: --ep {name}: {reason}");
            assert!(name != "cpu" && reason.contains(name), "{reason}");
            continue;
        }
        assert_eq!(outcome.status, Some(0), "--ep {name}: {}", outcome.errors);
        let answer: Value = serde_json::from_str(&outcome.output).unwrap();
        assert_eq!((&answer["text"], &answer["provider"]), (&ANSWER.into(), &name.into()));
        let (placement, provider) = (answer["placement"].as_object().unwrap(), provider::named(name).unwrap());
        assert!(placement.contains_key(provider.runtime_name()), "{placement:?}");
        // Others may leave nodes that only handle shapes to the processor.
        if provider.fallback() == Fallback::Refused {
            assert!(placement.keys().all(|key| key == provider.runtime_name()), "{placement:?}");
        }
        println!("--ep {name} answered: {} tokens", answer["tokens"].as_array().unwrap().len());
    }
}

#[test]
fn a_package_without_graphs_for_the_provider_says_how_to_make_them() {
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Fp16, &[Target::Qnn], 16, 128));
    let message = ask(&exported.graph, &["--ep", "nnapi"]).failure(1);
    assert!(message.contains("lfm2-export MODEL --for cpu,nnapi,qnn --precision fp16"), "{message}");
    // Before anything is loaded.
    for (arguments, part) in [
        (["--speculate", "4"], "--speculate needs logits of several tokens"),
        (["--prefill", "int8"], "--prefill int8 names a graph for the processor"),
        (["--max-context", "129"], "export it with a larger --static-context"),
    ] {
        // Without the plugin that is what is told.
        let outcome = ask(&exported.graph, &[&["--ep", "qnn"], &arguments[..]].concat());
        let told = [part, "runtime-qnn"].iter().any(|part| outcome.errors.contains(part));
        assert!(outcome.status == Some(1) && told, "{}", outcome.errors);
    }
    let message = ask(&exported.graph, &["--compiled", "x"]).failure(1);
    assert!(message.contains("--compiled is for --ep qnn"), "{message}");
}

/// Questions of the trained model with the answers that transformers gives. The simulator takes a quarter of a second for a token:
/// these are some of the short ones, with several turns and a text of another script among them.
#[test]
fn the_simulator_answers_questions() {
    const ASKED: [&str; 5] = ["worm", "capital-of-france", "color-with-system-prompt", "repeat", "name-memory"];
    let Some(qnn) = present("qnn") else { return };
    let _alone = alone();
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Fp16, &[Target::Qnn], 16, 128));
    let decoder = exported.static_decoder(Target::Qnn, qnn, &thread());
    let folder = exported.package();
    let (tokenizer, template) = (Tokenizer::load(&folder).unwrap(), ChatTemplate::load(&folder).unwrap());
    let mut engine = Engine::new(decoder, tokenizer, template);
    let greedy = Overrides { temperature: Some(0.0), repetition_penalty: Some(1.0), ..Overrides::default() };
    let generation = GenerationDefaults::load(&folder).unwrap().resolve(&greedy).unwrap();
    let text = std::fs::read_to_string(reference_data().join("tiny-chat-questions.json")).unwrap();
    let questions: Vec<Value> = serde_json::from_str(&text).unwrap();
    let tokens = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let asked: Vec<_> = questions.iter().filter(|it| ASKED.iter().any(|name| it["name"] == *name)).collect();
    assert_eq!(asked.len(), ASKED.len());
    for question in asked {
        let prompt = tokens(&question["prompt_ids"]);
        let answer = engine.generate(&prompt, &generation, &Cancel::new(), &mut |_| {}).unwrap();
        assert_eq!(answer.tokens, tokens(&question["answer_ids"]), "{}: {}", question["name"], answer.text);
    }
}

/// Compiled for several chips, loaded again in another process, and run: the same answer. What is stale or foreign is refused.
#[test]
fn compiled_graphs_answer_and_go_stale() {
    if present("qnn").is_none() {
        return;
    }
    let _alone = alone();
    let options = with_static(Precision::Q4Mixed, &[Target::Qnn], 16, 64);
    let exported = Exported::new(TINY_CHAT, &options);
    let out = TempDir::new().unwrap();
    let compile = |soc: &str| {
        let mut command = host(&["compile", "--ep", "qnn", "--json", "--soc", soc, "--model"]);
        command.arg(&exported.graph).arg("--out").arg(out.path());
        run(command)
    };
    let message = compile("SM8750,SM9999").failure(2);
    assert!(message.contains("SM9999") && message.contains("SM8550 (Snapdragon 8 Gen 2)"), "{message}");
    let outcome = compile("SM8550,SM8750");
    assert_eq!(outcome.status, Some(0), "{}", outcome.errors);
    println!("{}", outcome.output);
    let rows: Vec<Value> = outcome.output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&rows[0]["soc_model"], &rows[1]["soc_model"]), (&43.into(), &69.into()));
    assert_eq!(out.path().read_dir().unwrap().count(), 2, "nothing half done is left");

    let compiled = out.path().to_str().unwrap();
    let with = |arguments: &[&str]| ask(&exported.graph, &[&["--ep", "qnn", "--compiled"], arguments].concat());
    for (soc, most, said) in [("SM8550", "40", ANSWER), ("SM8750", "3", &ANSWER[..2])] {
        let outcome = with(&[&format!("{compiled}/{soc}"), "--verify", "--max-new-tokens", most]);
        assert_eq!(outcome.status, Some(0), "{}", outcome.errors);
        let answer: Value = serde_json::from_str(&outcome.output).unwrap();
        assert!(answer["text"].as_str().unwrap().starts_with(said), "{answer}");
        // Nothing but what was compiled: a node for each graph.
        assert_eq!(answer["placement"], serde_json::json!({"QNNExecutionProvider": 2}));
    }
    let message = with(&[compiled]).failure(1);
    assert!(message.contains("soc_model") && message.contains("SM8550, SM8750"), "{message}");
    let message = with(&[&format!("{compiled}/SM8550"), "--ep-option", "soc_model=69,43"]).failure(1);
    assert!(message.contains("--compiled is for one chip"), "{message}");
    let message = with(&[&format!("{compiled}/SM8550"), "--ep-option", "htp_arch=79"]).failure(1);
    assert!(message.contains("generation 73, and htp_arch is 79"), "{message}");
    let message = with(&[&format!("{compiled}/SM8550"), "--ep-option", "soc_model=69"]).failure(1);
    assert!(message.contains("it is for SM8550 (43), and soc_model is 69"), "{message}");

    // The benchmark tells what compiling costs, and where it was saved.
    let measured = |arguments: &[&str]| -> Value {
        let mut command = host(&["bench", "--ep", "qnn", "-p", "0", "-n", "1", "-r", "1", "-o", "json", "--model"]);
        command.arg(&exported.graph).args(arguments);
        let outcome = run(command);
        assert_eq!(outcome.status, Some(0), "{}", outcome.errors);
        let rows: Value = serde_json::from_str(&outcome.output).unwrap();
        rows[0].clone()
    };
    let row = measured(&[]);
    assert_eq!((&row["status"], &row["cache_hit"]), (&"ok".into(), &false.into()), "{row}");
    assert_eq!(row["session_with_compiling_ns"], row["session_ns"], "{row}");
    // Both graphs, and the token table, which the host reads. Nothing of the processor's graph.
    let names = |row: &Value| {
        let files = row["model_files"].as_array().unwrap().iter();
        files.map(|file| file["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let found = names(&row);
    assert_eq!(found[..2], ["package/lfm2.qnn-chunk.onnx", "package/lfm2.qnn-token.onnx"], "{row}");
    assert_eq!((found[2..].contains(&"package/lfm2.onnx_data".to_owned()), &row["dialect"]), (true, &"qnn".into()));
    assert_eq!(row["model_sha256"].as_str().unwrap().len(), 2 * 64 + 1);
    assert_eq!(row["model_filename"], "package/lfm2.onnx");
    let row = measured(&["--compiled", &format!("{compiled}/SM8750")]);
    assert_eq!((&row["cache_hit"], &row["session_with_compiling_ns"]), (&true.into(), &Value::Null), "{row}");
    assert_eq!(row["placement"], serde_json::json!({"QNNExecutionProvider": 2}), "{row}");
    // What was compiled, and still the table.
    let found = names(&row);
    assert_eq!(found[..2], ["SM8750/lfm2.qnn-chunk.onnx", "SM8750/lfm2.qnn-token.onnx"], "{row}");
    assert!(found[2..].iter().any(|name| name.starts_with("SM8750/") && name.ends_with(".bin")), "{row}");
    assert!(found.contains(&"package/lfm2.onnx_data".to_owned()), "{row}");

    // A context of another export, another runtime, and a file that is cut short.
    let description = out.path().join("SM8550/lfm2.compiled.json");
    let text = std::fs::read_to_string(&description).unwrap();
    let version = Runtime::load(None).unwrap().version();
    std::fs::write(&description, text.replace(version, "1.99.0")).unwrap();
    let other = Exported::new(TINY_CHAT, with_static(Precision::Q4Mixed, &[Target::Qnn], 16, 48));
    let message = ask(&other.graph, &["--ep", "qnn", "--compiled", &format!("{compiled}/SM8550")]).failure(1);
    for part in [
        "ONNX Runtime 1.99.0",
        "lfm2.qnn-chunk.onnx or its weights",
        "lfm2.qnn-token.onnx or its weights",
        "lfm2-host compile --ep qnn",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    let cut = out.path().join("SM8750/lfm2.qnn-token.onnx");
    std::fs::write(&cut, &std::fs::read(&cut).unwrap()[..100]).unwrap();
    let message = with(&[&format!("{compiled}/SM8750")]).failure(1);
    assert!(message.contains("lfm2.qnn-token.onnx has 100 bytes"), "{message}");
}

/// Compilers cannot be stopped: the program ends at once, and nothing half done is left.
#[cfg(unix)]
#[test]
fn an_interrupted_compilation_leaves_nothing() {
    if present("qnn").is_none() {
        return;
    }
    let _alone = alone();
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Q4Mixed, &[Target::Qnn], 16, 64));
    for signal in ["-INT", "-TERM"] {
        let out = TempDir::new().unwrap();
        let mut command = host(&["compile", "--ep", "qnn", "--soc", "SM8750", "--model"]);
        command.arg(&exported.graph).arg("--out").arg(out.path());
        let mut child = command.spawn().unwrap();
        let is_begun = || out.path().read_dir().unwrap().count() > 0;
        while !is_begun() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
            std::thread::yield_now();
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}");
        assert!(!is_begun(), "{signal}");
    }
}

/// The whole package on the simulator: chunks, then 64 tokens whose states are carried, against the processor.
#[test]
fn the_simulator_computes_what_the_processor_computes() {
    let Some(qnn) = present("qnn") else { return };
    let _alone = alone();
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Fp16, &[Target::Qnn], 32, 128));
    let mut general = exported.decoder();
    let start = std::time::Instant::now();
    let mut fixed = exported.static_decoder(Target::Qnn, qnn, &thread());
    println!("loaded in {:?}", start.elapsed());
    for placement in fixed.placements() {
        assert_eq!(placement.elsewhere(qnn.runtime_name()).count(), 0);
        assert!(!placement.on(qnn.runtime_name()).is_empty());
    }
    let all = tokens(45);
    let expected = logits(&mut general, &all, &[]);
    let start = std::time::Instant::now();
    let mut found = logits(&mut fixed, &all, &[]);
    println!("prompt in {:?}", start.elapsed());
    let (mut expected, mut same, mut most) = (expected, 0, 0.0_f64);
    let start = std::time::Instant::now();
    for _ in 0..64 {
        let (last, reference) = (found.last().unwrap(), expected.last().unwrap());
        let off = error(last, reference);
        most = most.max(off);
        // Both compute with 11 bits, and sum in another order: 3.1e-3 is seen.
        assert!(off <= FLOAT16, "logits are off by {off} at {}", fixed.len());
        let next = argmax(reference);
        same += usize::from(argmax(last) == next);
        let next = [next as u32];
        expected.push(general.step(&next).unwrap().to_vec());
        found.push(fixed.step(&next).unwrap().to_vec());
    }
    println!("64 tokens in {:?}, logits off by {most:e} at most", start.elapsed());
    assert_eq!(same, 64, "the best token is the same everywhere");
    states_agree(&fixed, &general, 2.0 * FLOAT16, "after 109 tokens");
    let (found, expected) = (found.concat(), expected.concat());
    println!("{:?}", agreement(&found, &expected, fixed.vocab_size()));
}
