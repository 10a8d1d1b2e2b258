//! The host renders chat templates to the letter as transformers does.

use lfm2_host::chat::{ChatTemplate, Message};
use lfm2_tests::{fixtures, reference_data};
use serde::Deserialize;
use serde_json::Value;

/// One rendering of tests/reference/templates.py.
#[derive(Deserialize)]
struct Case {
    name: String,
    template: String,
    messages: Vec<Message>,
    tools: Option<Value>,
    add_generation_prompt: bool,
    prompt: Option<String>,
    error: Option<String>,
}

#[test]
fn prompts_are_those_of_transformers() {
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(reference_data().join("templates.json")).unwrap()).unwrap();
    assert!(cases.len() > 50);
    let mut wrong = Vec::new();
    for case in &cases {
        let rendered = render(case);
        let right = match (&rendered, &case.prompt, &case.error) {
            (Ok(rendered), Some(prompt), None) => rendered == prompt,
            (Err(message), None, Some(error)) => message.contains(error.as_str()),
            _ => false,
        };
        if !right {
            let expected = case.prompt.as_ref().or(case.error.as_ref());
            wrong.push(format!("{}, {}:\n{rendered:?}, expected\n{expected:?}", case.template, case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Renders with a package that has the template of the case and the special tokens of the tiny checkpoint.
fn render(case: &Case) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures().join(&case.template), folder.path().join("chat_template.jinja")).unwrap();
    let config = "tokenizer_config.json";
    std::fs::copy(fixtures().join("tiny-chat").join(config), folder.path().join(config)).unwrap();
    let template = ChatTemplate::load(folder.path()).map_err(|error| error.to_string())?.unwrap();
    template.render(&case.messages, case.tools.as_ref(), case.add_generation_prompt).map_err(|error| error.to_string())
}

#[test]
fn questions_become_the_prompts_that_the_checkpoint_was_asked_with() {
    let questions: Vec<Value> =
        serde_json::from_slice(&std::fs::read(reference_data().join("tiny-chat-questions.json")).unwrap()).unwrap();
    let folder = fixtures().join("tiny-chat");
    let template = ChatTemplate::load(&folder).unwrap().unwrap();
    let tokenizer = lfm2_host::text::Tokenizer::load(&folder).unwrap();
    for question in questions {
        let messages: Vec<Message> = serde_json::from_value(question["messages"].clone()).unwrap();
        let tools = Some(&question["tools"]).filter(|tools| !tools.is_null());
        let prompt = template.render(&messages, tools, true).unwrap();
        assert_eq!(prompt, question["prompt"], "{}", question["name"]);
        let ids = tokenizer.encode_prompt(&prompt).unwrap();
        assert_eq!(serde_json::json!(ids), question["prompt_ids"], "{}", question["name"]);
        let answer: Vec<u32> = serde_json::from_value(question["answer_ids"].clone()).unwrap();
        let text = tokenizer.decode_with_special_tokens(&answer[..answer.len() - 1]).unwrap();
        assert_eq!(text, question["answer"], "{}", question["name"]);
    }
}
