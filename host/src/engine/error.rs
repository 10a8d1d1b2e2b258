//! Why a generation failed.

use crate::{chat::ChatError, decoder::DecoderError, sampler::SamplingError, text::TextError};

/// Why an [`Engine`](super::Engine) could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is nothing to continue.
    #[error("the prompt is empty: there must be at least one token to continue from")]
    EmptyPrompt,
    /// The prompt alone is longer than the context.
    #[error(
        "the prompt has {tokens} tokens, but the context holds {context}; shorten it, start a new conversation, or raise --max-context if the model allows it"
    )]
    PromptTooLong {
        /// Tokens in the prompt.
        tokens: usize,
        /// Tokens that the context holds.
        context: usize,
    },
    /// A chat needs a template.
    #[error("the package has no chat template; use --raw to let it continue text")]
    NoTemplate,
    /// A cost of guessed tokens that is none.
    #[error("the cost of a guessed token cannot be {cost}; it is a part of the time of a run, a number of at least 0")]
    DraftCost {
        /// What was asked for.
        cost: f64,
    },
    /// The template cannot render the messages.
    #[error(transparent)]
    Template(#[from] ChatError),
    /// The text cannot be encoded or decoded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A sampling setting is out of range, or the logits are of no use.
    #[error(transparent)]
    Sampler(#[from] SamplingError),
    /// The runtime failed.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
}
