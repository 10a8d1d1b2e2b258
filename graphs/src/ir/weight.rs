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
    /// Blocks along the rows: unsigned numbers with one scale, and perhaps one zero point, per block.
    Blocks(Blocks),
    /// Symmetric 8-bit numbers with one float32 scale for each row `[outputs]`, stored as `[columns, rows]`. A value is
    /// `(q - 128) * scale`, with `q` unsigned from 1 to 255.
    Channels,
    /// Symmetric signed numbers of so many bits, 8 or 4, with one float32 scale for each row `[outputs]`, in the checkpoint's order. A value
    /// is `q * scale`, with `q` from `-(2^(bits-1) - 1)` to `2^(bits-1) - 1`.
    Rows {
        /// 8 or 4.
        bits: usize,
    },
}

/// Block quantization of a matrix `[rows, columns]`, blocks lying along the columns.
///
/// A value is `(q - zero_point) * scale`, with `q` unsigned. This is the layout of `MatMulNBits` and
/// `GatherBlockQuantized` in ONNX Runtime's contrib operators: row after row, block after block, two 4-bit numbers to a
/// byte with the first in the low half. Zero points are packed in the same way, each row beginning with a byte of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// 4 or 8.
    pub bits: usize,
    /// Values sharing a scale; a power of two from 16 to 256 that divides the columns.
    pub block_size: usize,
    /// Whether every block has a zero point of its own. Without, `2^(bits-1)` stands for zero in all of them.
    pub zero_points: bool,
    /// Element type of the scales.
    pub scales: DType,
}

impl Blocks {
    /// Bytes of packed numbers in one block.
    pub fn bytes_per_block(self) -> usize {
        self.block_size * self.bits / 8
    }

    /// Bytes of the zero points of a row of `columns` values; 0 if there are none.
    pub fn zero_point_bytes(self, columns: usize) -> usize {
        if self.zero_points { (columns / self.block_size * self.bits).div_ceil(8) } else { 0 }
    }

    /// The number that stands for zero in blocks without a zero point of their own.
    pub fn zero_point(self) -> u8 {
        1 << (self.bits - 1)
    }
}

/// The number that stands for zero in [`Format::Channels`], and in activations quantized by row.
pub const CHANNEL_ZERO_POINT: u8 = 128;

/// Largest magnitude of a number around [`CHANNEL_ZERO_POINT`], the same on both sides.
pub const CHANNEL_LARGEST: u8 = 127;
