//! RMS norms, alone and after a residual addition.

use crate::dialect::AddNorm;
use crate::ir::{Attribute, DType, Scope, Value, Weight};
use crate::ops;

/// How a norm is written: the scope, x, the scale and epsilon.
pub type Norm = for<'g> fn(Scope<'g>, Value<'g>, &Weight, f64) -> Value<'g>;

/// x / sqrt(mean(x^2) + epsilon) * scale. The mean is taken in float32, as the reference implementation does.
pub fn decomposed<'g>(at: Scope<'g>, x: Value<'g>, scale: &Weight, epsilon: f64) -> Value<'g> {
    let wide = at.activations() != DType::Float32;
    let y = if wide { x.cast(DType::Float32) } else { x };
    let mean = at.op(&ops::REDUCE_MEAN, &[y * y, at.ints(&[-1])], &[("keepdims", Attribute::Int(1))]);
    let y = y / (mean + at.single(epsilon, DType::Float32)).sqrt();
    let y = if wide { y.cast(at.activations()) } else { y };
    y * at.dense(scale)
}

/// Addition, then [`decomposed`].
pub fn add_then_decomposed<'g>(at: Scope<'g>, op: AddNorm<'g, '_>) -> (Value<'g>, Value<'g>) {
    let stream = op.stream + op.update;
    (stream, decomposed(at, stream, op.scale, op.epsilon))
}

/// The fused norm.
pub fn simplified<'g>(at: Scope<'g>, x: Value<'g>, scale: &Weight, epsilon: f64) -> Value<'g> {
    let attributes = [
        ("axis", Attribute::Int(-1)),
        ("epsilon", Attribute::Float(epsilon as f32)),
        ("stash_type", Attribute::Int(1)),
    ];
    at.op(&ops::SIMPLIFIED_LAYER_NORMALIZATION, &[x, at.dense(scale)], &attributes)
}

/// The fused addition and norm. ONNX Runtime does not fuse the pair by itself.
pub fn skip_simplified<'g>(at: Scope<'g>, op: AddNorm<'g, '_>) -> (Value<'g>, Value<'g>) {
    let inputs = [Some(op.stream), Some(op.update), Some(at.dense(op.scale))];
    let attributes = [("epsilon", Attribute::Float(op.epsilon as f32))];
    // The outputs between the two are statistics for training.
    let wanted = [true, false, false, true];
    let [normed, _, _, stream] = at.call_some(&ops::SKIP_SIMPLIFIED_LAYER_NORMALIZATION, &inputs, wanted, &attributes);
    (stream, normed)
}
