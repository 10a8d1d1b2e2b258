//! Plain rounding to the nearest step.

use lfm2_graphs::ir::Blocks;

use super::block::{Steps, largest, nearest};

/// The steps that follow from the extremes of a block.
///
/// Without a zero point, the value of largest magnitude becomes the most negative number, `-2^(bits-1)`, so that the whole range
/// is used; the scale takes the sign that this needs. This is the symmetric rule of ONNX Runtime's `MatMulNBits` quantizer and
/// of llama.cpp's `Q4_0`. With a zero point, the least value, or 0 if none is negative, becomes 0, and the largest, or 0 if none
/// is positive, `2^bits - 1`, both moved by what it takes to have an integer for 0.
pub(super) fn steps(blocks: Blocks, block: &[f32]) -> Steps {
    if !blocks.zero_points {
        return Steps::new(blocks, extreme(block) / -f32::from(blocks.zero_point()), blocks.zero_point());
    }
    let (least, most) = extremes(block);
    with_zero_point(blocks, least, most)
}

/// The steps from `least`, which is not positive, to `most`, which is not negative.
pub(super) fn with_zero_point(blocks: Blocks, least: f32, most: f32) -> Steps {
    let largest = largest(blocks);
    // Divided first, because the difference of two finite numbers need not be finite.
    let steps = Steps::new(blocks, most / largest - least / largest, 0);
    if steps.scale == 0.0 {
        return steps;
    }
    Steps { zero: nearest(-least / steps.scale, 0.0, largest) as u8, ..steps }
}

/// The value of largest magnitude, the first of equal ones.
pub(super) fn extreme(block: &[f32]) -> f32 {
    block.iter().copied().fold(0.0_f32, |a, b| if b.abs() > a.abs() { b } else { a })
}

/// The least and the largest of the values and 0.
pub(super) fn extremes(block: &[f32]) -> (f32, f32) {
    let least = block.iter().copied().fold(0.0_f32, |a, b| if b < a { b } else { a });
    (least, block.iter().copied().fold(0.0_f32, |a, b| if b > a { b } else { a }))
}
