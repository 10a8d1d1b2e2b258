//! The gated short convolution.

use super::Block;
use crate::dialect::{CausalConv, Convolved};
use crate::ir::{Role, Scope, Value};

/// y = out(C * conv(B * x)), with B, C and x split from one projection, in this order.
///
/// Takes the last columns of B * x and returns them moved on, and all columns of this run.
pub fn short_conv<'g>(block: &Block<'g, '_>, at: Scope<'g>, x: Value<'g>, past: Value<'g>) -> Convolved<'g> {
    let config = block.config;
    let hidden = config.hidden_size;
    let [b, c, x] = block.project(at, "in_proj", x, 3 * hidden, hidden, config.conv_bias).split_last();
    let x = b * x;
    let convolved = at.within("conv", |at| {
        let kernel = at.weight(Role::Kernel, &[hidden, 1, config.conv_width]);
        let bias = config.conv_bias.then(|| at.bias(hidden));
        let op = CausalConv { x, kernel: &kernel, bias: bias.as_ref(), past, tokens: block.tokens };
        block.dialect.causal_conv(at, op)
    });
    let y = block.project(at, "out_proj", c * convolved.y, hidden, hidden, config.conv_bias);
    Convolved { y, ..convolved }
}
