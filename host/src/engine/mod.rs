//! The generation engine: from messages or tokens to an answer, over any [`Decoder`].
//!
//! ```text
//! messages -> template -> tokens -> Decoder::step -> logits -> Sampler -> token -> Detokenizer -> StopRules -> text
//! ```

mod answer;
mod conversation;
mod draft;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod generate;
mod output;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

use crate::{
    chat::{ChatTemplate, Message},
    decoder::{Decoder, DecoderError},
    text::Tokenizer,
};

pub use answer::{Answer, FinishReason, Timings};
pub use conversation::Conversation;
pub use draft::DraftCost;
pub(crate) use draft::{Drafter, RunCosts};
pub use error::EngineError;

/// A decoder with everything that stands between it and text. One generation at a time.
#[derive(Debug)]
pub struct Engine<D> {
    decoder: D,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    /// The tokens whose state the decoder holds.
    fed: Vec<u32>,
    /// Most tokens that are guessed for one run; 0 for none.
    longest_draft: usize,
    /// For guessing: each token without the space before it.
    unspaced: Arc<[u32]>,
    /// For guessing: what runs cost.
    costs: RunCosts,
}

impl<D: Decoder> Engine<D> {
    /// An engine that starts from an empty state. Without a template it completes text, but does not chat.
    pub fn new(mut decoder: D, tokenizer: Tokenizer, template: Option<ChatTemplate>) -> Self {
        decoder.reset();
        let costs = RunCosts::new(DraftCost::Learnt);
        Self { decoder, tokenizer, template, fed: Vec::new(), longest_draft: 0, unspaced: Arc::default(), costs }
    }

    /// Lets the engine guess up to `longest` tokens for each run from what was said before, and verify them in that run: less
    /// runs where text repeats itself, and the same tokens as without, but for rounding. 0 guesses nothing. A token is guessed only if
    /// that is expected to save time, by what [`Engine::set_draft_cost`] says.
    ///
    /// Fails with [`DecoderError::NoRollback`] if the decoder cannot take wrong guesses back.
    pub fn speculate(&mut self, longest: usize) -> Result<(), DecoderError> {
        if longest > 0 && !self.decoder.can_rollback() {
            return Err(DecoderError::NoRollback);
        }
        self.longest_draft = longest;
        if longest > 0 && self.unspaced.is_empty() {
            self.unspaced = self.tokenizer.unspaced(self.decoder.vocab_size()).into();
        }
        Ok(())
    }

    /// Sets what a guessed token is taken to cost, which decides how much is guessed; it is learnt unless set. What was learnt
    /// before is forgotten.
    ///
    /// Fails with [`EngineError::DraftCost`] if a fixed cost is negative or no number.
    pub fn set_draft_cost(&mut self, cost: DraftCost) -> Result<(), EngineError> {
        if let DraftCost::Fixed(cost) = cost
            && (cost.is_nan() || cost < 0.0)
        {
            return Err(EngineError::DraftCost { cost });
        }
        self.costs = RunCosts::new(cost);
        Ok(())
    }

    /// The decoder.
    pub fn decoder(&self) -> &D {
        &self.decoder
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Number of tokens whose state the decoder holds.
    pub fn state_tokens(&self) -> usize {
        self.fed.len()
    }

    /// Forgets everything that was fed.
    pub fn reset(&mut self) {
        self.decoder.reset();
        self.fed.clear();
    }

    /// The prompt that asks for an answer to `messages`, as text with special tokens. `tools` is a list of descriptions.
    pub fn render(&self, messages: &[Message], tools: Option<&Value>) -> Result<String, EngineError> {
        let template = self.template.as_ref().ok_or(EngineError::NoTemplate)?;
        Ok(template.render(messages, tools, true)?)
    }

    /// Refuses prompts that cannot be run.
    fn check(&self, prompt: &[u32]) -> Result<(), EngineError> {
        if prompt.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let context = self.decoder.context_length();
        if prompt.len() > context {
            return Err(EngineError::PromptTooLong { tokens: prompt.len(), context });
        }
        Ok(())
    }

    /// Keeps the decoder's state if `prompt` continues it, or else starts anew; returns how many tokens need no computing.
    /// The state cannot be cut, because convolution states have no memory of earlier tokens, and the last token is always
    /// computed, because its logits are needed.
    fn reuse(&mut self, prompt: &[u32]) -> usize {
        if self.fed.len() >= prompt.len() || !prompt.starts_with(&self.fed) {
            self.reset();
        }
        self.fed.len()
    }
}
