//! The steps of one block, and what is computed with them whatever the method.

use std::array::from_fn;

use half::f16;
use lfm2_graphs::ir::{Blocks, DType};

/// Most values of a block.
pub(super) const LARGEST_BLOCK: usize = 256;

/// What is computed with at once: as many numbers as the registers of every processor hold. Blocks are multiples of it. Written
/// as an array for each operation, it becomes one instruction for each.
pub(super) const LANES: usize = 4;

/// Numbers that are computed with at once.
pub(super) type Lanes = [f32; LANES];

/// What the numbers of a block stand for: `(number - zero) * scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Steps {
    /// Distance of two neighbours, as its stored type represents it; 0 for a block of zeros.
    pub(super) scale: f32,
    /// The number that stands for zero.
    pub(super) zero: u8,
}

impl Steps {
    /// Steps of about this width. What is too small for a scale makes a block of zeros, whose number is `zero` in every place.
    pub(super) fn new(blocks: Blocks, scale: f32, zero: u8) -> Self {
        Self { scale: stored(scale, blocks.scales), zero }
    }

    /// The numbers nearest to the values.
    pub(super) fn numbers(self, blocks: Blocks, values: &[f32], numbers: &mut [u8]) {
        let (inverse, zero, largest) = (self.inverse(), f32::from(self.zero), largest(blocks));
        for (number, &value) in numbers.iter_mut().zip(values) {
            // Float32 numbers from 2^23 on have no fraction: the sum is rounded to the nearest integer, ties to even, and its low
            // bits are that integer. The rounding functions of the language are calls on processors without SSE4.1.
            let sum = within(value * inverse + zero, 0.0, largest) + INTEGERS_FROM;
            *number = sum.to_bits() as u8;
        }
    }

    /// Sum of the weighted squares of what the nearest numbers are off by.
    pub(super) fn error(self, blocks: Blocks, values: &[f32], weights: &[f32]) -> f32 {
        let inverse = self.inverse();
        let (low, high) = self.range(blocks);
        let mut sums = [0.0; LANES];
        for (values, weights) in lanes(values).zip(lanes(weights)) {
            let numbers: Lanes = from_fn(|i| nearest(values[i] * inverse, low, high));
            let off: Lanes = from_fn(|i| values[i] - numbers[i] * self.scale);
            sums = from_fn(|i| sums[i] + weights[i] * off[i] * off[i]);
        }
        sum(sums)
    }

    /// The numbers less the zero point: the least and the largest.
    pub(super) fn range(self, blocks: Blocks) -> (f32, f32) {
        let zero = f32::from(self.zero);
        (-zero, largest(blocks) - zero)
    }

    fn inverse(self) -> f32 {
        if self.scale == 0.0 { 0.0 } else { 1.0 / self.scale }
    }
}

/// The largest number.
pub(super) fn largest(blocks: Blocks) -> f32 {
    2.0 * f32::from(blocks.zero_point()) - 1.0
}

/// The integer nearest to `value` from `low` to `high`, ties to even. Both bounds are integers of magnitudes below 2^22.
pub(super) fn nearest(value: f32, low: f32, high: f32) -> f32 {
    /// Added to a small number of either sign, it leaves a sum without a fraction.
    const SHIFT: f32 = 1.5 * INTEGERS_FROM;
    (within(value, low, high) + SHIFT) - SHIFT
}

/// Chunks of values that are computed with at once.
pub(super) fn lanes(values: &[f32]) -> impl Iterator<Item = &Lanes> {
    values.as_chunks().0.iter()
}

/// The sum of all lanes, always in the same order.
pub(super) fn sum([a, b, c, d]: Lanes) -> f32 {
    (a + c) + (b + d)
}

/// From here on float32 numbers are integers.
const INTEGERS_FROM: f32 = 8_388_608.0;

/// The value, or the bound that it is beyond. Unlike the functions of the language it is one instruction for each bound.
fn within(value: f32, low: f32, high: f32) -> f32 {
    let value = if value > low { value } else { low };
    if value < high { value } else { high }
}

/// The scale as its stored type represents it. Scales that have no inverse are 0.
fn stored(scale: f32, dtype: DType) -> f32 {
    let scale = if dtype == DType::Float16 { f16::from_f32(scale).to_f32() } else { scale };
    if scale.abs() < f32::MIN_POSITIVE { 0.0 } else { scale }
}
