//! Grouped-query attention with per-head norms, rotary embedding and a cache.

use super::norm;
use super::tokens::{self, attention_bias, last_index, rope_rows, rope_table, total_scalar, visible_grouped};
use crate::contract::Padding;
use crate::dialect::{Attended, Attention, Window};
use crate::ir::algebra::concat;
use crate::ir::{Attribute, Encoding, Range, RopePart, Scope, Value, Weight};
use crate::ops;

/// Elementary operators. With G queries sharing a key head, per batch row and key head:
/// softmax(q k^T / sqrt(head_dim), over the visible keys) v.
pub fn decomposed<'g>(at: Scope<'g>, op: Attention<'g, '_>) -> Attended<'g> {
    let [heads, kv_heads, head_dim] = [op.heads.heads, op.heads.kv_heads, op.heads.head_dim].map(|n| n as i64);
    let group = heads / kv_heads;

    // [batch, heads, sequence, head_dim]
    let per_head = |x: Value<'g>, count: i64| x.reshape(&[0, 0, count, head_dim]);
    let by_head = |x: Value<'g>| x.transpose(&[0, 2, 1, 3]);
    let query = norm::decomposed(at, per_head(op.query, heads), op.query_norm, op.epsilon);
    let key = norm::decomposed(at, per_head(op.key, kv_heads), op.key_norm, op.epsilon);
    let query = rotate(at, by_head(query), &op);
    let present_key = concat(&[op.past_key, rotate(at, by_head(key), &op)], 2);
    let present_value = concat(&[op.past_value, by_head(per_head(op.value, kv_heads))], 2);

    // [batch, kv_heads, group, sequence, head_dim] against [batch, kv_heads, 1, head_dim, total]
    let scale = at.float((head_dim as f64).powf(-0.5), at.activations());
    let query = (query * scale).reshape(&[0, kv_heads, group, -1, head_dim]);
    let keys = present_key.transpose(&[0, 1, 3, 2]).unsqueeze(&[2]);
    let scores = at.op(&ops::MATMUL, &[query, keys], &[]);
    let hidden = at.float(tokens::hidden(at.activations()), at.activations());
    let scores = at.op(&ops::WHERE, &[visible_grouped(at, op.tokens), scores, hidden], &[]);
    let weights = at.op(&ops::SOFTMAX, &[scores], &[("axis", Attribute::Int(-1))]);
    let context = at.op(&ops::MATMUL, &[weights, present_value.unsqueeze(&[2])], &[]);
    let context = by_head(context.reshape(&[0, heads, -1, head_dim])).reshape(&[0, 0, heads * head_dim]);
    Attended { context, present_key, present_value }
}

/// Elementary operators of at most three dimensions, all shapes fixed.
///
/// Keys are kept transposed, so that no run transposes the rows of the past. Queries that share a key head lie one behind the
/// other, so that one product takes them all and keys are never repeated. Norms see one dimension of rows and one of columns:
/// with more, the NPUs of Qualcomm compute garbage.
pub fn fixed<'g>(at: Scope<'g>, op: Attention<'g, '_>, window: Window, norm: norm::Norm) -> Attended<'g> {
    let [heads, kv_heads, head_dim] = [op.heads.heads, op.heads.kv_heads, op.heads.head_dim].map(|n| n as i64);
    let [tokens, total] = [window.tokens, window.past + window.tokens].map(|n| n as i64);
    let shared = heads / kv_heads * tokens;

    // [heads, tokens, head_dim]
    let by_head = |x: Value<'g>, count: i64| x.reshape(&[tokens, count, head_dim]).transpose(&[1, 0, 2]);
    let normed = |x: Value<'g>, count: i64, scale: &Weight| {
        norm(at, x.reshape(&window.matrix(tokens * count, head_dim)), scale, op.epsilon)
    };
    let query = rotate(at, by_head(normed(op.query, heads, op.query_norm), heads), &op);
    let key = rotate(at, by_head(normed(op.key, kv_heads, op.key_norm), kv_heads), &op).transpose(&[0, 2, 1]);
    let key = kept(key, op.past_key, [kv_heads, head_dim, tokens]);
    let value = kept(by_head(op.value, kv_heads), op.past_value, [kv_heads, tokens, head_dim]);
    let (keys, values) = (concat(&[op.past_key, key], 2), concat(&[op.past_value, value], 1));

    let scale = at.single((head_dim as f64).powf(-0.5), at.activations());
    let query = (query * scale).reshape(&[kv_heads, shared, head_dim]);
    let scores = at.within(SCORES, |at| at.op(&ops::MATMUL, &[query, keys], &[]));
    let scores = masked(at, scores.reshape(&[heads, tokens, total]), op.tokens.mask);
    let weights = at.op(&ops::SOFTMAX, &[scores], &[("axis", Attribute::Int(-1))]);
    let context = at.op(&ops::MATMUL, &[weights.reshape(&[kv_heads, shared, total]), values], &[]);
    let context = context.reshape(&[heads, tokens, head_dim]).transpose(&[1, 0, 2]);
    let context = context.reshape(&window.matrix(tokens, heads * head_dim));
    Attended { context, present_key: key, present_value: value }
}

/// The scope of the products of queries and keys in static graphs.
const SCORES: &str = "scores";

/// How much lower than every score that can be the score of a hidden key is: its weight is less than e^-20 of any other's, which is
/// nothing in 16 bits.
const HIDDEN_BELOW: f32 = 20.0;

