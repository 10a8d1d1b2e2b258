//! Depthwise causal convolution with state.

use super::tokens::mask_of_run;
use crate::contract::Padding;
use crate::dialect::{CausalConv, Convolved, Window};
use crate::ir::algebra::concat;
use crate::ir::{Attribute, Scope, Value};
use crate::ops;

/// Past columns in front, an ordinary convolution, and the last columns kept: one rule for prompts, chunks and single tokens.
pub fn window<'g>(at: Scope<'g>, op: CausalConv<'g, '_>) -> Convolved<'g> {
    let [channels, width] = [op.kernel.rows() as i64, op.kernel.columns() as i64];
    let x = op.x * mask_of_run(at, op.tokens);
    let columns = concat(&[op.past, x.transpose(&[0, 2, 1])], 2);
    let mut inputs = vec![columns, at.dense(op.kernel)];
    inputs.extend(op.bias.map(|bias| at.dense(bias)));
    let attributes = [("group", Attribute::Int(channels)), ("kernel_shape", Attribute::Ints(vec![width]))];
    let y = at.op(&ops::CONV, &inputs, &attributes).transpose(&[0, 2, 1]);
    let present = columns.slice(at.ints(&[1 - width]), at.ints(&[i64::MAX]), 2);
    Convolved { y, present, columns: x }
}

/// The fused kernel with channels last, so that the activations are never transposed; only the small state is.
pub fn stateful<'g>(at: Scope<'g>, op: CausalConv<'g, '_>, padding: Padding) -> Convolved<'g> {
    let x = match padding {
        Padding::None => op.x,
        Padding::Left => op.x * mask_of_run(at, op.tokens),
    };
    let swap = |state: Value<'g>| state.transpose(&[0, 2, 1]);
    let inputs = [Some(x), Some(at.dense(op.kernel)), op.bias.map(|bias| at.dense(bias)), Some(swap(op.past))];
    let attributes =
        [("ndim", Attribute::Int(1)), ("activation", Attribute::Text("none")), ("channels_last", Attribute::Int(1))];
    let [y, present] = at.call(&ops::CAUSAL_CONV_WITH_STATE, &inputs, &attributes);
    Convolved { y, present: swap(present), columns: x }
}

/// The past columns in front, and one product for each tap. Nothing is transposed: channels come last in the state as well. The
/// columns of the run are all that is returned.
pub fn taps<'g>(at: Scope<'g>, op: CausalConv<'g, '_>, window: Window) -> Convolved<'g> {
    let axis = window.axis() as i64;
    let x = op.x.stored_as(op.past);
    let columns = concat(&[op.past, x], axis);
    let tap = |tap: usize| {
        let [start, end] = [tap, tap + window.tokens].map(|bound| at.ints(&[bound as i64]));
        columns.slice(start, end, axis) * at.column(op.kernel, tap)
    };
    let y = (1..op.kernel.columns()).fold(tap(0), |sum, next| sum + tap(next));
    let y = match op.bias {
        Some(bias) => y + at.dense(bias),
        None => y,
    };
    Convolved { y, present: x, columns: x }
}
