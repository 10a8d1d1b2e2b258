//! Where providers disagree.
//!
//! The model is written once; the few operations that providers write differently are the methods of [`Dialect`]. A dialect
//! is a table of choices, each choice a free function under `lower/`. The rule for what becomes a method: an operation as
//! coarse as the coarsest kernel that any provider ships for it, whose portable lowering is the fine-grained expansion.
//! Mixture-of-experts layers will add one more, `experts`.

mod contrib;
mod contrib_gpu;
mod fixed;
mod observed;
mod portable;

pub use contrib::Contrib;
pub use contrib_gpu::ContribGpu;
pub use fixed::{Fixed, FixedFor};
pub use observed::Observed;
pub use portable::Portable;

use crate::contract::{Padding, Update};
use crate::ir::{Scope, Value, Weight};

/// How the operations that providers disagree about are written.
pub trait Dialect {
    /// Name in contracts and on the command line.
    fn name(&self) -> &'static str;

    /// Lowest minor version of ONNX Runtime 1.x that runs the graphs.
    fn minimum_runtime_minor(&self) -> u32;

    /// How growing states are updated.
    fn update(&self) -> Update;

    /// Which padded batches the graphs compute exactly.
    fn padding(&self) -> Padding;

    /// The shapes of the graphs, if all of them are fixed. Then the host looks up the rows of the token table.
    fn window(&self) -> Option<Window> {
        None
    }

    /// What keeps the dialect's kernels from computing attention with such heads, if anything does, and what to do then.
    fn refuse(&self, _heads: &Heads) -> Option<String> {
        None
    }

    /// The rows of the table `[batch, sequence, hidden]` for the tokens `given`: looked up, or given as they are.
    fn embed<'g>(&self, at: Scope<'g>, table: &Weight, given: Value<'g>) -> Value<'g>;

    /// x / sqrt(mean(x^2) + epsilon) * scale over the last dimension.
    fn norm<'g>(&self, at: Scope<'g>, x: Value<'g>, scale: &Weight, epsilon: f64) -> Value<'g>;

    /// Adds a block's `update` to the residual `stream` and normalises the sum, in one step because some providers fuse the
    /// two: `(stream + update, norm(stream + update))`.
    fn add_norm<'g>(&self, at: Scope<'g>, op: AddNorm<'g, '_>) -> (Value<'g>, Value<'g>);

    /// x W^T (+ bias), with W stored `[outputs, inputs]` as in the checkpoint.
    fn linear<'g>(&self, at: Scope<'g>, x: Value<'g>, weight: &Weight, bias: Option<&Weight>) -> Value<'g>;

    /// Normalises queries and keys per head, rotates them, appends keys and values to the past and attends.
    fn attention<'g>(&self, at: Scope<'g>, op: Attention<'g, '_>) -> Attended<'g>;

    /// Depthwise causal convolution that continues from the last columns of the previous run.
    fn causal_conv<'g>(&self, at: Scope<'g>, op: CausalConv<'g, '_>) -> Convolved<'g>;
}

/// Residual addition followed by a norm.
#[derive(Clone, Copy, Debug)]
pub struct AddNorm<'g, 'w> {
    /// The residual stream `[batch, sequence, hidden]`.
    pub stream: Value<'g>,
    /// What a block adds to it, of the same shape.
    pub update: Value<'g>,
    /// Scale of the norm, `[hidden]`.
    pub scale: &'w Weight,
    /// Added to the mean square.
    pub epsilon: f64,
}

/// Grouped-query attention with per-head RMS norms, rotary embedding and a cache.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'g, 'w> {
    /// Queries `[batch, sequence, heads * head_dim]`.
    pub query: Value<'g>,
    /// Keys `[batch, sequence, kv_heads * head_dim]`.
    pub key: Value<'g>,
    /// Values, shaped as the keys.
    pub value: Value<'g>,
    /// Scale of the queries' norm, `[head_dim]`.
    pub query_norm: &'w Weight,
    /// Scale of the keys' norm, `[head_dim]`.
    pub key_norm: &'w Weight,
    /// Rotated keys so far `[batch, kv_heads, past, head_dim]`.
    pub past_key: Value<'g>,
    /// Values so far, shaped as `past_key`.
    pub past_value: Value<'g>,
    /// The tokens that the sequence is made of.
    pub tokens: Tokens<'g>,
    /// Sizes shared by all attention layers.
    pub heads: Heads,
    /// Added to the mean square in the norms.
    pub epsilon: f64,
}

/// Sizes of the attention layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Positions in the rotary table.
    pub context_length: usize,
}

/// The inputs that every layer may need.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'g> {
    /// What the graph is given of each token: its id, int64 `[batch, sequence]`, or its row of the table.
    pub given: Value<'g>,
    /// Which tokens may be looked at. Dynamic graphs take int64 `[batch, total]`, 1 for real tokens and 0 for padding, the last
    /// `sequence` columns being those of this run; static ones a bias for the scores, `[1, sequence, total]`.
    pub mask: Value<'g>,
    /// Cosines and sines of the tokens' positions, `[1, sequence, head_dim / 2]`, if the graph is given them.
    pub rotary: Option<[Value<'g>; 2]>,
}

/// The shapes of a static graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Tokens of every run.
    pub tokens: usize,
    /// Rows of keys and values before them.
    pub past: usize,
    /// Whether the graph returns logits.
    pub logits: bool,
    /// Dimensions of activations: 3, `[1, tokens, width]`, or 2, `[tokens, width]`.
    pub rank: usize,
    /// What hides a position from attention.
    pub hidden: f64,
}

impl Window {
    /// The shape of activations of `rows` rows: a matrix, with a 1 in front if the rank is 3.
    pub fn matrix<T: From<u8>>(self, rows: T, columns: T) -> Vec<T> {
        let one = (self.rank == 3).then(|| T::from(1));
        one.into_iter().chain([rows, columns]).collect()
    }

    /// The dimension of activations that counts tokens.
    pub fn axis(self) -> usize {
        self.rank - 2
    }
}

/// What attention returns.
#[derive(Clone, Copy, Debug)]
pub struct Attended<'g> {
    /// `[batch, sequence, heads * head_dim]`.
    pub context: Value<'g>,
    /// `past_key` with the new keys; in static graphs the new keys alone.
    pub present_key: Value<'g>,
    /// `past_value` with the new values; in static graphs the new values alone.
    pub present_value: Value<'g>,
}

/// Depthwise causal convolution with state.
#[derive(Clone, Copy, Debug)]
pub struct CausalConv<'g, 'w> {
    /// Input `[batch, sequence, channels]`.
    pub x: Value<'g>,
    /// Taps `[channels, 1, width]`; the last one meets the current token.
    pub kernel: &'w Weight,
    /// Bias `[channels]`.
    pub bias: Option<&'w Weight>,
    /// The last `width - 1` columns before `x`: `[batch, channels, width - 1]`.
    pub past: Value<'g>,
    /// The tokens that the sequence is made of; padded positions count as zero columns.
    pub tokens: Tokens<'g>,
}

/// What the convolution returns.
#[derive(Clone, Copy, Debug)]
pub struct Convolved<'g> {
    /// `[batch, sequence, channels]`.
    pub y: Value<'g>,
    /// The last `width - 1` columns up to the end of `x`, shaped as the past; in static graphs the columns of `x`.
    pub present: Value<'g>,
    /// Every column of this run as the state takes it, zero at padding: `[batch, sequence, channels]`.
    pub columns: Value<'g>,
}
