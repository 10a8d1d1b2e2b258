//! What a generation comes back with: text, tokens, why it ended, and where the time went.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// The result of one generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The text, without special tokens and without the stop string. The pieces given to the callback make up the same text.
    pub text: String,
    /// Number of tokens in the prompt.
    pub prompt_tokens: usize,
    /// Every sampled token in order; the end token, which the text does not show, is the last one if there was one.
    pub tokens: Vec<u32>,
    /// Why the generation ended.
    pub finish_reason: FinishReason,
    /// Where the time went.
    pub timings: Timings,
    /// Seed of the random numbers: the same prompt, settings and seed give the same tokens again.
    pub seed: u64,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended its answer, or a stop string appeared.
    Stop,
    /// As many tokens as allowed were sampled.
    Length,
    /// The context is full: there is no room for another token.
    Context,
    /// Somebody cancelled.
    Cancelled,
}

impl FinishReason {
    /// The word for it in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Context => "context",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

impl Serialize for FinishReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Durations of one generation. Rates are derived from them, never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Prompt tokens that were computed in the prefill.
    pub prefill_tokens: usize,
    /// Prompt tokens whose state was already there from the previous generation.
    pub reused_tokens: usize,
    /// Computing the prompt tokens, up to the logits of the last one, or until it was cancelled.
    pub prefill: Duration,
    /// From the start until the first token was sampled (TTFT); zero if none was.
    pub first_token: Duration,
    /// Sampled tokens after the first.
    pub decode_tokens: usize,
    /// Runs of the model after the first token. Without speculation each gives one token.
    pub decode_runs: usize,
    /// Tokens that were guessed and verified in these runs.
    pub drafted_tokens: usize,
    /// Guesses that were right, and saved a run each.
    pub accepted_tokens: usize,
    /// From the first token to the end; the four durations below and [`Timings::host`] add up to it.
    pub decode: Duration,
    /// Part of the decode time: inside the runtime.
    pub run: Duration,
    /// Part of the decode time: sampling.
    pub sampling: Duration,
    /// Part of the decode time: in the callback that receives the text.
    pub output: Duration,
}

impl Timings {
    /// The rest of the decode time: preparing inputs, detokenization, stop rules, bookkeeping.
    pub fn host(&self) -> Duration {
        self.decode.saturating_sub(self.run + self.sampling + self.output)
    }

    /// Prompt tokens per second; nothing if none were computed.
    pub fn prefill_rate(&self) -> Option<f64> {
        rate(self.prefill_tokens, self.prefill)
    }

    /// Tokens per second after the first one; nothing if there were none.
    pub fn decode_rate(&self) -> Option<f64> {
        rate(self.decode_tokens, self.decode)
    }
}

/// Tokens per second, if both are more than zero.
fn rate(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_tokens_and_time() {
        let timings = Timings {
            prefill_tokens: 100,
            prefill: Duration::from_millis(500),
            decode_tokens: 20,
            decode: Duration::from_secs(2),
            run: Duration::from_millis(1900),
            sampling: Duration::from_millis(60),
            output: Duration::from_millis(10),
            ..Timings::default()
        };
        assert_eq!(timings.prefill_rate(), Some(200.0));
        assert_eq!(timings.decode_rate(), Some(10.0));
        assert_eq!(timings.host(), Duration::from_millis(30));
        assert_eq!(Timings::default().decode_rate(), None);
    }
}
