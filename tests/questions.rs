//! Tier "provider": the trained checkpoint answers questions rightly, through the whole pipeline.
//!
//! `tests/reference/questions.py` made the questions, with the answers that transformers gives.

use lfm2_export::package::Options;
use lfm2_export::recipe::Precision;
use lfm2_host::cancel::Cancel;
use lfm2_host::chat::{ChatTemplate, Message};
use lfm2_host::decoder::OrtDecoder;
use lfm2_host::engine::{Conversation, Engine, FinishReason};
use lfm2_host::generation::{Generation, GenerationDefaults, Overrides};
use lfm2_host::text::Tokenizer;
use lfm2_tests::packages::{Exported, TINY_CHAT, contrib, portable};
use lfm2_tests::reference_data;
use serde::Deserialize;

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
    let folder = exported.package();
    let greedy = Overrides { temperature: Some(0.0), repetition_penalty: Some(1.0), ..Overrides::default() };
    let generation = GenerationDefaults::load(&folder).unwrap().resolve(&greedy).unwrap();
    let tokenizer = Tokenizer::load(&folder).unwrap();
    (Engine::new(exported.decoder(), tokenizer, ChatTemplate::load(&folder).unwrap()), generation)
}

/// Asks all questions greedily; `exact` compares token by token with transformers.
fn ask(options: Options, exact: bool) -> usize {
    let exported = Exported::new(TINY_CHAT, options);
    let (mut engine, generation) = engine(&exported);
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
        let answer =
            engine.generate(&tokens, &generation, &Cancel::new(), &mut |text| streamed.push_str(text)).unwrap();
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
    // Plain rounding costs this small model some answers; a broken packing would cost nearly all.
    for (precision, least) in [(Precision::Q8, 20), (Precision::Q4, 18), (Precision::Q4f16, 18)] {
        let right = ask(contrib(precision), false);
        println!("{precision}: {right} of 20");
        assert!(right >= least, "{precision}: {right} of 20");
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
