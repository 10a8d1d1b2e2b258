//! The tokenizer's files and the chat template.

use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::template::without_generation;
use super::{Problems, Sidecar, json};

const TOKENIZER_FILE: &str = "tokenizer.json";
const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
const TEMPLATE_FILE: &str = "chat_template.jinja";
const TEMPLATE_KEY: &str = "chat_template";

/// The tokenizer files, as far as the checkpoint has them; those without which no text can be encoded must be there.
pub(super) fn files(source: &Path, problems: &mut Problems) -> Vec<Sidecar> {
    let mut sidecars = Vec::new();
    for (name, is_needed) in [(TOKENIZER_FILE, true), (SPECIAL_TOKENS_FILE, false)] {
        match problems.read(source, name) {
            Some(bytes) => match serde_json::from_slice::<IgnoredAny>(&bytes) {
                Ok(_) => sidecars.push(Sidecar { name: name.to_owned(), bytes }),
                Err(error) => problems.add(format!("{name} is not JSON: {error}; download it again")),
            },
            None if is_needed => missing(name, problems),
            None => {}
        }
    }
    let template = problems.read(source, TEMPLATE_FILE).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| problems.add(format!("{TEMPLATE_FILE} is not a text: {error}"))).ok()
    });
    let template = template.map(|template| without_generation(&template));
    sidecars.extend(config(source, template.as_deref(), problems));
    sidecars.extend(template.map(|template| Sidecar { name: TEMPLATE_FILE.to_owned(), bytes: template.into_bytes() }));
    sidecars
}

/// The tokenizer's config with the chat template in it, where transformers.js looks for it. As in transformers, a
/// template in a file of its own replaces what the config has.
fn config(source: &Path, template: Option<&str>, problems: &mut Problems) -> Option<Sidecar> {
    let before = problems.0.len();
    let Some(mut config) = problems.object(source, TOKENIZER_CONFIG_FILE) else {
        // Where a file is damaged that has been said already.
        if problems.0.len() == before {
            missing(TOKENIZER_CONFIG_FILE, problems);
        }
        return None;
    };
    match (template, config.get_mut(TEMPLATE_KEY)) {
        (Some(template), _) => {
            config.insert(TEMPLATE_KEY.to_owned(), template.into());
        }
        (None, Some(Value::String(inline))) => *inline = without_generation(inline),
        // Several templates with names.
        (None, Some(Value::Array(named))) => {
            for template in named.iter_mut().filter_map(|named| named.get_mut("template")) {
                if let Value::String(template) = template {
                    *template = without_generation(template);
                }
            }
        }
        (None, None | Some(Value::Null)) => {}
        (None, Some(_)) => {
            problems.add(format!("{TOKENIZER_CONFIG_FILE}: {TEMPLATE_KEY} is neither a text nor a list"))
        }
    }
    Some(json(TOKENIZER_CONFIG_FILE, &Value::Object(config)))
}

fn missing(name: &str, problems: &mut Problems) {
    problems.add(format!("{name} is missing: copy it from the model that this one was made from"));
}
