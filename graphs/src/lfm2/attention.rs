//! The attention block.

use super::Block;
use crate::dialect::Attention;
use crate::ir::{Role, Scope, Value};

/// y = out(attend(rope(norm(q)), rope(norm(k)), v)), queries in groups that share a key head, a norm per head.
///
/// Takes the cached keys and values and returns them with the new ones behind.
pub fn attention<'g>(
    block: &Block<'g, '_>,
    at: Scope<'g>,
    x: Value<'g>,
    past: [Value<'g>; 2],
) -> (Value<'g>, [Value<'g>; 2]) {
    let config = block.config;
    let [query_width, kv_width] = [config.heads * config.head_dim, config.kv_heads * config.head_dim];
    let project = |name, outputs| block.project(at, name, x, outputs, config.hidden_size, false);
    let attended = block.dialect.attention(
        at,
        Attention {
            query: project("q_proj", query_width),
            key: project("k_proj", kv_width),
            value: project("v_proj", kv_width),
            query_norm: &at.within("q_layernorm", |at| at.weight(Role::Vector, &[config.head_dim])),
            key_norm: &at.within("k_layernorm", |at| at.weight(Role::Vector, &[config.head_dim])),
            past_key: past[0],
            past_value: past[1],
            tokens: block.tokens,
            heads: block.config.attention_heads(),
            epsilon: config.norm_epsilon,
        },
    );
    let y = block.project(at, "out_proj", attended.context, config.hidden_size, query_width, false);
    (y, [attended.present_key, attended.present_value])
}
