//! How good a model is on a text, and how faithful to a reference.
//!
//! ```text
//! documents -> windows -> logits of both models -> a comparison for each token -> means and quantiles over all
//! ```

mod estimate;
mod exponential;
mod score;

use ndarray::Array2;
use serde::Serialize;

pub use estimate::{Estimate, PerWindow};
pub use score::{Comparison, compare, likelihood};

use crate::cancel::Cancel;
use crate::decoder::{Decoder, DecoderError};
use crate::documents::Window;

/// Most logits of one model that are held at a time: 16 MiB.
const MOST_LOGITS: usize = 4 << 20;

/// Most tokens of a run.
const LONGEST_RUN: usize = 512;

/// How the tokens of a text go through the model that is evaluated. Different kernels compute prompts and single tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// Many at once, as prompts do.
    #[default]
    Prefill,
    /// One after the other, as answers do.
    Decode,
}

/// What a text says about a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Number of tokens that were predicted.
    pub tokens: usize,
    /// Number of windows, which are taken as independent of each other.
    pub windows: usize,
    /// exp of the mean negative log-likelihood of the model.
    pub perplexity: Estimate,
    /// Against a reference, if there is one.
    pub fidelity: Option<Fidelity>,
}

/// How far a model is from its reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fidelity {
    /// Kullback-Leibler divergence from the reference in nats, over all tokens.
    pub divergence: Divergence,
    /// Share of the positions at which both find the same token the most probable.
    pub agreement: Estimate,
    /// Perplexity of the reference.
    pub reference_perplexity: Estimate,
    /// Perplexity of the model relative to that of the reference. Surer than either, because both have the same text.
    pub perplexity_ratio: Estimate,
}

/// A distribution in a few numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// The mean.
    pub mean: Estimate,
    /// Half of the tokens have at most this.
    pub median: Estimate,
    /// 99 of 100 have at most this.
    pub p99: Estimate,
    /// 999 of 1000 have at most this.
    pub p999: Estimate,
    /// The largest.
    pub max: f64,
}

/// Predicts every token of the windows that counts, each window from an empty state. The reference, if there is one, always
/// takes many tokens at once. `progress` is told how many tokens are done, after every run.
///
/// Logits are held for a few rows at a time, whatever the length of the windows.
///
/// # Errors
/// If the models have different vocabularies, if the model has logits for the last token of a prompt alone and the pass is one of
/// prompts, if a run fails or is cancelled, or if logits are not numbers.
pub fn evaluate<D: Decoder>(
    model: &mut D,
    mut reference: Option<&mut D>,
    windows: &[Window],
    pass: Pass,
    cancel: &Cancel,
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation, EvaluationError> {
    if let Some(reference) = &reference {
        same_vocabulary(model, reference)?;
    }
    if pass == Pass::Prefill && !model.steps_all_at_once() {
        return Err(EvaluationError::OnlyLast);
    }
    let mut tally = Tally::default();
    let mut done = 0;
    for (number, window) in windows.iter().enumerate() {
        model.reset();
        if let Some(reference) = &mut reference {
            reference.reset();
        }
        // Nothing comes after the last token.
        let fed = &window.tokens[..window.tokens.len().saturating_sub(1)];
        let rows = (MOST_LOGITS / model.vocab_size().max(1)).clamp(1, LONGEST_RUN);
        for (index, piece) in fed.chunks(rows).enumerate() {
            if cancel.is_cancelled() {
                return Err(DecoderError::Cancelled.into());
            }
            let logits = run(model, piece, pass)?;
            let expected = reference.as_mut().map(|reference| reference.step_all(piece)).transpose()?;
            let first = index * rows + 1;
            for (row, logits) in logits.rows().into_iter().enumerate() {
                let place = first + row;
                if place < window.counted_from {
                    continue;
                }
                let next = window.tokens[place] as usize;
                let refused = || EvaluationError::NotFinite { window: number, place };
                let logits = logits.to_slice().ok_or_else(refused)?;
                match &expected {
                    Some(expected) => {
                        let expected = expected.row(row);
                        let expected = expected.to_slice().ok_or_else(refused)?;
                        tally.add(compare(logits, expected, next).ok_or_else(refused)?);
                    }
                    None => tally.model.push(likelihood(logits, next).ok_or_else(refused)?),
                }
            }
            done += piece.len();
            progress(done);
        }
        tally.end_window();
    }
    tally.evaluation(reference.is_some())
}

/// Compares what both models predict after each of the prompts, whose last token is what follows and is not fed. Every prompt is one
/// step from an empty state, so that it goes through the same graphs as in use: also where these have logits for the last
/// token alone.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_prompts<D: Decoder>(
    model: &mut D,
    reference: &mut D,
    prompts: &[Vec<u32>],
) -> Result<Evaluation, EvaluationError> {
    same_vocabulary(model, reference)?;
    let mut tally = Tally::default();
    for (number, prompt) in prompts.iter().enumerate() {
        let Some((&next, fed)) = prompt.split_last().filter(|(_, fed)| !fed.is_empty()) else {
            return Err(EvaluationError::Nothing);
        };
        model.reset();
        reference.reset();
        let refused = || EvaluationError::NotFinite { window: number, place: fed.len() };
        let (found, expected) = (model.step(fed)?, reference.step(fed)?);
        let (found, expected) = (found.to_slice().ok_or_else(refused)?, expected.to_slice().ok_or_else(refused)?);
        tally.add(compare(found, expected, next as usize).ok_or_else(refused)?);
        tally.end_window();
    }
    tally.evaluation(true)
}

