//! Messages to a prompt: the chat template of a package, rendered as transformers does.

mod environment;
mod json;
mod limits;
mod load;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use limits::with_large_stack;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Usually a string; a list of parts for templates that know those; null if there are only tool calls.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub content: Value,
    /// Calls of tools by the assistant, as in the chat completions of OpenAI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Value>,
    /// Everything else that a template may look at, such as `name`, `tool_call_id` or `reasoning_content`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of any role.
    pub fn new(role: impl Into<String>, content: impl Into<Value>) -> Self {
        Self { role: role.into(), content: content.into(), tool_calls: None, extra: Map::new() }
    }

    /// What the assistant shall keep in mind throughout.
    pub fn system(content: impl Into<Value>) -> Self {
        Self::new("system", content)
    }

    /// What the user says.
    pub fn user(content: impl Into<Value>) -> Self {
        Self::new("user", content)
    }

    /// What the assistant has answered.
    pub fn assistant(content: impl Into<Value>) -> Self {
        Self::new("assistant", content)
    }

    /// What a tool has returned.
    pub fn tool(content: impl Into<Value>) -> Self {
        Self::new("tool", content)
    }
}

/// The chat template of a package, parsed.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The file that the templates come from.
    file: PathBuf,
    /// `bos_token`, `eos_token` and the other special tokens by the names that templates use.
    special_tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// Renders a conversation. `tools` is a list of JSON schemas. `add_generation_prompt` adds the beginning of an answer.
    /// The result begins with the BOS token, if the template prints it: see [`Tokenizer::encode_prompt`].
    ///
    /// # Errors
    /// [`ChatError::Template`] with the line, also if the template itself refuses the conversation, takes too many steps
    /// or too much memory, or prints nothing but the BOS token.
    ///
    /// [`Tokenizer::encode_prompt`]: crate::text::Tokenizer::encode_prompt
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let name = match tools {
            Some(_) if self.environment.get_template(TOOL_USE).is_ok() => TOOL_USE,
            _ => DEFAULT,
        };
        let mut context = self.special_tokens.clone();
        context.insert("messages".into(), messages.iter().map(as_templates_see_it).collect());
        context.insert("tools".into(), tools.cloned().unwrap_or(Value::Null));
        context.insert("documents".into(), Value::Null);
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        let bos = self.special_tokens.get("bos_token").and_then(Value::as_str).unwrap_or_default().to_string();
        let render = || {
            self.environment
                .get_template(name)
                .and_then(|template| template.render(minijinja::Value::from(Serde(context))))
                .map_err(|error| self.error(name, &error))
        };
        let prompt = with_large_stack(render).unwrap_or_else(|message| Err(self.failure(name, None, message)))?;
        let said = prompt.trim_start();
        if said.strip_prefix(bos.as_str()).unwrap_or(said).trim().is_empty() {
            return Err(self.failure(name, None, "renders nothing for this conversation".into()));
        }
        Ok(prompt)
    }

    fn error(&self, name: &str, error: &minijinja::Error) -> ChatError {
        let message = match error.kind() {
            ErrorKind::OutOfFuel => "takes too many steps or makes too much text".into(),
            kind => error.detail().map_or_else(|| kind.to_string(), str::to_string),
        };
        self.failure(name, error.line(), message)
    }

    fn failure(&self, name: &str, line: Option<usize>, message: String) -> ChatError {
        let template = if name == DEFAULT { String::new() } else { format!(", template {name}") };
        ChatError::Template { file: self.file.clone(), template, line, message }
    }
}

/// Name of the template for everything, and of the one for conversations with tools, where there are several.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// The message as transformers hands it to templates: without what is null, and with the thoughts of the assistant under
/// all the names that they have had.
fn as_templates_see_it(message: &Message) -> Value {
    let own = [
        ("role", Value::from(message.role.clone())),
        ("content", message.content.clone()),
        ("tool_calls", message.tool_calls.clone().unwrap_or_default()),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_string(), value));
    let given: Map<String, Value> = own.chain(message.extra.clone()).filter(|(_, value)| !value.is_null()).collect();
    let reasoning = ["reasoning_content", "thinking", "reasoning"].iter().find_map(|key| given.get(*key).cloned());
    let Some(reasoning) = reasoning else { return Value::Object(given) };
    // A template may print the whole message: the order of its fields is that of transformers too.
    let mut fields = Map::from_iter([("thinking".to_string(), reasoning.clone())]);
    fields.extend(given);
    fields.insert("reasoning_content".to_string(), reasoning);
    Value::Object(fields)
}

/// Why there is no prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {message}", file.display())]
    Parse {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The template is wrong, or refuses the conversation.
    #[error("{}{template}{}: {message}", file.display(), line.map_or_else(String::new, |line| format!(", line {line}")))]
    Template {
        /// The file that the template is in.
        file: PathBuf,
        /// Which of several templates; empty if there is one.
        template: String,
        /// Line in the template, from 1.
        line: Option<usize>,
        /// What is wrong.
        message: String,
    },
}
