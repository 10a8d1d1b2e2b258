//! Signed numbers with a scale for each row, for NPUs whose activations are integers.

use std::array::from_fn;

use super::block::{LANES, Lanes, lanes, nearest, sum};
use super::pack;

/// What the extreme of a row of 4 bits becomes, as a part of the largest number and above: candidates of which the best is taken. Beyond
/// the range it is clipped, and the others have finer steps.
const REACHES: [f32; 8] = [1.0, 1.05, 1.12, 1.2, 1.3, 1.42, 1.56, 1.75];

/// The numbers and the scale of every row of `columns` values: numbers packed as ONNX stores them, two of 4 bits to a byte with the
/// first in the low half, or one of 8 bits in each.
///
/// A value is `q * scale`, with `q` from `-(2^(bits-1) - 1)` to `2^(bits-1) - 1`: what NPUs take has its zero in the middle. Numbers of 8
/// bits are rounded to the nearest one. Rows of 4 bits have an even number of columns. Of 4 bits, the scale is searched for that leaves the least sum of `importance` times the square
/// of what each value is off by, importance being how much errors in a column matter; 1 everywhere if it is not known.
///
/// Values must be finite.
pub fn quantize_rows(bits: usize, columns: usize, importance: Option<&[f32]>, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let largest = ((1_i32 << (bits - 1)) - 1) as f32;
    let (mut packed, mut scales) = (Vec::new(), Vec::new());
    let (mut numbers, mut weighted) = (Vec::with_capacity(columns), Weighted::default());
    for row in values.chunks_exact(columns.max(1)) {
        let extreme = row.iter().fold(0.0_f32, |extreme, value| extreme.max(value.abs()));
        let rounded = usable(extreme / largest);
        let scale = if bits == 4 {
            weighted.take(row, importance);
            weighted.searched(rounded, largest)
        } else {
            rounded
        };
        scales.push(real(scale));
        numbers.clear();
        let inverse = inverse(scale);
        numbers.extend(row.iter().map(|&value| {
            let number = nearest(value * inverse, -largest, largest) as i8;
            if bits == 4 { number as u8 & 0xf } else { number as u8 }
        }));
        pack(bits, &numbers, &mut packed);
    }
    (packed, scales)
}

/// `values` as symmetric int16 and their scale: the largest magnitude becomes the largest number.
///
/// Values must be finite.
pub fn encode(values: &[f32]) -> (Vec<i16>, f32) {
    let largest = f32::from(lfm2_graphs::ir::ENCODED_LARGEST);
    let extreme = values.iter().fold(0.0_f32, |extreme, value| extreme.max(value.abs()));
    let scale = usable(extreme / largest);
    let inverse = inverse(scale);
    let integer = |value: &f32| (value * inverse).round_ties_even().clamp(-largest, largest) as i16;
    (values.iter().map(integer).collect(), real(scale))
}

/// A row with the weights of its values, filled up with zeros to whole lanes.
#[derive(Default)]
struct Weighted {
    values: Vec<f32>,
    weights: Vec<f32>,
    /// Weights times values.
    products: Vec<f32>,
}

impl Weighted {
    /// Takes the values of a row, and how much each column matters.
    fn take(&mut self, row: &[f32], importance: Option<&[f32]>) {
        let length = row.len().next_multiple_of(LANES);
        self.values.clear();
        self.values.extend_from_slice(row);
        self.values.resize(length, 0.0);
        self.weights.clear();
        match importance {
            Some(importance) => self.weights.extend_from_slice(&importance[..row.len().min(importance.len())]),
            None => self.weights.resize(row.len(), 1.0),
        }
        self.weights.resize(length, 0.0);
        self.products.clear();
        self.products.extend(self.values.iter().zip(&self.weights).map(|(value, weight)| value * weight));
    }

    /// The scale of least weighted error among the candidates, each made better by fitting it to the numbers that it gives. Never worse
    /// than plain rounding.
    ///
    /// The numbers q follow from a candidate by rounding, and the best scale from them: sum(w x q) / sum(w q^2), which leaves the error
    /// sum(w x^2) - sum(w x q)^2 / sum(w q^2).
    fn searched(&self, rounded: f32, largest: f32) -> f32 {
        let better = |best: (f32, f32), fit: (f32, f32)| if fit.0 > best.0 { fit } else { best };
        let mut best =
            REACHES.iter().fold((0.0, rounded), |best, reach| better(best, self.fit(rounded / reach, largest)));
        best = better(best, self.fit(best.1, largest));
        // What the sums promise is not quite what the scale does when the values are rounded with it.
        if self.error(best.1, largest) < self.error(rounded, largest) { best.1 } else { rounded }
    }

