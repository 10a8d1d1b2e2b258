//! Recipes: which weight gets which number format.

use std::fmt;
use std::str::FromStr;

use lfm2_graphs::ir::{Blocks, DType, Format, Role};

/// Values that share a scale in the quantized precisions.
const BLOCK_SIZE: usize = 32;

/// A named recipe for all weights and activations of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Everything float32.
    #[default]
    Fp32,
    /// Weights, activations and states float16; the logits stay float32.
    Fp16,
    /// Matrices and the token table in 8-bit blocks with float32 scales, the rest float32.
    Q8,
    /// Matrices and the token table in 4-bit blocks with float32 scales, the rest float32.
    Q4,
    /// Matrices and the token table in 4-bit blocks with float16 scales, the rest as in fp16.
    Q4f16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 5] = [Self::Fp32, Self::Fp16, Self::Q8, Self::Q4, Self::Q4f16];

    /// Every precision, the one that is to be run first if a package has several.
    pub const PREFERRED: [Self; 5] = [Self::Q4, Self::Q4f16, Self::Q8, Self::Fp16, Self::Fp32];

    /// The name on the command line and in contracts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
            Self::Q4f16 => "q4f16",
        }
    }

    /// What the hub layout appends to the graph's file name; transformers.js looks for these.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Fp32 => "",
            Self::Fp16 => "_fp16",
            Self::Q8 => "_quantized",
            Self::Q4 => "_q4",
            Self::Q4f16 => "_q4f16",
        }
    }

    /// Element type of activations and states.
    pub fn activations(self) -> DType {
        match self {
            Self::Fp32 | Self::Q8 | Self::Q4 => DType::Float32,
            Self::Fp16 | Self::Q4f16 => DType::Float16,
        }
    }

    /// Whether some weights are stored in blocks, which only dialects with kernels for them can compute with.
    pub fn is_quantized(self) -> bool {
        self.bits().is_some()
    }

    /// The number format of weights with the given role.
    pub fn format(self, role: Role) -> Format {
        match (role, self.bits()) {
            (Role::Table | Role::Head | Role::Matrix, Some(bits)) => {
                Format::Blocks(Blocks { bits, block_size: BLOCK_SIZE, scales: self.activations() })
            }
            _ => Format::Dense(self.activations()),
        }
    }

    fn bits(self) -> Option<usize> {
        match self {
            Self::Fp32 | Self::Fp16 => None,
            Self::Q8 => Some(8),
            Self::Q4 | Self::Q4f16 => Some(4),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        let found = Self::ALL.into_iter().find(|precision| precision.as_str() == name);
        found.ok_or_else(|| UnknownPrecision { name: name.to_owned() })
    }
}

/// No recipe has this name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no precision `{name}`; known ones are {list}", list = Precision::ALL.map(Precision::as_str).join(", "))]
pub struct UnknownPrecision {
    name: String,
}
