//! Top-k: only the k best tokens.

use super::candidates::Candidate;

/// Number of scores per block in [`floor`].
const BLOCK: usize = 64;

/// A score below which [`keep`] keeps nothing: the k-th largest of the maxima of blocks of scores. It is not above the
/// k-th largest score, and far cheaper to find. Negative infinity if there are too few blocks, or `top_k` is off.
pub(super) fn floor(scores: &[f32], top_k: usize) -> f32 {
    if top_k == 0 || scores.len() / BLOCK < top_k {
        return f32::NEG_INFINITY;
    }
    let maximum =
        |block: &[f32]| block.iter().fold(f32::NEG_INFINITY, |max, &score| if score > max { score } else { max });
    let mut maxima: Vec<f32> = scores.chunks_exact(BLOCK).map(maximum).collect();
    *maxima.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a)).1
}

/// Keeps the `top_k` tokens with the largest scores and, as transformers does, all that equal the last of them.
pub(super) fn keep(candidates: &mut Vec<Candidate>, top_k: usize) {
    if top_k == 0 || top_k >= candidates.len() {
        return;
    }
    let mut scores: Vec<f32> = candidates.iter().map(|candidate| candidate.score).collect();
    let last = *scores.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a)).1;
    candidates.retain(|candidate| candidate.score >= last);
}
