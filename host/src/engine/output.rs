//! The way from sampled tokens to final text: detokenization, stop rules, the callback.

use std::time::{Duration, Instant};

use super::EngineError;
use crate::{
    stop::StopRules,
    text::{Detokenizer, Tokenizer},
};

/// Collects the text of one answer and hands every piece on as it becomes final.
pub(super) struct Output<'a> {
    detokenizer: Detokenizer,
    rules: StopRules,
    stopped: bool,
    text: String,
    on_text: &'a mut dyn FnMut(&str),
    time: Duration,
}

impl<'a> Output<'a> {
    pub(super) fn new(tokenizer: &Tokenizer, stop: &[String], on_text: &'a mut dyn FnMut(&str)) -> Self {
        Self {
            detokenizer: Detokenizer::new(tokenizer),
            rules: StopRules::new(stop.to_vec()),
            stopped: false,
            text: String::new(),
            on_text,
            time: Duration::ZERO,
        }
    }

    /// Takes a token; true if a stop string is complete now.
    pub(super) fn push(&mut self, token: u32) -> Result<bool, EngineError> {
        let text = self.detokenizer.push(token)?;
        self.take(&text);
        Ok(self.stopped)
    }

    /// Hands out what was held back, and returns the whole text and the time spent in the callback.
    pub(super) fn finish(mut self) -> Result<(String, Duration), EngineError> {
        if !self.stopped {
            let text = self.detokenizer.finish()?;
            self.take(&text);
        }
        if !self.stopped {
            let rest = self.rules.finish();
            self.emit(&rest);
        }
        Ok((self.text, self.time))
    }

    fn take(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let outcome = self.rules.push(text);
        self.stopped = outcome.stopped;
        self.emit(&outcome.emit);
    }

    fn emit(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        let start = Instant::now();
        (self.on_text)(text);
        self.time += start.elapsed();
    }
}
