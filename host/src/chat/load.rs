//! Finding the chat template in the files of a package.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::environment::{environment, without_generation_tags};
use super::limits::{LONGEST_SOURCE, MOST_JOINS, with_large_stack};
use super::{ChatError, ChatTemplate, DEFAULT};
use crate::text::special_token;

impl ChatTemplate {
    /// Reads the template of the package in `folder`: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json`, which is one template or a list of named ones. `None` if there is none: base models have
    /// no chat format.
    ///
    /// # Errors
    /// [`ChatError::Read`], [`ChatError::Parse`], and [`ChatError::Template`] with the line of a syntax error.
    pub fn load(folder: &Path) -> Result<Option<Self>, ChatError> {
        let config_file = folder.join("tokenizer_config.json");
        let config = if config_file.exists() { read_json(&config_file)? } else { Value::Null };
        let jinja_file = folder.join("chat_template.jinja");
        let (file, templates) = if jinja_file.exists() {
            let source = std::fs::read_to_string(&jinja_file)
                .map_err(|source| ChatError::Read { file: jinja_file.clone(), source })?;
            (jinja_file, vec![(DEFAULT.to_string(), source)])
        } else if config["chat_template"].is_null() {
            return Ok(None);
        } else {
            let templates = named_templates(&config["chat_template"])
                .map_err(|message| ChatError::Parse { file: config_file.clone(), message })?;
            (config_file, templates)
        };
        Self::parse(file, templates, special_tokens(&config)).map(Some)
    }

    fn parse(
        file: PathBuf,
        templates: Vec<(String, String)>,
        special_tokens: Map<String, Value>,
    ) -> Result<Self, ChatError> {
        let mut template = Self { environment: environment(&file)?, file, special_tokens };
        for (name, source) in &templates {
            if source.len() > LONGEST_SOURCE {
                let message = format!("has {} bytes, but a template has at most {LONGEST_SOURCE}", source.len());
                return Err(template.failure(name, None, message));
            }
            let joins = source.matches('~').count();
            if joins > MOST_JOINS {
                let message = format!("has {joins} `~`, but a template has at most {MOST_JOINS}");
                return Err(template.failure(name, None, message));
            }
        }
        let file = template.file.clone();
        let parsed = with_large_stack(move || {
            for (name, source) in templates {
                // Jinja takes every end of line for a newline.
                let source = without_generation_tags(&source.replace("\r\n", "\n").replace('\r', "\n"));
                if let Err(error) = template.environment.add_template_owned(name.clone(), source) {
                    return Err(template.error(&name, &error));
                }
            }
            Ok(template)
        });
        parsed.unwrap_or_else(|message| Err(ChatError::Parse { file, message }))
    }
}

/// Names and sources of the templates in `tokenizer_config.json`.
fn named_templates(value: &Value) -> Result<Vec<(String, String)>, String> {
    if let Some(source) = value.as_str() {
        return Ok(vec![(DEFAULT.to_string(), source.to_string())]);
    }
    let named = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().map(str::to_string);
        text("name").zip(text("template"))
    };
    let templates: Option<Vec<_>> = value.as_array().and_then(|entries| entries.iter().map(named).collect());
    let templates = templates.ok_or("`chat_template` has to be a string, or a list of {\"name\", \"template\"}")?;
    if !templates.iter().any(|(name, _)| name == DEFAULT) {
        let names: Vec<&str> = templates.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!("`chat_template` has no template named \"{DEFAULT}\", only {names:?}"));
    }
    Ok(templates)
}

/// The special tokens of `tokenizer_config.json`, as strings.
fn special_tokens(config: &Value) -> Map<String, Value> {
    let names = ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"];
    names.iter().filter_map(|&name| Some((name.to_string(), Value::from(special_token(&config[name])?)))).collect()
}

fn read_json(file: &Path) -> Result<Value, ChatError> {
    let bytes = std::fs::read(file).map_err(|source| ChatError::Read { file: file.to_path_buf(), source })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ChatError::Parse { file: file.to_path_buf(), message: error.to_string() })
}
