//! ONNX Runtime's contrib kernels in the form that its CPU provider runs fastest.

use super::{AddNorm, Attended, Attention, CausalConv, Convolved, Dialect, Heads};
use crate::contract::{Padding, Update};
use crate::ir::{Format, Scope, Value, Weight};
use crate::lower;

/// Fused kernels, caches updated in place, weights dense or quantized in blocks.
#[derive(Clone, Copy, Debug)]
pub struct Contrib {
    /// Whether left-padded batches are computed exactly, at the price of a bias on every attention.
    pub padding: Padding,
}

impl Dialect for Contrib {
    fn name(&self) -> &'static str {
        "contrib"
    }

    fn minimum_runtime_minor(&self) -> u32 {
        // The first release whose CausalConvWithState has `channels_last`.
        30
    }

    fn update(&self) -> Update {
        Update::InPlace
    }

    fn padding(&self) -> Padding {
        self.padding
    }

    fn refuse(&self, heads: &Heads) -> Option<String> {
        let head_dim = heads.head_dim;
        let refused = !head_dim.is_multiple_of(lower::attention::GROUP_QUERY_HEAD_STEP);
        refused.then(|| {
            format!(
                "head_dim is {head_dim}, the rotary embedding of ONNX Runtime's fused attention takes multiples of {}; use `--dialect portable`",
                lower::attention::GROUP_QUERY_HEAD_STEP
            )
        })
    }

    fn embed<'g>(&self, at: Scope<'g>, table: &Weight, given: Value<'g>) -> Value<'g> {
        match table.format {
            // No kernel looks rows up in a table quantized by channel; `verify` says so.
            Format::Dense(_) | Format::Channels | Format::Rows { .. } => lower::embed::gather(at, table, given),
            Format::Blocks(blocks) => lower::embed::gather_quantized(at, table, blocks, given),
        }
    }

    fn norm<'g>(&self, at: Scope<'g>, x: Value<'g>, scale: &Weight, epsilon: f64) -> Value<'g> {
        lower::norm::simplified(at, x, scale, epsilon)
    }

    fn add_norm<'g>(&self, at: Scope<'g>, op: AddNorm<'g, '_>) -> (Value<'g>, Value<'g>) {
        lower::norm::skip_simplified(at, op)
    }

    fn linear<'g>(&self, at: Scope<'g>, x: Value<'g>, weight: &Weight, bias: Option<&Weight>) -> Value<'g> {
        match weight.format {
            // Rows with a scale each are what `verify` reports.
            Format::Dense(_) | Format::Rows { .. } => lower::linear::dense(at, x, weight, bias),
            Format::Blocks(blocks) => lower::linear::nbits(at, x, weight, blocks, bias),
            Format::Channels => lower::linear_channels::channels(at, x, weight, bias),
        }
    }

    fn attention<'g>(&self, at: Scope<'g>, op: Attention<'g, '_>) -> Attended<'g> {
        lower::attention::group_query(at, op, self.padding)
    }

    fn causal_conv<'g>(&self, at: Scope<'g>, op: CausalConv<'g, '_>) -> Convolved<'g> {
        lower::conv::stateful(at, op, self.padding)
    }
}
