//! What graphs for calibration tell about activations.

use crate::ir::{Attribute, Scope, Value};
use crate::ops;

/// The sum of the squares of each column of `x` `[batch, sequence, columns]`: `[columns]`.
pub fn sum_of_squares<'g>(at: Scope<'g>, x: Value<'g>) -> Value<'g> {
    at.op(&ops::REDUCE_SUM_SQUARE, &[x, at.ints(&[0, 1])], &[("keepdims", Attribute::Int(0))])
}
