//! A line of a file of documents.

use serde::Deserialize;
use serde_json::Value;

use crate::chat::{ChatTemplate, Message};
use crate::text::Tokenizer;

/// What a line may say. Data sets have more keys than these, and they mean nothing here.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    #[serde(default)]
    messages: Option<Vec<Message>>,
    #[serde(default)]
    tools: Option<Value>,
    #[serde(default)]
    text: Option<String>,
}

impl Entry {
    /// Reads a line. The error is a sentence without the place.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let entry: Self = serde_json::from_slice(line)
            // Every line is the first one to the JSON reader.
            .map_err(|error| error.to_string().replacen(" at line 1 column ", " at column ", 1))?;
        match (&entry.messages, &entry.text) {
            (Some(_), Some(_)) => return Err("has both \"messages\" and \"text\"".to_owned()),
            (None, None) => return Err("has neither \"messages\" nor \"text\"".to_owned()),
            (Some(messages), None) if messages.is_empty() => return Err("\"messages\" is empty".to_owned()),
            _ => {}
        }
        match &entry.tools {
            Some(_) if entry.text.is_some() => {
                Err("\"tools\" belong to \"messages\", and this is a \"text\"".to_owned())
            }
            Some(tools) if !tools.is_array() => Err("\"tools\" is not a list".to_owned()),
            _ => Ok(entry),
        }
    }

    /// The tokens of the text, or of the whole conversation as the template renders it. The error is a sentence without the place.
    pub(super) fn tokens(self, tokenizer: &Tokenizer, template: Option<&ChatTemplate>) -> Result<Vec<u32>, String> {
        let rendered = match (self.messages, self.text) {
            (Some(messages), _) => {
                let template = template.ok_or("the package has no chat template for \"messages\"; give \"text\"")?;
                template.render(&messages, self.tools.as_ref(), false).map_err(|error| error.to_string())?
            }
            (None, text) => text.unwrap_or_default(),
        };
        tokenizer.encode_prompt(&rendered).map_err(|error| error.to_string())
    }
}
