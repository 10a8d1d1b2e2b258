//! What lowerings derive from the token inputs, built once per graph.

use crate::dialect::{Heads, Tokens};
use crate::ir::{Attribute, DType, RopePart, Scope, Source, Value};
use crate::ops;

/// Largest int64: "to the end" of a slice.
const END: i64 = i64::MAX;

/// Number of tokens in this run, int64 `[1]`.
pub(super) fn sequence_length<'g>(at: Scope<'g>, tokens: Tokens<'g>) -> Value<'g> {
    at.once("sequence_length", |_| tokens.given.size(1))
}

/// Number of tokens up to the end of this run, int64 `[1]`.
pub(super) fn total_length<'g>(at: Scope<'g>, tokens: Tokens<'g>) -> Value<'g> {
    at.once("total_length", |_| tokens.mask.size(1))
}

/// Number of tokens before this run, int64 `[1]`.
pub(super) fn past_length<'g>(at: Scope<'g>, tokens: Tokens<'g>) -> Value<'g> {
    at.once("past_length", |at| total_length(at, tokens) - sequence_length(at, tokens))
}

/// 1 at the real tokens of this run and 0 at padding, in the activations' type: `[batch, sequence, 1]`.
pub(super) fn mask_of_run<'g>(at: Scope<'g>, tokens: Tokens<'g>) -> Value<'g> {
    at.once("mask_of_run", |at| {
        let here = tokens.mask.slice(past_length(at, tokens), at.ints(&[END]), 1);
        here.cast(at.activations()).unsqueeze(&[2])
    })
}

/// Which keys each query may see: bool `[batch, sequence, total]`. A query sees the real tokens up to its own position.
fn visible<'g>(at: Scope<'g>, tokens: Tokens<'g>) -> Value<'g> {
    at.once("visible", |at| {
        let range = |start: Value<'g>, end: Value<'g>| {
            let scalar = |length: Value<'g>| length.reshape(&[]);
            at.op(&ops::RANGE, &[scalar(start), scalar(end), at.int(1)], &[])
        };
        let total = total_length(at, tokens);
        let keys = range(at.ints(&[0]), total);
        let queries = range(past_length(at, tokens), total).unsqueeze(&[1]);
        let causal = at.op(&ops::LESS_OR_EQUAL, &[keys, queries], &[]);
        let real = tokens.mask.cast(DType::Bool).unsqueeze(&[1]);
        at.op(&ops::AND, &[causal, real], &[])
    })
}

/// [`visible`] with an axis for heads and one for the queries that share a head: bool `[batch, 1, 1, sequence, total]`.
pub(super) fn visible_grouped<'g>(at: Scope<'g>, tokens: Tokens<'g>) -> Value<'g> {
    at.once("visible_grouped", |at| visible(at, tokens).unsqueeze(&[1, 2]))
}

/// A large negative number where a query must not look and 0 elsewhere: `[batch, 1, sequence, total]`. It is finite, so that
/// the queries of padded positions, which may look nowhere, still get finite scores.
pub(super) fn attention_bias<'g>(at: Scope<'g>, tokens: Tokens<'g>) -> Value<'g> {
    at.once("attention_bias", |at| {
        let dtype = at.activations();
        let visible = visible(at, tokens).unsqueeze(&[1]);
        at.op(&ops::WHERE, &[visible, at.float(0.0, dtype), at.float(hidden(dtype), dtype)], &[])
    })
}

/// The score of a key that must not be seen. Float16's whole range, and of float32 and bfloat16, whose range is the same, a part: all
/// vanish in the softmax and none overflows when a score is added.
pub(super) fn hidden(dtype: DType) -> f64 {
    if dtype == DType::Float16 { -60000.0 } else { -1e30 }
}

/// The last valid index of each row, int32 `[batch]`, as `GroupQueryAttention` takes it.
pub(super) fn last_index<'g>(at: Scope<'g>, tokens: Tokens<'g>, padded: bool) -> Value<'g> {
    at.once("last_index", |at| {
        let lengths = if padded {
            // Padding counts as a position: it is hidden by the bias, not by the length.
            let batch = tokens.given.size(0);
            at.op(&ops::EXPAND, &[total_length(at, tokens), batch], &[])
        } else {
            at.op(&ops::REDUCE_SUM, &[tokens.mask, at.ints(&[1])], &[("keepdims", Attribute::Int(0))])
        };
        (lengths - at.int(1)).cast(DType::Int32)
    })
}

/// The total length as an int32 scalar.
pub(super) fn total_scalar<'g>(at: Scope<'g>, tokens: Tokens<'g>) -> Value<'g> {
    at.once("total_scalar", |at| total_length(at, tokens).reshape(&[]).cast(DType::Int32))
}

/// Cosines or sines of every position, `[context_length, head_dim / 2]`.
pub(super) fn rope_table<'g>(at: Scope<'g>, part: RopePart, heads: Heads) -> Value<'g> {
    let name = match part {
        RopePart::Cos => "rope.cos",
        RopePart::Sin => "rope.sin",
    };
    let Heads { head_dim, rope_theta, context_length, .. } = heads;
    let source = Source::Rope { part, theta: rope_theta, head_dim };
    at.initializer(name, at.activations(), &[context_length, head_dim / 2], source)
}

/// The rows of [`rope_table`] for the positions of this run, `[sequence, head_dim / 2]`: given, or cut out of the table.
///
/// Positions are physical: the attention score depends on distances only, so that left padding, which shifts a row's positions
/// by a constant, changes nothing.
pub(super) fn rope_rows<'g>(at: Scope<'g>, part: RopePart, heads: Heads, tokens: Tokens<'g>) -> Value<'g> {
    let (name, given) = match part {
        RopePart::Cos => ("cosines_of_run", tokens.rotary.map(|[cosines, _]| cosines)),
        RopePart::Sin => ("sines_of_run", tokens.rotary.map(|[_, sines]| sines)),
    };
    if let Some(rows) = given {
        return rows;
    }
    at.once(name, |at| rope_table(at, part, heads).slice(past_length(at, tokens), total_length(at, tokens), 0))
}
