//! A scale for each row, for kernels that multiply bytes.

use lfm2_graphs::ir::{CHANNEL_LARGEST, CHANNEL_ZERO_POINT};

/// Quantizes whole rows of `columns` values. Appends one scale per row to `scales` and the numbers to `numbers`, row after row.
///
/// The value of largest magnitude becomes 127 steps, so that a value is off by half a step at most: `scale / 2`. Both ends are
/// used alike: numbers lie from 1 to 255 around 128. A row of zeros gets the scale 0.
///
/// Values must be finite.
pub fn round_by_channel(columns: usize, values: &[f32], numbers: &mut Vec<u8>, scales: &mut Vec<f32>) {
    let (largest, zero) = (f32::from(CHANNEL_LARGEST), f32::from(CHANNEL_ZERO_POINT));
    for row in values.chunks_exact(columns.max(1)) {
        let extreme = row.iter().fold(0.0_f32, |extreme, value| extreme.max(value.abs()));
        let scale = extreme / largest;
        // Where the scale is too small for a float32 of full precision, its inverse is none: such rows are zeros.
        let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
        scales.push(if inverse == 0.0 { 0.0 } else { scale });
        numbers.extend(row.iter().map(|&value| {
            // Float32 numbers from 2^23 on have no fraction: the sum is rounded to the nearest integer, and its low bits are it.
            let sum = (value * inverse).clamp(-largest, largest) + zero + INTEGERS_FROM;
            sum.to_bits() as u8
        }));
    }
}

/// From here on float32 numbers are integers.
const INTEGERS_FROM: f32 = 8_388_608.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn quantized(columns: usize, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let (mut numbers, mut scales) = (Vec::new(), Vec::new());
        round_by_channel(columns, values, &mut numbers, &mut scales);
        (numbers, scales)
    }

    fn represented(columns: usize, numbers: &[u8], scales: &[f32]) -> Vec<f32> {
        let value = |(i, &number): (usize, &u8)| (f32::from(number) - 128.0) * scales[i / columns];
        numbers.iter().enumerate().map(value).collect()
    }

    #[test]
    fn error_is_at_most_half_a_step() {
        let values: Vec<f32> =
            (0..700).map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0) * 1.7_f32.powi(i / 70)).collect();
        let (numbers, scales) = quantized(70, &values);
        assert!(numbers.iter().all(|number| *number > 0));
        for (i, (a, b)) in values.iter().zip(represented(70, &numbers, &scales)).enumerate() {
            // A little more than a half, for the rounding of the division and of the sum before it is an integer.
            assert!((a - b).abs() <= 0.501 * scales[i / 70], "{a} became {b}");
        }
        // What is quantized already stays as it is.
        assert_eq!(quantized(70, &represented(70, &numbers, &scales)).0, numbers);
    }

    #[test]
    fn extremes_zeros_and_the_smallest_numbers() {
        let mut values = vec![0.0; 8];
        assert_eq!(quantized(4, &values), (vec![128; 8], vec![0.0; 2]));
        values[1] = -2.0;
        values[6] = 2.0;
        let (numbers, scales) = quantized(4, &values);
        assert_eq!(numbers, [128, 1, 128, 128, 128, 128, 255, 128]);
        assert!(scales.iter().all(|scale| (scale * 127.0 - 2.0).abs() < 1e-6));
        values = vec![f32::from_bits(1); 4];
        assert_eq!(quantized(4, &values), (vec![128; 4], vec![0.0]));
        values[0] = f32::MAX;
        let (numbers, scales) = quantized(4, &values);
        assert!(numbers[0] == 255 && scales[0].is_finite());
    }
}
