//! The seam between generation and the runtime: tokens in, logits out.
//!
//! Everything above it (engine, sampling, stop rules) is tested with a scripted [`Decoder`] and knows no ONNX Runtime.

mod any;
mod companion;
mod embedding;
mod fixed;
mod graph;
mod open;
mod ort;
mod settings;

use std::error::Error;
use std::time::Duration;

use ndarray::{Array2, ArrayView1, ArrayView2};

pub use self::any::AnyDecoder;
pub use self::companion::{Companion, takes_part};
pub use self::embedding::EmbeddingError;
pub use self::fixed::{FixedDecoder, RangeObserver};
pub use self::open::{OpenError, Opening, graphs};
pub use self::ort::OrtDecoder;
pub use self::settings::DecoderSettings;
pub use crate::state::StateValues;

/// A model with the state of one sequence.
pub trait Decoder {
    /// Runs `tokens` after those that the state holds, and returns the logits `[vocab_size]` of the last one: the
    /// unnormalised scores of the token that follows.
    ///
    /// On [`DecoderError::ContextFull`], [`DecoderError::NoTokens`] and [`DecoderError::UnknownToken`] nothing was run
    /// and the state is as before. On [`DecoderError::Cancelled`] some of the tokens were run, or the state was lost and is empty, as
    /// [`Decoder::len`] tells. After [`DecoderError::Run`] the state is undefined until [`Decoder::reset`].
    fn step(&mut self, tokens: &[u32]) -> Result<ArrayView1<'_, f32>, DecoderError>;

    /// As [`Decoder::step`], but returns the logits of every token: `[tokens, vocab_size]`. They need memory accordingly.
    ///
    /// Unless a decoder knows better, the tokens are run one by one. Then, if a run fails, those before it were run.
    fn step_all(&mut self, tokens: &[u32]) -> Result<Array2<f32>, DecoderError> {
        let mut rows = Array2::zeros((tokens.len(), self.vocab_size()));
        for (token, mut row) in tokens.iter().zip(rows.rows_mut()) {
            row.assign(&self.step(&[*token])?);
        }
        Ok(rows)
    }

    /// Whether [`Decoder::step_all`] runs what [`Decoder::step`] runs. Otherwise it runs the tokens one by one, as answers are made, and says
    /// nothing about prompts.
    fn steps_all_at_once(&self) -> bool {
        true
    }

    /// Whether [`Decoder::verify`] and [`Decoder::truncate`] work: whether tokens can be taken back. Otherwise they fail with
    /// [`DecoderError::NoRollback`].
    fn can_rollback(&self) -> bool {
        false
    }

    /// As [`Decoder::step`], but returns the logits of every token, `[tokens, vocab_size]`, and until the next step or
    /// verification [`Decoder::truncate`] can take tokens back. Meant for a few tokens: they are run at once, and a request to
    /// stop waits for them.
    fn verify(&mut self, _tokens: &[u32]) -> Result<ArrayView2<'_, f32>, DecoderError> {
        Err(DecoderError::NoRollback)
    }

    /// Forgets all tokens after the first `len`. All of them must come from the last [`Decoder::verify`]; otherwise that is
    /// [`DecoderError::NotCuttable`], and nothing changes. After [`DecoderError::Run`] the state is undefined until
    /// [`Decoder::reset`].
    fn truncate(&mut self, _len: usize) -> Result<(), DecoderError> {
        Err(DecoderError::NoRollback)
    }

    /// Forgets all tokens. Buffers are kept.
    fn reset(&mut self);

    /// Number of tokens that the state holds.
    fn len(&self) -> usize;

    /// Whether the state holds no token.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Largest number of tokens that the state can hold.
    fn context_length(&self) -> usize;

    /// Number of token ids, which is the length of the logits.
    fn vocab_size(&self) -> usize;

    /// Time spent inside the runtime since the decoder was made, so that the host's own share of a step can be told.
    fn run_time(&self) -> Duration;
}

/// A decoder that can come back to a state, so that what made it need not run again.
pub trait Rewind: Decoder {
    /// Marks the state as it is now, instead of what was marked before. [`Decoder::reset`] forgets the mark.
    fn mark(&mut self) -> Result<(), DecoderError>;

    /// Goes back to the marked state, which stays marked. Fails with [`DecoderError::NotMarked`] if there is none.
    fn rewind(&mut self) -> Result<(), DecoderError>;
}

/// Why a step gave no logits.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecoderError {
    /// The tokens do not fit behind those that the state holds.
    #[error(
        "{held} tokens are held and {given} more do not fit into the context of {context_length}; start again with fewer, or raise --max-context if the model allows it"
    )]
    ContextFull {
        /// Tokens that the state holds.
        held: usize,
        /// Tokens given to the step.
        given: usize,
        /// Largest number of tokens that the state can hold.
        context_length: usize,
    },
    /// A step without tokens has no logits.
    #[error("a step needs at least one token")]
    NoTokens,
    /// A token id outside of the vocabulary: tokenizer and graph do not belong together.
    #[error("token {id} is not in the vocabulary of {vocab_size}; the tokenizer does not belong to this model")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Number of ids that the model has.
        vocab_size: usize,
    },
    /// A longer context than the graph has position tables for.
    #[error(
        "--max-context {asked} is more than the {available} tokens that the package was exported for; export it with a larger {flag}, or ask for fewer"
    )]
    ContextTooLong {
        /// Tokens asked for.
        asked: usize,
        /// Largest number of tokens that the graph takes.
        available: usize,
        /// What the exporter calls it.
        flag: &'static str,
    },
    /// There is no marked state to go back to.
    #[error("no state is marked to go back to; mark one after the last reset")]
    NotMarked,
    /// A graph whose state cannot be cut.
    #[error(
        "tokens cannot be taken back with this package, which --speculate needs; export the model with `lfm2-export MODEL --rollback --out x.onnx`"
    )]
    NoRollback,
    /// Tokens to be taken back that the last run did not verify.
    #[error("the state of {held} tokens cannot be cut after {asked}, only after {least} or more")]
    NotCuttable {
        /// Tokens that the state holds.
        held: usize,
        /// Tokens that were to stay.
        asked: usize,
        /// Fewest tokens that can stay.
        least: usize,
    },
    /// Stopped on request, in a long prompt.
    #[error("stopped on request")]
    Cancelled,
    /// The runtime failed.
    #[error("running the model failed after {held} tokens: {source}")]
    Run {
        /// Tokens that the state held before.
        held: usize,
        /// What the runtime said.
        source: Box<dyn Error + Send + Sync>,
    },
}
