//! ONNX Runtime's contrib kernels in the form that its GPU providers run fastest.

use super::{AddNorm, Attended, Attention, CausalConv, Contrib, Convolved, Dialect, Heads};
use crate::contract::{GPU_DIALECT, Padding, Update};
use crate::ir::{DType, Scope, Value, Weight};
use crate::lower;

/// As [`Contrib`], with the norms of queries and keys inside the fused attention, which the CPU provider refuses.
///
/// Activations are float16 or bfloat16: the CUDA provider has no float32 kernel for the fused attention, and the runtime would run every
/// such node on the CPU without a word.
#[derive(Clone, Copy, Debug)]
pub struct ContribGpu {
    inner: Contrib,
    activations: DType,
}

/// The minor version of the oldest ONNX Runtime whose library for CUDA was looked into for kernels that take bfloat16: it has them for
/// every operator of these graphs. In the source of an older one, the convolution has none.
const BFLOAT16_RUNTIME_MINOR: u32 = 31;

impl ContribGpu {
    /// The dialect for graphs with such activations that compute such padded batches exactly.
    pub fn new(padding: Padding, activations: DType) -> Self {
        Self { inner: Contrib { padding }, activations }
    }
}

impl Dialect for ContribGpu {
    fn name(&self) -> &'static str {
        GPU_DIALECT
    }

    fn minimum_runtime_minor(&self) -> u32 {
        // That of the convolution; the attention takes norms since 1.28.
        let kernels = self.inner.minimum_runtime_minor();
        if self.activations == DType::Bfloat16 { kernels.max(BFLOAT16_RUNTIME_MINOR) } else { kernels }
    }

    fn update(&self) -> Update {
        self.inner.update()
    }

    fn padding(&self) -> Padding {
        self.inner.padding()
    }

    fn refuse(&self, heads: &Heads) -> Option<String> {
        self.inner.refuse(heads)
    }

    fn embed<'g>(&self, at: Scope<'g>, table: &Weight, given: Value<'g>) -> Value<'g> {
        self.inner.embed(at, table, given)
    }

    fn norm<'g>(&self, at: Scope<'g>, x: Value<'g>, scale: &Weight, epsilon: f64) -> Value<'g> {
        self.inner.norm(at, x, scale, epsilon)
    }

    fn add_norm<'g>(&self, at: Scope<'g>, op: AddNorm<'g, '_>) -> (Value<'g>, Value<'g>) {
        self.inner.add_norm(at, op)
    }

    fn linear<'g>(&self, at: Scope<'g>, x: Value<'g>, weight: &Weight, bias: Option<&Weight>) -> Value<'g> {
        self.inner.linear(at, x, weight, bias)
    }

    fn attention<'g>(&self, at: Scope<'g>, op: Attention<'g, '_>) -> Attended<'g> {
        lower::attention::group_query_with_norms(at, op, self.inner.padding)
    }

    fn causal_conv<'g>(&self, at: Scope<'g>, op: CausalConv<'g, '_>) -> Convolved<'g> {
        self.inner.causal_conv(at, op)
    }
}
