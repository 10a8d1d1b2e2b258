//! How far the measured model is from an exact one: a fast wrong answer is no result.

use serde::{Deserialize, Serialize};

use super::{MeasureError, tokens};
use crate::cancel::Cancel;
use crate::decoder::{AnyDecoder, Decoder, OrtDecoder};
use crate::documents::Window;
use crate::evaluate::{EvaluationError, Pass, evaluate, evaluate_prompts};
use crate::package::Package;
use crate::provider::{self, SessionOptions};
use crate::runtime::Runtime;
use crate::session::Session;

/// Tokens of each text, if both models have room for them.
const LENGTH: usize = 64;

/// Texts, each from an empty state.
const TEXTS: u64 = 4;

/// Seed of the texts: the same in all rows, whatever the seed of the test.
const SEED: u64 = 0x1f2;

/// How far a model is from its reference on texts of random tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The reference's graph, with the folder of its package.
    pub reference: String,
    /// Recipe of the reference.
    pub precision: String,
    /// Number of tokens that were predicted.
    pub tokens: usize,
    /// Share of the positions at which both find the same token the most probable.
    pub top1: f64,
    /// Mean Kullback-Leibler divergence from the reference, in nats.
    pub mean_kld: f64,
}

/// Compares `model` with the package `reference` on so many threads of the CPU. `pass` says how the model is given the tokens: as prompts or as
/// answers, which other kernels compute. Leaves the model with whatever state.
///
/// A pair of static graphs has logits for the last token of a prompt alone: then prompts are compared that end in, at and behind a
/// chunk, a token of each.
///
/// The texts are random tokens, so that nothing but the two packages is needed; models are less sure about them than about
/// language, and small differences show. What `lfm2-host eval` finds on language is another number.
pub fn agreement(
    model: &mut AnyDecoder,
    runtime: &'static Runtime,
    reference: &Package,
    threads: usize,
    pass: Pass,
) -> Result<Agreement, MeasureError> {
    // Nothing of what the measured provider is told.
    let options = SessionOptions::with_threads(Some(threads));
    let session = Session::new(runtime, reference, provider::named("cpu")?, &options)?;
    let mut exact = AnyDecoder::Dynamic(OrtDecoder::new(session, None)?);
    let contracts = [model.contract(), exact.contract()];
    let length = contracts.map(|contract| contract.context_length).into_iter().fold(LENGTH, usize::min);
    let vocab_size = contracts.map(|contract| contract.vocab_size).into_iter().fold(usize::MAX, usize::min);
    let text = |index, length| tokens::random(length, vocab_size, SEED + index);
    let lengths = match &*model {
        AnyDecoder::Fixed(fixed) if pass == Pass::Prefill => {
            let limit = fixed.context_length().min(exact.context_length());
            Some(lengths(fixed.shortest_with_chunk(), fixed.chunk(), limit))
        }
        _ => None,
    };
    let found = match lengths {
        Some(lengths) => {
            let prompts = (0..TEXTS).flat_map(|index| lengths.iter().map(move |length| text(index, length + 1)));
            evaluate_prompts(model, &mut exact, &prompts.collect::<Vec<_>>())?
        }
        None => {
            let window = |index| Window { tokens: text(index, length), counted_from: 1 };
            let windows: Vec<_> = (0..TEXTS).map(window).collect();
            evaluate(model, Some(&mut exact), &windows, pass, &Cancel::new(), &mut |_| {})?
        }
    };
    let fidelity = found.fidelity.ok_or(EvaluationError::Nothing)?;
    Ok(Agreement {
        reference: super::subject::file_name(reference),
        precision: reference.contract().formats(),
        tokens: found.tokens,
        top1: fidelity.agreement.value,
        mean_kld: fidelity.divergence.mean.value,
    })
}

/// Lengths of prompts that go through chunks of `chunk` tokens: a padded one, half of one, a whole one, and a padded one behind a whole
/// one. At least `shortest`, which is the length from which a chunk runs, and at most `limit`.
fn lengths(shortest: usize, chunk: usize, limit: usize) -> Vec<usize> {
    let mut lengths = vec![shortest, chunk / 2 + 1, chunk + 1, chunk + shortest];
    lengths.retain(|length| (shortest..=limit).contains(length));
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_end_in_at_and_behind_a_chunk() {
        assert_eq!(lengths(10, 128, 4096), [10, 65, 129, 138]);
        assert_eq!(lengths(2, 8, 48), [2, 5, 9, 10]);
        assert_eq!(lengths(2, 8, 9), [2, 5, 9]);
        assert_eq!(lengths(2, 1, 48), [2, 3]);
        assert!(lengths(10, 128, 9).is_empty());
    }
}
