//! The generation engine: from messages or tokens to an answer, over any [`Decoder`].
//!
//! ```text
//! messages -> template -> tokens -> Decoder::step -> logits -> Sampler -> token -> Detokenizer -> StopRules -> text
//! ```

mod answer;
mod conversation;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod output;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    cancel::Cancel,
    chat::{ChatTemplate, Message},
    decoder::{Decoder, DecoderError},
    generation::Generation,
    sampler::Sampler,
    text::Tokenizer,
};

pub use answer::{Answer, FinishReason, Timings};
pub use conversation::Conversation;
pub use error::EngineError;
use output::Output;

/// A decoder with everything that stands between it and text. One generation at a time.
#[derive(Debug)]
pub struct Engine<D> {
    decoder: D,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    /// The tokens whose state the decoder holds.
    fed: Vec<u32>,
}

impl<D: Decoder> Engine<D> {
    /// An engine that starts from an empty state. Without a template it completes text, but does not chat.
    pub fn new(mut decoder: D, tokenizer: Tokenizer, template: Option<ChatTemplate>) -> Self {
        decoder.reset();
        Self { decoder, tokenizer, template, fed: Vec::new() }
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

    /// Answers `prompt`, which is the whole text as tokens, including what earlier generations were given: the state of a
    /// common beginning is used again. Calls `on_text` with every piece of text as it becomes final.
    ///
    /// `cancel` is looked at before every step. A decoder that knows the same request stops within a long prompt too.
    ///
    /// Fails if the prompt is empty, does not fit into the context or is not of this vocabulary, if a setting is out of
    /// range, and if the runtime fails. Filling the context later on is no failure, but [`FinishReason::Context`].
    pub fn generate(
        &mut self,
        prompt: &[u32],
        generation: &Generation,
        cancel: &Cancel,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer, EngineError> {
        let start = Instant::now();
        self.check(prompt)?;
        let mut sampler = Sampler::new(generation.sampling, self.decoder.vocab_size())?;
        prompt.iter().for_each(|&token| sampler.observe(token));
        let reused_tokens = self.reuse(prompt);
        let mut timings = Timings { reused_tokens, prefill_tokens: prompt.len() - reused_tokens, ..Timings::default() };

        let mut output = Output::new(&self.tokenizer, &generation.stop, on_text);
        let mut tokens = Vec::new();
        let mut decode_start = None;
        let limit = generation.max_new_tokens.unwrap_or(usize::MAX);
        // The tokens to be fed next: the rest of the prompt, then each sampled token.
        let mut next = prompt[reused_tokens..].to_vec();
        let finish_reason = loop {
            if cancel.is_cancelled() {
                break FinishReason::Cancelled;
            }
            if tokens.len() >= limit {
                break FinishReason::Length;
            }
            if self.fed.len() + next.len() > self.decoder.context_length() {
                break FinishReason::Context;
            }
            let step_start = Instant::now();
            let run_before = self.decoder.run_time();
            let logits = match self.decoder.step(&next) {
                Ok(logits) => logits,
                Err(DecoderError::Cancelled) => {
                    // Less than before if the state was lost: then all of it is forgotten.
                    let run = match self.decoder.len().checked_sub(self.fed.len()) {
                        Some(run) => run,
                        None => {
                            self.reset();
                            0
                        }
                    };
                    self.fed.extend(next.drain(..run));
                    if tokens.is_empty() {
                        (timings.prefill_tokens, timings.prefill) = (run, step_start.elapsed());
                    }
                    break FinishReason::Cancelled;
                }
                Err(DecoderError::ContextFull { .. }) if !tokens.is_empty() => break FinishReason::Context,
                Err(error) => {
                    self.decoder.reset();
                    self.fed.clear();
                    return Err(error.into());
                }
            };
            let sampling_start = Instant::now();
            let token = sampler.sample(logits);
            let sampled = Instant::now();
            self.fed.append(&mut next);
            let token = token?;
            sampler.observe(token);
            tokens.push(token);
            next.push(token);
            if decode_start.is_none() {
                timings.prefill = sampling_start - step_start;
                timings.first_token = sampled - start;
                decode_start = Some(sampled);
            } else {
                timings.run += self.decoder.run_time().saturating_sub(run_before);
                timings.sampling += sampled - sampling_start;
            }
            if generation.eos.contains(&token) || output.push(token)? {
                break FinishReason::Stop;
            }
        };
        let (text, output_time) = output.finish()?;
        timings.output = output_time;
        timings.decode_tokens = tokens.len().saturating_sub(1);
        timings.decode = decode_start.map_or(Duration::ZERO, |start| start.elapsed());
        let seed = generation.sampling.seed;
        Ok(Answer { text, prompt_tokens: prompt.len(), tokens, finish_reason, timings, seed })
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