/// What hides a position in graphs of integers, from the ranges of their values by name: no more than that is needed, because the range
/// of the sum has to hold it.
pub fn hidden<'n>(ranges: impl Iterator<Item = (&'n str, Range)>) -> f64 {
    let scores = ranges.filter(|(name, _)| name.split('/').any(|part| part == SCORES));
    let spread = scores.fold(0.0_f32, |spread, (_, [least, largest])| spread.max(largest.max(0.0) - least.min(0.0)));
    f64::from(-(spread + HIDDEN_BELOW).ceil())
}

/// The scores with those of hidden keys far below. As integers, all of these are the lowest one, so that the others keep their resolution.
fn masked<'g>(at: Scope<'g>, scores: Value<'g>, mask: Value<'g>) -> Value<'g> {
    let encoding = scores.encoding().map(|encoding| {
        let [least, largest] = encoding.range();
        Encoding::over([least - HIDDEN_BELOW, largest])
    });
    at.op_stored(&ops::ADD, &[scores, mask], &[], encoding)
}

/// New keys or values as the state keeps them. Integers get another shape and their own again: the runtime would otherwise move the
/// reordering in front behind the change of their encoding, where NPUs do not take it.
fn kept<'g>(x: Value<'g>, past: Value<'g>, shape: [i64; 3]) -> Value<'g> {
    if past.encoding().is_none() {
        return x;
    }
    let [heads, rows, columns] = shape;
    x.reshape(&[heads * rows, columns]).reshape(&shape).stored_as(past)
}

/// Rotates the first and second half of each head against each other: (a cos - b sin, b cos + a sin).
fn rotate<'g>(at: Scope<'g>, x: Value<'g>, op: &Attention<'g, '_>) -> Value<'g> {
    let cos = rope_rows(at, RopePart::Cos, op.heads, op.tokens);
    let sin = rope_rows(at, RopePart::Sin, op.heads, op.tokens);
    let [a, b] = x.split_last();
    concat(&[a * cos - b * sin, b * cos + a * sin], -1)
}

/// With rotary embedding, the fused kernel takes heads of a multiple of this many elements.
pub const GROUP_QUERY_HEAD_STEP: usize = 16;

/// The fused kernel. It rotates, appends to the cache and attends; the CPU provider refuses to take the norms as well.
pub fn group_query<'g>(at: Scope<'g>, op: Attention<'g, '_>, padding: Padding) -> Attended<'g> {
    let query = head_norm(at, op.query, op.query_norm, op.heads.heads, &op);
    let key = head_norm(at, op.key, op.key_norm, op.heads.kv_heads, &op);
    fused(at, Attention { query, key, ..op }, padding, false)
}

/// The fused kernel of GPUs, which normalises queries and keys as well.
pub fn group_query_with_norms<'g>(at: Scope<'g>, op: Attention<'g, '_>, padding: Padding) -> Attended<'g> {
    fused(at, op, padding, true)
}

/// The fused kernel. `norms` says that it is to normalise queries and keys.
fn fused<'g>(at: Scope<'g>, op: Attention<'g, '_>, padding: Padding, norms: bool) -> Attended<'g> {
    let padded = padding == Padding::Left;
    let mut inputs = vec![
        Some(op.query),
        Some(op.key),
        Some(op.value),
        Some(op.past_key),
        Some(op.past_value),
        Some(last_index(at, op.tokens, padded)),
        Some(total_scalar(at, op.tokens)),
        Some(rope_table(at, RopePart::Cos, op.heads)),
        Some(rope_table(at, RopePart::Sin, op.heads)),
        // Position ids: the kernel ignores them on a first prompt, so that feeding them would make chunks disagree.
        None,
        padded.then(|| attention_bias(at, op.tokens)),
        // No head has a sink.
        None,
        op.past_key.scales(),
        op.past_value.scales(),
        norms.then(|| at.dense(op.query_norm)),
        norms.then(|| at.dense(op.key_norm)),
    ];
    let mut attributes = vec![
        ("num_heads", Attribute::Int(op.heads.heads as i64)),
        ("kv_num_heads", Attribute::Int(op.heads.kv_heads as i64)),
        ("scale", Attribute::Float((op.heads.head_dim as f64).powf(-0.5) as f32)),
        ("do_rotary", Attribute::Int(1)),
    ];
    if norms {
        // Without it, the kernel takes a number of its own.
        attributes.push(("qk_norm_epsilon", Attribute::Float(op.epsilon as f32)));
    }
    if op.past_key.scales().is_some() {
        attributes.extend([
            ("k_quant_type", Attribute::Text("PER_CHANNEL")),
            ("v_quant_type", Attribute::Text("PER_CHANNEL")),
            ("kv_cache_bit_width", Attribute::Int(8)),
        ]);
    }
    while inputs.last().is_some_and(Option::is_none) {
        inputs.pop();
    }
    let [context, present_key, present_value] = at.call(&ops::GROUP_QUERY_ATTENTION, &inputs, &attributes);
    Attended { context, present_key, present_value }
}

/// The fused norm over each head: heads become rows and columns again.
fn head_norm<'g>(at: Scope<'g>, x: Value<'g>, scale: &Weight, heads: usize, op: &Attention<'g, '_>) -> Value<'g> {
    let head_dim = op.heads.head_dim as i64;
    let normed = norm::simplified(at, x.reshape(&[0, -1, head_dim]), scale, op.epsilon);
    normed.reshape(&[0, -1, heads as i64 * head_dim])
}
