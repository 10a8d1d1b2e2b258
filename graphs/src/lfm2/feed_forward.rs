//! The feed-forward block.

use super::Block;
use crate::ir::{Scope, Value};

/// y = w2(silu(w1 x) * w3 x).
pub fn feed_forward<'g>(block: &Block<'g, '_>, at: Scope<'g>, x: Value<'g>) -> Value<'g> {
    let [hidden, inner] = [block.config.hidden_size, block.config.feed_forward_size];
    let gate = block.project(at, "w1", x, inner, hidden, false);
    let up = block.project(at, "w3", x, inner, hidden, false);
    block.project(at, "w2", gate.silu() * up, hidden, inner, false)
}
