//! Top-p: only the fewest tokens whose probabilities sum up to a given share.

use std::cmp::Ordering;

use super::candidates::{self, Candidate};

/// Keeps a token if those before it, from the most probable on, have less than `top_p` of the total weight; the best one
/// always. Among equal scores the higher token comes first, as with transformers.
///
/// A set is wanted, not an order: so instead of sorting, the list is halved around its median until the last kept token
/// is found. That takes time in proportion to its length, however flat the distribution is.
pub(super) fn keep(candidates: &mut Vec<Candidate>, top_p: f32) {
    if top_p >= 1.0 || candidates.is_empty() {
        return;
    }
    let mut order = candidates.clone();
    let mut wanted = candidates::mass(candidates) * f64::from(top_p);
    // The last kept token is in `rest`; the tokens before `rest` weigh what is missing in `wanted`.
    let mut rest = order.as_mut_slice();
    while rest.len() > 1 {
        let middle = rest.len() / 2;
        rest.select_nth_unstable_by(middle, best_first);
        let (better, worse) = rest.split_at_mut(middle);
        let weight = candidates::mass(better);
        rest = if weight < wanted {
            wanted -= weight;
            worse
        } else {
            better
        };
    }
    let last = rest[0];
    candidates.retain(|candidate| best_first(candidate, &last) != Ordering::Greater);
}

fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.score.total_cmp(&a.score).then(b.token.cmp(&a.token))
}
