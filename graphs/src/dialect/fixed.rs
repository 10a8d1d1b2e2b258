//! Fixed shapes and few, simple operators, for providers that compile the graph as a whole: NPUs, Core ML, NNAPI.

use super::{AddNorm, Attended, Attention, CausalConv, Convolved, Dialect, Window};
use crate::contract::{Padding, Target, Update};
use crate::ir::{Format, Scope, Value, Weight};
use crate::lower;

/// A graph for chunks or for single tokens. The host supplies what depends on positions, and keeps the states.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    provider: FixedFor,
    window: Window,
    /// Whether the graph is to be one of integers, or one that tells their ranges.
    integers: bool,
}

/// The providers that take such graphs, and what they disagree about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixedFor {
    /// Apple's Core ML: three dimensions, norms from elementary operators.
    Coreml,
    /// Android's NNAPI: two dimensions, because its products of matrices have no more, and norms from elementary operators.
    Nnapi,
    /// Qualcomm's NPUs: three dimensions, a norm of its own, weights in blocks.
    Qnn,
}

impl FixedFor {
    /// The target whose graphs these are.
    pub fn target(self) -> Target {
        match self {
            Self::Coreml => Target::Coreml,
            Self::Nnapi => Target::Nnapi,
            Self::Qnn => Target::Qnn,
        }
    }
}

impl Fixed {
    /// Graphs that take `tokens` tokens behind `past` rows, with logits or without.
    pub fn new(provider: FixedFor, tokens: usize, past: usize, logits: bool) -> Self {
        let rank = if provider == FixedFor::Nnapi { 2 } else { 3 };
        Self { provider, window: Window { tokens, past, logits, rank, hidden: HIDDEN }, integers: false }
    }

    /// Graphs for Qualcomm's NPUs whose activations are integers ([`Graph::with_ranges`](crate::ir::Graph::with_ranges)), and that which
    /// observes them. Matrices have a scale for each row; `hidden` is what [`hidden`](lower::attention::hidden) says, and nothing for the
    /// graph that observes.
    pub fn integers(tokens: usize, past: usize, logits: bool, hidden: Option<f64>) -> Self {
        let window = Window { tokens, past, logits, rank: 2, hidden: hidden.unwrap_or(HIDDEN) };
        Self { provider: FixedFor::Qnn, window, integers: true }
    }

    /// The provider's norm, which all of a graph's norms are.
    fn norm_of(&self) -> lower::norm::Norm {
        match self.provider {
            FixedFor::Coreml | FixedFor::Nnapi => lower::norm::decomposed,
            FixedFor::Qnn => lower::norm::simplified,
        }
    }
}

/// Within the range of float16, which most of these providers compute in, with room for a score.
const HIDDEN: f64 = -30_000.0;

impl Dialect for Fixed {
    fn name(&self) -> &'static str {
        self.provider.target().name()
    }

    fn minimum_runtime_minor(&self) -> u32 {
        match self.provider {
            // Before, the provider could not read weights that lie in a file beside the graph.
            FixedFor::Coreml => 28,
            // The first release with opset 21.
            FixedFor::Nnapi => 18,
            // The oldest release that ran these graphs; before 1.31, splits of the form that convolutions have fail.
            FixedFor::Qnn => 32,
        }
    }

    fn update(&self) -> Update {
        Update::ByHost
    }

    fn padding(&self) -> Padding {
        Padding::None
    }

    fn window(&self) -> Option<Window> {
        Some(self.window)
    }

    fn embed<'g>(&self, _at: Scope<'g>, _table: &Weight, given: Value<'g>) -> Value<'g> {
        given
    }

    fn norm<'g>(&self, at: Scope<'g>, x: Value<'g>, scale: &Weight, epsilon: f64) -> Value<'g> {
        self.norm_of()(at, x, scale, epsilon)
    }

    fn add_norm<'g>(&self, at: Scope<'g>, op: AddNorm<'g, '_>) -> (Value<'g>, Value<'g>) {
        let stream = op.stream + op.update;
        (stream, self.norm(at, stream, op.scale, op.epsilon))
    }

    fn linear<'g>(&self, at: Scope<'g>, x: Value<'g>, weight: &Weight, bias: Option<&Weight>) -> Value<'g> {
        match weight.format {
            _ if self.integers => lower::linear::by_rows(at, x, weight, bias),
            Format::Blocks(blocks) if self.provider == FixedFor::Qnn => {
                lower::linear::nbits(at, x, weight, blocks, bias)
            }
            // Weights in blocks that the provider does not take are what `verify` reports.
            Format::Dense(_) | Format::Blocks(_) | Format::Channels | Format::Rows { .. } => {
                lower::linear::fixed(at, x, weight, bias, self.window)
            }
        }
    }

    fn attention<'g>(&self, at: Scope<'g>, op: Attention<'g, '_>) -> Attended<'g> {
        lower::attention::fixed(at, op, self.window, self.norm_of())
    }

    fn causal_conv<'g>(&self, at: Scope<'g>, op: CausalConv<'g, '_>) -> Convolved<'g> {
        lower::conv::taps(at, op, self.window)
    }
}
