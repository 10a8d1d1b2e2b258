//! Plain rounding to the nearest step.

use half::f16;
use lfm2_graphs::ir::{Blocks, DType};

/// Quantizes whole blocks: `values.len()` is a multiple of the block size. Appends one scale per block to `scales` and the
/// packed numbers to `packed`, low half of a byte first.
///
/// The value of largest magnitude in a block becomes the most negative number, `-2^(bits-1)`, so that the whole range is used;
/// the scale takes the sign that this needs. This is the symmetric rule of ONNX Runtime's `MatMulNBits` quantizer and of
/// llama.cpp's `Q4_0`. With float16 scales the rounded scale is what the numbers are divided by.
///
/// Values must be finite.
pub fn round_to_nearest(blocks: Blocks, values: &[f32], packed: &mut Vec<u8>, scales: &mut Vec<f32>) {
    let zero = f32::from(blocks.zero_point());
    let largest_number = 2.0 * zero - 1.0;
    let mut numbers = vec![0_u8; blocks.block_size];
    for block in values.chunks_exact(blocks.block_size) {
        let extreme = block.iter().copied().fold(0.0_f32, |a, b| if b.abs() > a.abs() { b } else { a });
        let scale = stored(extreme / -zero, blocks.scales);
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        for (number, &value) in numbers.iter_mut().zip(block) {
            // Float32 numbers from 2^23 on have no fraction: the sum is rounded to the nearest integer, ties to even, and its low
            // bits are that integer. The rounding functions of the language are calls on processors without SSE4.1.
            let sum = (value * inverse + zero).clamp(0.0, largest_number) + INTEGERS_FROM;
            *number = sum.to_bits() as u8;
        }
        scales.push(scale);
        if blocks.bits == 4 {
            packed.extend(numbers.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4));
        } else {
            packed.extend_from_slice(&numbers);
        }
    }
}

/// From here on float32 numbers are integers.
const INTEGERS_FROM: f32 = 8_388_608.0;

/// The scale as its stored type represents it.
fn stored(scale: f32, dtype: DType) -> f32 {
    if dtype == DType::Float16 { f16::from_f32(scale).to_f32() } else { scale }
}

#[cfg(test)]
mod tests {
    use lfm2_graphs::format::unpack_row;

    use super::*;

    fn quantized(blocks: Blocks, values: &[f32]) -> Vec<f32> {
        let (mut packed, mut scales) = (Vec::new(), Vec::new());
        round_to_nearest(blocks, values, &mut packed, &mut scales);
        assert_eq!(packed.len(), values.len() * blocks.bits / 8);
        let mut out = vec![0.0; values.len()];
        unpack_row(blocks, &packed, &scales, &mut out);
        out
    }

    fn blocks(bits: usize, scales: DType) -> Blocks {
        Blocks { bits, block_size: 32, scales }
    }

    #[test]
    fn error_is_at_most_half_a_step() {
        let values: Vec<f32> =
            (0..320).map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0) * 1.5_f32.powi(i / 32)).collect();
        for (bits, scales) in [(4, DType::Float32), (8, DType::Float32), (4, DType::Float16), (8, DType::Float16)] {
            let blocks = blocks(bits, scales);
            for (block, out) in values.chunks(32).zip(quantized(blocks, &values).chunks(32)) {
                let step = block.iter().fold(0.0_f32, |a, b| a.max(b.abs())) / f32::from(blocks.zero_point());
                for (a, b) in block.iter().zip(out) {
                    // At the end opposite to the extreme there is one step less: the value may be a whole step off.
                    let opposite = (a / step).abs() > f32::from(blocks.zero_point()) - 1.0;
                    let bound = if opposite { 1.0 } else { 0.5 } * step * 1.002;
                    assert!((a - b).abs() <= bound, "{bits} bits: {a} became {b}, step {step}");
                }
            }
        }
    }

    #[test]
    fn extremes_zeros_and_small_numbers() {
        let mut values = vec![0.0; 64];
        assert_eq!(quantized(blocks(4, DType::Float32), &values), values, "zeros stay zeros");
        values[3] = -4.0;
        values[40] = 4.0;
        assert_eq!(quantized(blocks(4, DType::Float32), &values), values, "both signs of the extreme are exact");
        values[3] = 1e-30;
        values[40] = 0.0;
        let out = quantized(blocks(4, DType::Float16), &values);
        assert!(out.iter().all(|value| *value == 0.0), "what float16 scales cannot hold becomes zero");
    }
}
