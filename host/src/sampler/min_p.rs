//! Min-p: only tokens that are at least a given share as probable as the best one.

use super::candidates::Candidate;

/// A score below which [`keep`] keeps nothing, found without computing any probability; slightly too low, so that
/// rounding loses no token.
pub(super) fn floor(max: f32, min_p: f32) -> f32 {
    let floor = max + min_p.ln();
    floor - 1e-3 - 1e-6 * max.abs()
}

/// Keeps tokens with at least `min_p` times the probability of the best one, whose weight is 1.
pub(super) fn keep(candidates: &mut Vec<Candidate>, min_p: f32) {
    candidates.retain(|candidate| candidate.weight >= min_p);
}
