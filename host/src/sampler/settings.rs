//! The settings of a sampler, and what can be wrong with them.

use serde::Serialize;

/// How tokens are chosen. The names and meanings are those of transformers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SamplingSettings {
    /// The scores are divided by it; 0 takes the best token always.
    pub temperature: f32,
    /// Only the tokens with the `top_k` largest scores, and those that equal the last of them; 0 is off.
    pub top_k: usize,
    /// Only the fewest tokens whose probabilities sum up to `top_p`; 1 is off.
    pub top_p: f32,
    /// Only tokens at least `min_p` times as probable as the best one; 0 is off.
    pub min_p: f32,
    /// Positive scores of tokens that occurred are divided by it, negative ones multiplied; 1 is off.
    pub repetition_penalty: f32,
    /// Start of the random numbers.
    pub seed: u64,
}

impl SamplingSettings {
    /// Takes the best token always, and penalises nothing.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };

    /// Checks the range of every value.
    ///
    /// # Errors
    /// [`SamplingError::Settings`], naming all values that are out of range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let checks = [
            ("temperature", self.temperature, self.temperature.is_finite() && self.temperature >= 0.0, "0 or more"),
            ("top_p", self.top_p, share(self.top_p), "from 0 to 1"),
            ("min_p", self.min_p, share(self.min_p), "from 0 to 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0,
                "more than 0",
            ),
        ];
        let wrong: Vec<String> = checks
            .iter()
            .filter(|(_, _, right, _)| !right)
            .map(|(name, value, _, range)| format!("{name} is {value} but has to be {range}"))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(SamplingError::Settings { problems: wrong.join("; ") }) }
    }

    /// Whether the best token is taken always.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }
}

/// Why there is no next token.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum SamplingError {
    /// Values out of range, all of them.
    #[error("sampling settings: {problems}")]
    Settings {
        /// What is wrong with each value.
        problems: String,
    },
    /// No tokens, or more than a token id can count.
    #[error("a vocabulary of {vocab_size} tokens cannot be sampled from")]
    Vocabulary {
        /// Number of tokens.
        vocab_size: usize,
    },
    /// Logits of another model.
    #[error("the model gave {found} logits, but its vocabulary has {vocab_size} tokens")]
    Length {
        /// Number of logits.
        found: usize,
        /// Number of tokens.
        vocab_size: usize,
    },
    /// At least one logit is NaN.
    #[error("a logit is not a number (NaN): the weights are damaged, or their number format overflows")]
    NotANumber,
    /// At least one score is positive infinity.
    #[error("a logit is infinite, or becomes so when it is divided by the temperature")]
    Infinite,
    /// Every logit is negative infinity.
    #[error("every logit is negative infinity: no token can be chosen")]
    NothingLeft,
}
