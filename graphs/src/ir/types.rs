//! Element types, dimensions and shapes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Element type of a tensor, named as ONNX names it in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 32-bit IEEE float.
    Float32,
    /// 16-bit IEEE float.
    Float16,
    /// 16-bit float with the range of float32 and 8 bits of precision.
    Bfloat16,
    /// 64-bit signed integer.
    Int64,
    /// 32-bit signed integer.
    Int32,
    /// 16-bit signed integer: states and constants of graphs whose activations are integers.
    Int16,
    /// 16-bit unsigned integer: activations as integers.
    Uint16,
    /// 8-bit signed integer: rows of quantized caches, and weights with a scale for each row.
    Int8,
    /// 8-bit unsigned integer; also the container of packed 4-bit weights.
    Uint8,
    /// 4-bit signed integer, two to a byte: weights with a scale for each row.
    Int4,
    /// One byte holding 0 or 1.
    Bool,
}

impl DType {
    /// Bits of one element.
    pub fn bits(self) -> usize {
        match self {
            DType::Int64 => 64,
            DType::Float32 | DType::Int32 => 32,
            DType::Float16 | DType::Bfloat16 | DType::Int16 | DType::Uint16 => 16,
            DType::Int8 | DType::Uint8 | DType::Bool => 8,
            DType::Int4 => 4,
        }
    }

    /// Bytes that `elements` elements take, one behind the other.
    pub fn bytes(self, elements: u64) -> u64 {
        (elements * self.bits() as u64).div_ceil(8)
    }

    /// Bytes of one element; one that shares its byte with another takes it for itself here.
    pub fn size(self) -> usize {
        self.bits().div_ceil(8)
    }

    /// The name used in contracts, dumps and messages.
    pub fn name(self) -> &'static str {
        match self {
            DType::Float32 => "float32",
            DType::Float16 => "float16",
            DType::Bfloat16 => "bfloat16",
            DType::Int64 => "int64",
            DType::Int32 => "int32",
            DType::Int16 => "int16",
            DType::Uint16 => "uint16",
            DType::Int8 => "int8",
            DType::Uint8 => "uint8",
            DType::Int4 => "int4",
            DType::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One dimension of a shape: a number, or a name that the caller gives a value at run time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    /// Known when the graph is built.
    Fixed(usize),
    /// Known when the graph runs. Equal names mean equal values.
    Symbol(String),
}

impl Dim {
    /// A dimension known at run time only.
    pub fn symbol(name: &str) -> Self {
        Dim::Symbol(name.to_owned())
    }

    /// The number, if it is one.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Dim::Fixed(n) => Some(*n),
            Dim::Symbol(_) => None,
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Dim::Fixed(n)
    }
}

impl From<&str> for Dim {
    fn from(name: &str) -> Self {
        Dim::symbol(name)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Symbol(name) => f.write_str(name),
        }
    }
}

/// The dimensions of a tensor, outermost first.
pub type Shape = Vec<Dim>;
