//! Tier "provider": the trained checkpoint answers questions rightly, through the whole pipeline.
//!
//! `tests/reference/questions.py` made the questions, with the answers that transformers gives.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;

use lfm2_export::package::{Caches, Options, Output, Prefill, export};
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::{CALIBRATION_VERSION, Calibration, DType, MANIFEST_NAME, Manifest};
use lfm2_host::cancel::Cancel;
use lfm2_host::chat::{ChatTemplate, Message};
use lfm2_host::decoder::{Decoder, OrtDecoder};
use lfm2_host::engine::{Conversation, Engine, FinishReason};
use lfm2_host::generation::{Generation, GenerationDefaults, Overrides};
use lfm2_host::text::Tokenizer;
use lfm2_tests::packages::{Exported, TINY_CHAT, contrib, fixture, portable, with_prefill};
use lfm2_tests::reference_data;
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Debug, Deserialize)]
struct Question {
    name: String,
    messages: Vec<Message>,
    tools: Option<serde_json::Value>,
    expected: String,
    prompt: String,
    prompt_ids: Vec<u32>,
    answer_ids: Vec<u32>,
}

fn questions() -> Vec<Question> {
    let text = std::fs::read_to_string(reference_data().join("tiny-chat-questions.json")).unwrap();
    let questions: Vec<Question> = serde_json::from_str(&text).unwrap();
    assert_eq!(questions.len(), 20);
    questions
}

/// An engine on an exported package, and greedy settings without penalties.
fn engine(exported: &Exported) -> (Engine<OrtDecoder>, Generation) {
    engine_on(exported, exported.decoder())
}

fn engine_on(exported: &Exported, decoder: OrtDecoder) -> (Engine<OrtDecoder>, Generation) {
    let folder = exported.package();
    let greedy = Overrides { temperature: Some(0.0), repetition_penalty: Some(1.0), ..Overrides::default() };
    let generation = GenerationDefaults::load(&folder).unwrap().resolve(&greedy).unwrap();
    let tokenizer = Tokenizer::load(&folder).unwrap();
    (Engine::new(decoder, tokenizer, ChatTemplate::load(&folder).unwrap()), generation)
}

/// Asks all questions greedily; `exact` compares token by token with transformers.
fn ask(options: Options, exact: bool) -> usize {
    let exported = Exported::new(TINY_CHAT, options);
    let (engine, generation) = engine(&exported);
    ask_engine(engine, &generation, exact)
}

fn ask_engine(mut engine: Engine<OrtDecoder>, generation: &Generation, exact: bool) -> usize {
    let mut right = 0;
    for question in questions() {
        let Question { name, messages, tools, expected, prompt, prompt_ids, answer_ids } = question;
        // Special tokens are not part of the text.
        let expected = expected.replace("<|tool_call_start|>", "").replace("<|tool_call_end|>", "");
        let rendered = engine.render(&messages, tools.as_ref()).unwrap();
        assert_eq!(rendered, prompt, "{name}");
        let tokens = engine.tokenizer().encode_prompt(&rendered).unwrap();
        assert_eq!(tokens, prompt_ids, "{name}");
        let mut streamed = String::new();
        let answer = engine.generate(&tokens, generation, &Cancel::new(), &mut |text| streamed.push_str(text)).unwrap();
        assert_eq!(streamed, answer.text, "{name}");
        if exact {
            assert_eq!(answer.finish_reason, FinishReason::Stop, "{name}");
            assert_eq!(answer.tokens, answer_ids, "{name}: {}", answer.text);
            assert_eq!(answer.text.trim(), expected, "{name}");
        }
        right += usize::from(answer.text.trim() == expected);
    }
    right
}

#[test]
fn float32() {
    assert_eq!(ask(contrib(Precision::Fp32), true), 20);
    assert_eq!(ask(portable(Precision::Fp32), true), 20);
}

#[test]
fn float16() {
    assert_eq!(ask(contrib(Precision::Fp16), true), 20);
    assert_eq!(ask(portable(Precision::Fp16), true), 20);
}

#[test]
fn quantized() {
    // Few bits may cost this small model some answers; a broken packing would cost nearly all.
    for (precision, least) in
        [(Precision::Q8, 20), (Precision::Q4Mixed, 20), (Precision::Q4, 18), (Precision::Q4f16, 18)]
    {
        let right = ask(contrib(precision), false);
        println!("{precision}: {right} of 20");
        assert!(right >= least, "{precision}: {right} of 20");
    }
}

#[test]
fn prompts_through_the_companion() {
    for (precision, least) in [(Precision::Fp32, 20), (Precision::Q8, 20), (Precision::Q4, 18)] {
        let exported = Exported::new(TINY_CHAT, with_prefill(precision));
        let (engine, generation) = engine_on(&exported, exported.decoder_with_companion(2));
        // With exact weights for decoding, every token is that of transformers.
        let right = ask_engine(engine, &generation, precision == Precision::Fp32);
        println!("{precision}: {right} of 20");
        assert!(right >= least, "{precision}: {right} of 20");
    }
}