fn same_vocabulary<D: Decoder>(model: &D, reference: &D) -> Result<(), EvaluationError> {
    let [model, reference] = [model.vocab_size(), reference.vocab_size()];
    if model == reference { Ok(()) } else { Err(EvaluationError::Vocabulary { model, reference }) }
}

/// Number of tokens that [`evaluate`] feeds, which is what its progress counts up to.
pub fn work(windows: &[Window]) -> usize {
    windows.iter().map(|window| window.tokens.len().saturating_sub(1)).sum()
}

/// Logits after each of the tokens.
fn run<D: Decoder>(model: &mut D, tokens: &[u32], pass: Pass) -> Result<Array2<f32>, DecoderError> {
    if pass == Pass::Prefill {
        return model.step_all(tokens);
    }
    let mut rows = Array2::zeros((tokens.len(), model.vocab_size()));
    for (token, mut row) in tokens.iter().zip(rows.rows_mut()) {
        row.assign(&model.step(&[*token])?);
    }
    Ok(rows)
}

/// What was found at every token.
#[derive(Debug, Default)]
struct Tally {
    model: PerWindow,
    reference: PerWindow,
    differences: PerWindow,
    divergence: PerWindow,
    agreement: PerWindow,
}

impl Tally {
    fn add(&mut self, comparison: Comparison) {
        self.model.push(comparison.model);
        self.reference.push(comparison.reference);
        self.differences.push(comparison.model - comparison.reference);
        self.divergence.push(comparison.divergence);
        self.agreement.push(f64::from(u8::from(comparison.agrees)));
    }

    fn end_window(&mut self) {
        let Self { model, reference, differences, divergence, agreement } = self;
        [model, reference, differences, divergence, agreement].into_iter().for_each(PerWindow::end_window);
    }

    fn evaluation(&self, compared: bool) -> Result<Evaluation, EvaluationError> {
        if self.model.is_empty() {
            return Err(EvaluationError::Nothing);
        }
        let fidelity = compared.then(|| {
            let ([median, p99, p999], max) = self.divergence.quantiles([0.5, 0.99, 0.999]);
            Fidelity {
                divergence: Divergence { mean: self.divergence.mean(), median, p99, p999, max },
                agreement: self.agreement.mean(),
                reference_perplexity: self.reference.mean().exp(),
                perplexity_ratio: self.differences.mean().exp(),
            }
        });
        let (tokens, windows) = (self.model.count(), self.model.len());
        Ok(Evaluation { tokens, windows, perplexity: self.model.mean().exp(), fidelity })
    }
}

/// Why there is no evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// The distributions are over different things.
    #[error(
        "the model has {model} token ids and the reference {reference}; both must be exports of one checkpoint, or share a vocabulary"
    )]
    Vocabulary {
        /// Of the model.
        model: usize,
        /// Of the reference.
        reference: usize,
    },
    /// Prompts go through a graph without logits.
    #[error(
        "the graph that runs prompts has logits for none of their tokens; give the text token by token, as answers are made, with --decode"
    )]
    OnlyLast,
    /// No token has another before it.
    #[error("the text has no token that another predicts; give a longer one")]
    Nothing,
    /// Infinities, or results of them.
    #[error(
        "window {window} (counted from 0) has logits that are not finite numbers before its token {place}; the number format overflows"
    )]
    NotFinite {
        /// The window.
        window: usize,
        /// The token after the logits.
        place: usize,
    },
    /// A run failed, or was cancelled.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
}
