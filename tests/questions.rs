//! The chat checkpoint answers as transformers does: twenty questions through engine, template, tokenizer and decoder.

use std::fs;

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
use serde_json::Value;

/// One question with what transformers made of it.
#[derive(Deserialize)]
struct Question {
    name: String,
    messages: Vec<Message>,
    tools: Option<Value>,
    prompt: String,
    prompt_ids: Vec<u32>,
    answer: String,
    answer_ids: Vec<u32>,
}

fn questions() -> Vec<Question> {
    let text = fs::read_to_string(reference_data().join("tiny-chat-questions.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// An engine on an exported package, and greedy settings without penalties.
fn engine(package: &Exported) -> (Engine<OrtDecoder>, Generation) {
    let folder = package.package();
    let overrides =
        Overrides { temperature: Some(0.0), repetition_penalty: Some(1.0), seed: Some(0), ..Overrides::default() };
    let generation = GenerationDefaults::load(&folder).unwrap().resolve(&overrides).unwrap();
    let tokenizer = Tokenizer::load(&folder).unwrap();
    (Engine::new(package.decoder(), tokenizer, ChatTemplate::load(&folder).unwrap()), generation)
}

#[test]
fn questions_get_the_answers_of_transformers() {
    let questions = questions();
    assert_eq!(questions.len(), 20);
    for options in [contrib(Precision::Fp32), portable(Precision::Fp32), contrib(Precision::Fp16)] {
        let package = Exported::new(TINY_CHAT, options);
        let (mut engine, generation) = engine(&package);
        for question in &questions {
            let name = format!("{} {:?}", question.name, package.graph.file_name());
            let prompt = engine.render(&question.messages, question.tools.as_ref()).unwrap();
            assert_eq!(prompt, question.prompt, "{name}");
            let tokens = engine.tokenizer().encode_prompt(&prompt).unwrap();
            assert_eq!(tokens, question.prompt_ids, "{name}");
            let mut pieces = String::new();
            let answer = engine
                .generate(&tokens, &generation, &Cancel::new(), &mut |text| pieces.push_str(text))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(answer.tokens, question.answer_ids, "{name}: {}", answer.text);
            assert_eq!(answer.finish_reason, FinishReason::Stop, "{name}");
            assert_eq!(answer.text, pieces, "{name}");
            // The text hides the markers of tool calls.
            let markers = ["<|tool_call_start|>", "<|tool_call_end|>"];
            let visible = markers.iter().fold(question.answer.clone(), |text, marker| text.replace(marker, ""));
            assert_eq!(answer.text, visible, "{name}");
        }
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
