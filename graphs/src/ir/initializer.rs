//! Initializers: constants of the graph, described by where their bytes come from.

use super::types::DType;
use super::weight::Weight;

/// A constant of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Initializer {
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
    /// Where the bytes come from.
    pub source: Source,
}

impl Initializer {
    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.dtype.bytes(self.shape.iter().map(|&n| n as u64).product())
    }
}

/// Where the bytes of an initializer come from. Two initializers with equal sources and types share their bytes,
/// whatever their shapes: that is how a quantized table serves embedding and head at once.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The numbers of a weight in the checkpoint's order.
    Dense {
        /// The weight.
        weight: Weight,
    },
    /// The numbers of a matrix `[rows, columns]`, stored as `[columns, rows]`.
    Transposed {
        /// The weight.
        weight: Weight,
    },
    /// One column of a matrix `[rows, columns]`: `[rows]`.
    Column {
        /// The weight.
        weight: Weight,
        /// Which column.
        column: usize,
    },
    /// The packed numbers of a weight quantized in blocks.
    Packed {
        /// The weight.
        weight: Weight,
    },
    /// The scales of a weight quantized in blocks, `[rows, blocks]`.
    Scales {
        /// The weight.
        weight: Weight,
    },
    /// The packed zero points of a weight quantized in blocks, `[rows, bytes]`.
    ZeroPoints {
        /// The weight.
        weight: Weight,
    },
    /// The numbers of a weight `[rows, columns]` quantized by row, stored as `[columns, rows]`.
    Channels {
        /// The weight.
        weight: Weight,
    },
    /// The scales of a weight quantized by row, `[rows]`.
    ChannelScales {
        /// The weight.
        weight: Weight,
    },
    /// The numbers of a weight `[rows, columns]` of [`Format::Rows`](super::Format::Rows), in this order.
    Rows {
        /// The weight.
        weight: Weight,
    },
    /// The scales of a weight of [`Format::Rows`](super::Format::Rows), `[rows]`.
    RowScales {
        /// The weight.
        weight: Weight,
    },
    /// Numbers as multiples of one scale: symmetric int16, whose largest magnitude is [`ENCODED_LARGEST`].
    Encoded(Box<Source>),
    /// The scale of [`Source::Encoded`], one number.
    EncodedScale(Box<Source>),
    /// Cosines or sines of rotary position embedding, `[positions, head_dim / 2]`.
    Rope {
        /// Which of the two.
        part: RopePart,
        /// Base of the frequencies.
        theta: f64,
        /// Elements of one head.
        head_dim: usize,
    },
    /// Integers.
    Ints(Vec<i64>),
    /// One number.
    Float(f64),
    /// Numbers.
    Floats(Vec<f32>),
}

impl Source {
    /// The weight that the bytes are made from, if any.
    pub fn weight(&self) -> Option<&Weight> {
        match self {
            Source::Dense { weight }
            | Source::Transposed { weight }
            | Source::Column { weight, .. }
            | Source::Packed { weight }
            | Source::Scales { weight }
            | Source::ZeroPoints { weight }
            | Source::Channels { weight }
            | Source::ChannelScales { weight }
            | Source::Rows { weight }
            | Source::RowScales { weight } => Some(weight),
            Source::Encoded(numbers) | Source::EncodedScale(numbers) => numbers.weight(),
            Source::Rope { .. } | Source::Ints(_) | Source::Float(_) | Source::Floats(_) => None,
        }
    }
}

/// The number that the largest magnitude of symmetric int16 becomes.
pub const ENCODED_LARGEST: i16 = i16::MAX;

/// Half of a rotary table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopePart {
    /// Cosines.
    Cos,
    /// Sines.
    Sin,
}
