//! The steps of least weighted error among many.

use std::array::from_fn;
use std::ops::RangeInclusive;

use lfm2_graphs::ir::Blocks;

use super::block::{LANES, LARGEST_BLOCK, Lanes, Steps, lanes, nearest, sum};
use super::rounding::{self, extreme, extremes, with_zero_point};

/// Magnitudes of a block's extreme for which no sum below overflows, and none loses what matters. Others are rounded plainly.
const SEARCHED: RangeInclusive<f32> = 1e-9..=1e9;

/// What is added to `2^(bits-1)` to say which number the extreme of a symmetric block would become: beyond the range it is
/// clipped, and the others have finer steps.
const SHIFTS: [f32; 8] = [-0.8, -0.4, 0.0, 0.4, 0.8, 1.2, 1.7, 2.4];

/// Parts of a block's extremes that blocks with zero points reach to, on either side.
const REACHES: [f32; 4] = [1.0, 0.9, 0.8, 0.7];

/// How often the best scale is made better by fitting it to the numbers that it gives.
const REFINEMENTS: usize = 1;

/// The steps for which the sum of w (x - q)^2 is least among those tried, never worse than plain rounding.
///
/// The weights w are sqrt(m + x^2) with m the mean of x^2 in the block, times the importance of the column if it is known: large
/// values matter more, as in the k-quants of llama.cpp (`make_qx_quants`), whose weights these are. For each candidate the
/// numbers q follow by rounding and the best scale from them: sum(w x q) / sum(w q^2), which leaves the error
/// sum(w x^2) - sum(w x q)^2 / sum(w q^2).
pub(super) fn steps(blocks: Blocks, block: &[f32], importance: Option<&[f32]>) -> Steps {
    let rounded = rounding::steps(blocks, block);
    let extreme = extreme(block);
    if !SEARCHED.contains(&extreme.abs()) {
        return rounded;
    }
    let (mut weights, mut products) = ([0.0; LARGEST_BLOCK], [0.0; LARGEST_BLOCK]);
    let (weights, products) = (&mut weights[..block.len()], &mut products[..block.len()]);
    weigh(block, importance, weights, products);
    let weighted = Weighted { blocks, values: block, weights, products };

    let best = if blocks.zero_points {
        let (least, most) = extremes(block);
        let pairs = REACHES.iter().flat_map(|low| REACHES.iter().map(move |high| (low, high)));
        weighted.best(pairs.map(|(low, high)| with_zero_point(blocks, low * least, high * most)))
    } else {
        let zero = blocks.zero_point();
        weighted.best(SHIFTS.iter().map(|shift| Steps { scale: -extreme / (f32::from(zero) + shift), zero }))
    };
    // What the sums promise is not quite what the stored scale does.
    if best.error(blocks, block, weights) < rounded.error(blocks, block, weights) { best } else { rounded }
}

/// Fills in the weights, and their products with the values.
fn weigh(block: &[f32], importance: Option<&[f32]>, weights: &mut [f32], products: &mut [f32]) {
    let squares = lanes(block).fold([0.0; LANES], |sums, values| from_fn(|i| sums[i] + values[i] * values[i]));
    let mean = sum(squares) / block.len() as f32;
    for (weight, &value) in weights.iter_mut().zip(block) {
        *weight = (mean + value * value).sqrt();
    }
    for (weight, &importance) in weights.iter_mut().zip(importance.unwrap_or_default()) {
        *weight *= importance;
    }
    for ((product, &weight), &value) in products.iter_mut().zip(&*weights).zip(block) {
        *product = weight * value;
    }
}

/// A block with the weights of its values.
struct Weighted<'b> {
    blocks: Blocks,
    values: &'b [f32],
    weights: &'b [f32],
    /// Weights times values.
    products: &'b [f32],
}

/// What a candidate leads to.
#[derive(Clone, Copy)]
struct Fit {
    /// How much of the error of a block of zeros it takes away.
    gain: f32,
    steps: Steps,
}

impl Weighted<'_> {
    fn best(&self, candidates: impl Iterator<Item = Steps>) -> Steps {
        let none = Fit { gain: -1.0, steps: Steps { scale: 0.0, zero: self.blocks.zero_point() } };
        let mut best = candidates.fold(none, |best, candidate| better(best, self.fit(candidate)));
        for _ in 0..REFINEMENTS {
            best = better(best, self.fit(best.steps));
        }
        Steps::new(self.blocks, best.steps.scale, best.steps.zero)
    }

    /// The best scale for the numbers that a candidate gives.
    fn fit(&self, candidate: Steps) -> Fit {
        let inverse = if candidate.scale == 0.0 { 0.0 } else { 1.0 / candidate.scale };
        let (low, high) = candidate.range(self.blocks);
        let (mut crosses, mut squares) = ([0.0; LANES], [0.0; LANES]);
        let all = lanes(self.values).zip(lanes(self.weights)).zip(lanes(self.products));
        for ((values, weights), products) in all {
            let numbers: Lanes = from_fn(|i| nearest(values[i] * inverse, low, high));
            crosses = from_fn(|i| crosses[i] + numbers[i] * products[i]);
            squares = from_fn(|i| squares[i] + numbers[i] * numbers[i] * weights[i]);
        }
        let (cross, square) = (sum(crosses), sum(squares));
        if square <= 0.0 {
            return Fit { gain: 0.0, steps: Steps { scale: 0.0, ..candidate } };
        }
        Fit { gain: cross / square * cross, steps: Steps { scale: cross / square, ..candidate } }
    }
}

/// The fit of larger gain, the first of equal ones.
fn better(first: Fit, second: Fit) -> Fit {
    if second.gain > first.gain { second } else { first }
}
