//! Projections with 8-bit weights and 8-bit activations, a scale for each row of either.
//!
//! Both factors are unsigned with a zero point in their middle. Signed weights would be the obvious choice, but on x86
//! processors without VNNI the product of unsigned and signed bytes is summed up in pairs with saturation at 16 bits, so that
//! results would be wrong there (by any amount) unless the weights kept to 7 bits. The kernel for two unsigned factors sums
//! exactly everywhere and is as fast.

use super::linear::add_bias;
use crate::ir::{Attribute, CHANNEL_LARGEST, CHANNEL_ZERO_POINT, DType, Scope, Source, Value, Weight};
use crate::ops;

/// The scale of a row of zeros, for which any number does.
const SMALLEST_SCALE: f64 = 1e-30;

/// A product with a matrix quantized by row. The activations are quantized by row too, which is by token: the result for a
/// token does not depend on what else is in the run.
pub fn channels<'g>(at: Scope<'g>, x: Value<'g>, weight: &Weight, bias: Option<&Weight>) -> Value<'g> {
    let [rows, columns] = [weight.rows(), weight.columns()];
    let [numbers, scale] = quantized_rows(at, x, columns);
    let packed = at.initializer(
        &format!("{}.channels", weight.name),
        DType::Uint8,
        &[columns, rows],
        Source::Channels { weight: weight.clone() },
    );
    let scales = at.initializer(
        &format!("{}.channel_scales", weight.name),
        DType::Float32,
        &[rows],
        Source::ChannelScales { weight: weight.clone() },
    );
    let zero = at.byte(CHANNEL_ZERO_POINT);
    // The kernel takes one scale for all activations only: that of each row comes behind it.
    let one = at.float(1.0, DType::Float32);
    let product = at.op(&ops::MATMUL_INTEGER_TO_FLOAT, &[numbers, packed, one, scales, zero, zero], &[]);
    add_bias(at, product * scale, bias)
}

/// `x` `[batch, sequence, columns]` as uint8 numbers around the zero point, and the scale of each row, float32
/// `[batch, sequence, 1]`. Projections of one input share them.
fn quantized_rows<'g>(at: Scope<'g>, x: Value<'g>, columns: usize) -> [Value<'g>; 2] {
    at.derived(x, "quantized_rows", |at| {
        let magnitude = at.op(&ops::ABS, &[x], &[]);
        let keep = [("keepdims", Attribute::Int(1))];
        let largest = at.op(&ops::REDUCE_MAX, &[magnitude, at.ints(&[-1])], &keep);
        let step = at.float(1.0 / f64::from(CHANNEL_LARGEST), DType::Float32);
        let scale = at.op(&ops::MAX, &[largest * step, at.float(SMALLEST_SCALE, DType::Float32)], &[]);
        let shape = at.op(&ops::SHAPE, &[scale], &[]);
        let zeros = at.op(&ops::EXPAND, &[at.byte(CHANNEL_ZERO_POINT), shape], &[]);
        // One block is a whole row.
        let blocks = [("axis", Attribute::Int(-1)), ("block_size", Attribute::Int(columns as i64))];
        [at.op(&ops::QUANTIZE_LINEAR, &[x, scale, zeros], &blocks), scale]
    })
}