    /// How much of the error of a row of zeros the best scale for the numbers of a candidate takes away, and that scale.
    fn fit(&self, candidate: f32, largest: f32) -> (f32, f32) {
        let inverse = inverse(usable(candidate));
        let (mut crosses, mut squares) = ([0.0; LANES], [0.0; LANES]);
        for ((values, weights), products) in lanes(&self.values).zip(lanes(&self.weights)).zip(lanes(&self.products)) {
            let numbers: Lanes = from_fn(|i| nearest(values[i] * inverse, -largest, largest));
            crosses = from_fn(|i| crosses[i] + numbers[i] * products[i]);
            squares = from_fn(|i| squares[i] + numbers[i] * numbers[i] * weights[i]);
        }
        let (cross, square) = (sum(crosses), sum(squares));
        if square > 0.0 { (cross / square * cross, usable(cross / square)) } else { (0.0, 0.0) }
    }

    /// The sum of the weighted squares of what the values are off by.
    fn error(&self, scale: f32, largest: f32) -> f32 {
        let inverse = inverse(scale);
        let mut sums = [0.0; LANES];
        for (values, weights) in lanes(&self.values).zip(lanes(&self.weights)) {
            let numbers: Lanes = from_fn(|i| nearest(values[i] * inverse, -largest, largest));
            sums = from_fn(|i| sums[i] + weights[i] * (values[i] - numbers[i] * scale).powi(2));
        }
        sum(sums)
    }
}

/// A scale that has an inverse, or 0.
fn usable(scale: f32) -> f32 {
    if scale < f32::MIN_POSITIVE { 0.0 } else { scale }
}

/// A scale that no compiler stumbles over: what is always zero is zero with any.
fn real(scale: f32) -> f32 {
    if scale == 0.0 { 1.0 } else { scale }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0) * 1.3_f32.powi((i / 64) as i32)).collect()
    }

    fn unpacked(bits: usize, packed: &[u8]) -> Vec<f32> {
        let halves = |byte: &u8| [byte << 4, *byte].map(|half| f32::from((half as i8) >> 4));
        if bits == 4 {
            packed.iter().flat_map(halves).collect()
        } else {
            packed.iter().map(|it| f32::from(*it as i8)).collect()
        }
    }

    #[test]
    fn numbers_of_8_bits_are_off_by_half_a_step() {
        let values = values(640);
        let (packed, scales) = quantize_rows(8, 64, None, &values);
        for (i, (value, number)) in values.iter().zip(unpacked(8, &packed)).enumerate() {
            assert!((value - number * scales[i / 64]).abs() <= 0.501 * scales[i / 64]);
            assert!((-127.0..=127.0).contains(&number));
        }
    }

    #[test]
    fn searching_is_never_worse_and_heeds_importance() {
        let values = values(640);
        let error = |packed: &[u8], scales: &[f32], importance: Option<&[f32]>| -> f64 {
            let numbers = unpacked(4, packed);
            let each = values.iter().zip(numbers).enumerate();
            each.map(|(i, (value, number))| {
                let weight = importance.map_or(1.0, |all| all[i % 64]);
                f64::from(weight) * f64::from(value - number * scales[i / 64]).powi(2)
            })
            .sum()
        };
        let rounded: f64 = values
            .chunks(64)
            .flat_map(|row| {
                let scale = row.iter().fold(0.0_f32, |most, it| most.max(it.abs())) / 7.0;
                row.iter().map(move |value| f64::from(value - (value / scale).round() * scale).powi(2))
            })
            .sum();
        let (packed, scales) = quantize_rows(4, 64, None, &values);
        assert!(error(&packed, &scales, None) < rounded);
        let mut importance = vec![1.0; 64];
        importance[5] = 1e4;
        let (heeding, its_scales) = quantize_rows(4, 64, Some(&importance), &values);
        assert!(error(&heeding, &its_scales, Some(&importance)) < error(&packed, &scales, Some(&importance)));
    }

    #[test]
    fn the_first_of_two_numbers_lies_in_the_low_half() {
        let (packed, scales) = quantize_rows(4, 4, None, &[7.0, -7.0, 0.0, 3.0, 0.0, 1.0, -1.0, 0.0]);
        assert_eq!((packed[0], packed[1]), (0x97, 0x30));
        assert_eq!((packed[2], packed[3], scales.len()), (0x70, 0x09, 2));
    }

    #[test]
    fn zeros_and_the_smallest_numbers_stay_zero() {
        for bits in [4, 8] {
            let (packed, scales) = quantize_rows(bits, 4, None, &[0.0, f32::from_bits(1), 0.0, 0.0]);
            assert!(packed.iter().all(|byte| *byte == 0) && scales == [1.0]);
        }
        assert_eq!(encode(&[0.0, 0.0]), (vec![0, 0], 1.0));
        assert_eq!(encode(&[-2.0, 1.0]).0, [-32767, 16384]);
    }
}
