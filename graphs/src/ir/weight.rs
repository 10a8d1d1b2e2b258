//! Weights as declarations: name, shape and number format, never bytes.

use super::types::DType;

/// A weight that the graph needs from the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Weight {
    /// Name in the checkpoint, made from the scope path: `model.layers.0.conv.in_proj.weight`.
    pub name: String,
    /// Shape in the checkpoint.
    pub shape: Vec<usize>,
    /// What the weight is used for.
    pub role: Role,
    /// How its numbers are stored in the package.
    pub format: Format,
}

impl Weight {
    /// Number of rows, when seen as a matrix: the first dimension.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Values per row, when seen as a matrix: the product of all dimensions but the first.
    pub fn columns(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a weight is used for; recipes choose formats by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Rows looked up by token id, `[vocabulary, hidden]`; also the head of a model that ties them.
    Table,
    /// The head of a model that does not tie it to the table, `[vocabulary, hidden]`.
    Head,
    /// A projection, `[outputs, inputs]`.
    Matrix,
    /// The taps of a depthwise convolution, `[channels, 1, taps]`.
    Kernel,
    /// Scales of a norm, or a bias.
    Vector,
}

/// How the numbers of a weight are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Plain numbers.
    Dense(DType),
    /// Symmetric blocks along the rows: unsigned numbers with an implicit zero point and one scale per block.
    Blocks(Blocks),
}

/// Block quantization of a matrix `[rows, columns]`, blocks lying along the columns.
///
/// A value is `(q - 2^(bits-1)) * scale`, with `q` unsigned. This is the layout of `MatMulNBits` and
/// `GatherBlockQuantized` in ONNX Runtime's contrib operators: row after row, block after block, two 4-bit numbers to a
/// byte with the first in the low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// 4 or 8.
    pub bits: usize,
    /// Values sharing a scale; a power of two from 16 to 256 that divides the columns.
    pub block_size: usize,
    /// Element type of the scales.
    pub scales: DType,
}

impl Blocks {
    /// Bytes of packed numbers in one block.
    pub fn bytes_per_block(self) -> usize {
        self.block_size * self.bits / 8
    }

    /// The number that stands for zero.
    pub fn zero_point(self) -> u8 {
        1 << (self.bits - 1)
    }
}
