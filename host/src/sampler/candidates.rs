//! The passes over all scores, written so that the compiler can use vector instructions, and the short list that they give.

use super::SamplingError;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) token: u32,
    /// After repetition penalty and temperature.
    pub(super) score: f32,
    /// `exp(score - largest score)`: the probability, but for a factor that is the same for all.
    pub(super) weight: f32,
}

/// Number of scores compared at once: two vectors of the widest kind.
const LANES: usize = 32;

/// The largest score.
///
/// # Errors
/// If a score is NaN or positive infinity, or all are negative infinity.
pub(super) fn maximum(scores: &[f32]) -> Result<f32, SamplingError> {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut unordered = [0_u32; LANES];
    let chunks = scores.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &score) in chunk.iter().enumerate() {
            largest[lane] = if score > largest[lane] { score } else { largest[lane] };
            unordered[lane] |= u32::from(score.is_nan());
        }
    }
    let max = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &score| max.max(score));
    match max {
        _ if unordered.contains(&1) || rest.iter().any(|score| score.is_nan()) => Err(SamplingError::NotANumber),
        f32::INFINITY => Err(SamplingError::Infinite),
        f32::NEG_INFINITY => Err(SamplingError::NothingLeft),
        max => Ok(max),
    }
}

/// The lowest token whose score is `max`.
pub(super) fn first_of(scores: &[f32], max: f32) -> Option<u32> {
    let block =
        scores.chunks(LANES).position(|chunk| chunk.iter().fold(false, |found, &score| found | (score == max)))?;
    let start = block * LANES;
    let offset = scores[start..].iter().position(|&score| score == max)?;
    u32::try_from(start + offset).ok()
}

/// Lists the tokens with a score of at least `floor` that are not impossible, in ascending order.
pub(super) fn collect(scores: &[f32], max: f32, floor: f32, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    for (block, chunk) in scores.chunks(LANES).enumerate() {
        // Most blocks hold nothing, and finding that out has no branch per score.
        if !chunk.iter().fold(false, |found, &score| found | (score >= floor)) {
            continue;
        }
        for (token, &score) in (block * LANES..).zip(chunk) {
            if score >= floor && score > f32::NEG_INFINITY {
                candidates.push(Candidate { token: token as u32, score, weight: (score - max).exp() });
            }
        }
    }
}

/// Sum of the weights, added in the order of the list.
pub(super) fn mass(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}
