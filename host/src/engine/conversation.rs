//! A chat with history.

use super::{Answer, Engine, EngineError, FinishReason};
use crate::{cancel::Cancel, chat::Message, decoder::Decoder, generation::Generation};

/// The turns of a chat, and what they were as tokens.
///
/// The next prompt repeats everything said so far. Where its text continues the earlier one, the tokens of the earlier one
/// are kept as they were sampled, so that the decoder computes only what is new; encoding the text again could split it in
/// another way. Templates that change the past (by dropping thoughts, for example) are followed: then all is computed anew.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    system: Option<String>,
    messages: Vec<Message>,
    past: Option<Past>,
}

/// The last prompt with its answer.
#[derive(Clone, Debug)]
struct Past {
    text: String,
    tokens: Vec<u32>,
}

impl Conversation {
    /// A conversation without turns, with a system message if there is one.
    pub fn new(system: Option<String>) -> Self {
        let mut conversation = Self { system, messages: Vec::new(), past: None };
        conversation.reset();
        conversation
    }

    /// The messages so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Forgets all turns, but not the system message.
    pub fn reset(&mut self) {
        self.messages = self.system.iter().map(|text| Message::system(text.as_str())).collect();
        self.past = None;
    }

    /// Says `text` as the user and lets the engine answer; both become part of the history.
    ///
    /// If that fails, or is cancelled before there is any text, the history stays as it was.
    pub fn say<D: Decoder>(
        &mut self,
        text: &str,
        engine: &mut Engine<D>,
        generation: &Generation,
        cancel: &Cancel,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer, EngineError> {
        self.messages.push(Message::user(text));
        let answered = self.answer(engine, generation, cancel, on_text);
        let withdrawn = match &answered {
            Ok(answer) => answer.finish_reason == FinishReason::Cancelled && answer.text.is_empty(),
            Err(_) => true,
        };
        if withdrawn {
            self.messages.pop();
        }
        answered
    }

    fn answer<D: Decoder>(
        &mut self,
        engine: &mut Engine<D>,
        generation: &Generation,
        cancel: &Cancel,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer, EngineError> {
        let prompt = engine.render(&self.messages, None)?;
        let mut tokens = self.encode(&prompt, engine)?;
        let answer = engine.generate(&tokens, generation, cancel, on_text)?;
        if answer.finish_reason == FinishReason::Cancelled && answer.text.is_empty() {
            return Ok(answer);
        }
        let ended = answer.tokens.last().is_some_and(|token| generation.eos.contains(token));
        tokens.extend(&answer.tokens[..answer.tokens.len() - usize::from(ended)]);
        // A stop string is in the tokens, but not in the text: such an answer is encoded anew for the next prompt.
        let whole = ended || answer.finish_reason != FinishReason::Stop;
        self.past = whole.then(|| Past { text: prompt + &answer.text, tokens });
        self.messages.push(Message::assistant(answer.text.as_str()));
        Ok(answer)
    }

    /// The tokens of `prompt`, the known ones kept.
    fn encode<D: Decoder>(&self, prompt: &str, engine: &Engine<D>) -> Result<Vec<u32>, EngineError> {
        let tokenizer = engine.tokenizer();
        let continued = self.past.as_ref().and_then(|past| Some((past, prompt.strip_prefix(&past.text)?)));
        match continued {
            Some((past, rest)) => {
                let mut tokens = past.tokens.clone();
                tokens.extend(tokenizer.encode(rest, false)?);
                Ok(tokens)
            }
            None => Ok(tokenizer.encode_prompt(prompt)?),
        }
    }
}