#[test]
fn caches_of_int8() {
    let exact = Exported::new(TINY_CHAT, contrib(Precision::Fp32));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("calibration.json");
    fs::write(&path, calibrate(&exact).to_json().unwrap()).unwrap();
    for (precision, prefill) in
        [(Precision::Fp32, Prefill::Same), (Precision::Q8, Prefill::Same), (Precision::Q8, Prefill::Int8)]
    {
        let options = Options { caches: Caches::Int8, calibration: Some(path.clone()), prefill, ..contrib(precision) };
        let exported = Exported::new(TINY_CHAT, options);
        let decoder = match prefill {
            Prefill::Same => exported.decoder(),
            Prefill::Int8 => exported.decoder_with_companion(2),
        };
        assert!(decoder.contract().states.iter().all(|state| state.kind.grows() == (state.past.dtype == DType::Int8)));
        let (engine, generation) = engine_on(&exported, decoder);
        let right = ask_engine(engine, &generation, false);
        println!("{precision}, {prefill:?}: {right} of 20");
        assert_eq!(right, 20, "{precision}, {prefill:?}");
    }
}

/// What a run over the prompts shows about the caches.
fn calibrate(exported: &Exported) -> Calibration {
    let mut decoder = exported.decoder();
    let mut states: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let mut tokens = 0;
    for Question { prompt_ids, answer_ids, .. } in questions() {
        decoder.reset();
        decoder.step(&[prompt_ids, answer_ids].concat()).unwrap();
        tokens += decoder.len() as u64;
        let caches = decoder.states().unwrap().into_iter().filter(|(_, shape, _)| shape.len() == 4);
        for (name, shape, values) in caches {
            let largest = states.entry(name).or_insert_with(|| vec![0.0; shape[1] * shape[3]]);
            for (i, value) in values.iter().enumerate() {
                let channel = &mut largest[i / (shape[2] * shape[3]) * shape[3] + i % shape[3]];
                *channel = channel.max(value.abs());
            }
        }
    }
    let manifest = fs::read_to_string(exported.package().join(MANIFEST_NAME)).unwrap();
    let model = Manifest::from_json(&manifest).unwrap().model;
    Calibration {
        version: CALIBRATION_VERSION,
        model,
        tokens,
        weights: BTreeMap::new(),
        states,
        ranges: BTreeMap::new(),
    }
}

#[test]
fn calibrations_that_do_not_fit_are_refused() {
    let exported = Exported::new(TINY_CHAT, contrib(Precision::Fp32));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("calibration.json");
    let options = Options { caches: Caches::Int8, calibration: Some(path.clone()), ..contrib(Precision::Q8) };
    let output = Output::new(&folder.path().join("x.onnx"), &options.recipe).unwrap();
    let refused = |options: &Options| {
        let result = export(&fixture(TINY_CHAT), &output, options, &mut |_, _| ControlFlow::Continue(()));
        result.unwrap_err().to_string()
    };
    let message = refused(&Options { calibration: None, ..options.clone() });
    assert!(message.contains("--calibration"), "{message}");
    let message = refused(&options);
    assert!(message.contains("calibration.json") && message.contains("cannot be read"), "{message}");

    let write = |change: &dyn Fn(&mut Calibration)| {
        let mut calibration = calibrate(&exported);
        change(&mut calibration);
        fs::write(&path, calibration.to_json().unwrap()).unwrap();
        refused(&options)
    };
    let message = write(&|calibration| calibration.model = "another".into());
    assert!(message.contains("of another checkpoint"), "{message}");
    let message = write(&|calibration| {
        let names: Vec<_> = calibration.states.keys().cloned().collect();
        calibration.states.remove(&names[0]);
        calibration.states.get_mut(&names[1]).unwrap().pop();
        calibration.states.get_mut(&names[2]).unwrap()[0] = -1.0;
    });
    for part in ["has nothing about", "and the model", "its magnitudes"] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

/// A later turn feeds only what is new, and says what a fresh state says to the whole history.
#[test]
fn a_conversation_goes_on_from_its_state() {
    let package = Exported::new(TINY_CHAT, contrib(Precision::Fp32));
    let (mut engine, generation) = engine(&package);
    let (mut fresh, _) = self::engine(&package);
    let mut conversation = Conversation::new(None);
    let cancel = Cancel::new();
    let mut known = 0;
    for text in ["My name is Ada.", "What is the capital of France?", "What is my name?"] {
        let answer = conversation.say(text, &mut engine, &generation, &cancel, &mut |_| {}).unwrap();
        assert_eq!(answer.timings.reused_tokens, known, "{text}");
        known = engine.state_tokens();

        let messages = conversation.messages();
        let prompt = fresh.render(&messages[..messages.len() - 1], None).unwrap();
        let tokens = fresh.tokenizer().encode_prompt(&prompt).unwrap();
        fresh.reset();
        let expected = fresh.generate(&tokens, &generation, &cancel, &mut |_| {}).unwrap();
        assert_eq!((&answer.text, &answer.tokens), (&expected.text, &expected.tokens), "{text}");
    }
}
