//! Standard operators of opset 21 only: the numerical reference for every other dialect.

use super::{AddNorm, Attended, Attention, CausalConv, Convolved, Dialect};
use crate::contract::{Padding, Update};
use crate::ir::{Scope, Value, Weight};
use crate::lower;

/// Runs in any ONNX runtime. Weights are dense; caches grow with every run.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Dialect for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    fn minimum_runtime_minor(&self) -> u32 {
        // The first release with opset 21.
        18
    }

    fn update(&self) -> Update {
        Update::Appended
    }

    fn padding(&self) -> Padding {
        Padding::Left
    }

    fn embed<'g>(&self, at: Scope<'g>, table: &Weight, given: Value<'g>) -> Value<'g> {
        lower::embed::gather(at, table, given)
    }

    fn norm<'g>(&self, at: Scope<'g>, x: Value<'g>, scale: &Weight, epsilon: f64) -> Value<'g> {
        lower::norm::decomposed(at, x, scale, epsilon)
    }

    fn add_norm<'g>(&self, at: Scope<'g>, op: AddNorm<'g, '_>) -> (Value<'g>, Value<'g>) {
        lower::norm::add_then_decomposed(at, op)
    }

    fn linear<'g>(&self, at: Scope<'g>, x: Value<'g>, weight: &Weight, bias: Option<&Weight>) -> Value<'g> {
        lower::linear::dense(at, x, weight, bias)
    }

    fn attention<'g>(&self, at: Scope<'g>, op: Attention<'g, '_>) -> Attended<'g> {
        lower::attention::decomposed(at, op)
    }

    fn causal_conv<'g>(&self, at: Scope<'g>, op: CausalConv<'g, '_>) -> Convolved<'g> {
        lower::conv::window(at, op)
    }
}
