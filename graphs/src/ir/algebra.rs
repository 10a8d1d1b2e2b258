//! Operators on values that every dialect writes the same way.

use std::ops::{Add, Div, Mul, Sub};

use super::graph::{Attribute, Value};
use super::types::DType;
use crate::ops;

macro_rules! binary {
    ($($trait:ident :: $method:ident = $op:ident;)*) => {
        $(impl<'g> $trait for Value<'g> {
            type Output = Self;

            fn $method(self, other: Self) -> Self {
                self.here().op(&ops::$op, &[self, other], &[])
            }
        })*
    };
}

binary! {
    Add::add = ADD;
    Div::div = DIV;
    Mul::mul = MUL;
    Sub::sub = SUB;
}

impl<'g> Value<'g> {
    /// x * sigmoid(x). ONNX Runtime fuses this pair; the `Swish` operator it expands and does not fuse.
    pub fn silu(self) -> Self {
        self * self.here().op(&ops::SIGMOID, &[self], &[])
    }

    /// Square root of each element.
    pub fn sqrt(self) -> Self {
        self.here().op(&ops::SQRT, &[self], &[])
    }

    /// Converts to another element type.
    pub fn cast(self, to: DType) -> Self {
        self.here().op(&ops::CAST, &[self], &[("to", Attribute::Int(onnx_type(to)))])
    }

    /// Reorders the dimensions.
    pub fn transpose(self, order: &[i64]) -> Self {
        self.here().op(&ops::TRANSPOSE, &[self], &[("perm", Attribute::Ints(order.to_vec()))])
    }

    /// Gives the tensor another shape: 0 keeps a dimension, -1 is what is left.
    pub fn reshape(self, shape: &[i64]) -> Self {
        let here = self.here();
        here.op(&ops::RESHAPE, &[self, here.ints(shape)], &[])
    }

    /// Inserts dimensions of size 1 so that they come to lie at `axes`.
    pub fn unsqueeze(self, axes: &[i64]) -> Self {
        let here = self.here();
        here.op(&ops::UNSQUEEZE, &[self, here.ints(axes)], &[])
    }

    /// Cuts the last dimension into `N` equal parts.
    pub fn split_last<const N: usize>(self) -> [Self; N] {
        let attributes = [("axis", Attribute::Int(-1)), ("num_outputs", Attribute::Int(N as i64))];
        self.here().call(&ops::SPLIT, &[Some(self)], &attributes)
    }

    /// The part from `start` to `end` (both int64 `[1]`) of dimension `axis`.
    pub fn slice(self, start: Self, end: Self, axis: i64) -> Self {
        let here = self.here();
        here.op(&ops::SLICE, &[self, start, end, here.ints(&[axis])], &[])
    }

    /// The size of dimension `axis`, int64 `[1]`.
    pub fn size(self, axis: i64) -> Self {
        let bounds = [("start", Attribute::Int(axis)), ("end", Attribute::Int(axis + 1))];
        self.here().op(&ops::SHAPE, &[self], &bounds)
    }
}

/// Joins tensors along dimension `axis`.
pub fn concat<'g>(parts: &[Value<'g>], axis: i64) -> Value<'g> {
    parts[0].here().op(&ops::CONCAT, parts, &[("axis", Attribute::Int(axis))])
}

/// Number of an element type in `TensorProto.DataType` of the ONNX schema.
pub fn onnx_type(dtype: DType) -> i64 {
    match dtype {
        DType::Float32 => 1,
        DType::Uint8 => 2,
        DType::Int8 => 3,
        DType::Uint16 => 4,
        DType::Int16 => 5,
        DType::Int32 => 6,
        DType::Int64 => 7,
        DType::Bool => 9,
        DType::Float16 => 10,
        DType::Bfloat16 => 16,
        DType::Int4 => 22,
    }
}
