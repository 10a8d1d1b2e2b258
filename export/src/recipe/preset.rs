//! The recipes that come with the program.

use std::fmt;
use std::str::FromStr;

use lfm2_graphs::contract::preference;

use super::{Recipe, RecipeError};

/// A recipe that comes with the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Everything float32.
    Fp32,
    /// Weights, activations and states float16; the logits stay float32.
    Fp16,
    /// Matrices and the token table in 8-bit blocks, the rest float32.
    Q8,
    /// 4 bits for most matrices, more where they pay.
    Q4Mixed,
    /// 4 bits for matrices and the token table: the smallest, and the fastest where memory is the limit.
    #[default]
    Q4,
    /// As q4, with float16 scales, activations and states.
    Q4f16,
}

impl Precision {
    /// Every preset.
    pub const ALL: [Self; 6] = [Self::Fp32, Self::Fp16, Self::Q8, Self::Q4Mixed, Self::Q4, Self::Q4f16];

    /// Every preset, the one that hosts run first if a package has several.
    pub fn preferred() -> [Self; 6] {
        let mut presets = Self::ALL;
        presets.sort_by_key(|preset| preference(preset.as_str()));
        presets
    }

    /// The name on the command line and in contracts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Q8 => "q8",
            Self::Q4Mixed => "q4-mixed",
            Self::Q4 => "q4",
            Self::Q4f16 => "q4f16",
        }
    }

    /// What the hub layout appends to the graph's file name.
    pub fn suffix(self) -> String {
        super::suffix(self.as_str())
    }

    /// The recipe as a file that can be copied and changed.
    pub fn toml(self) -> &'static str {
        match self {
            Self::Fp32 => include_str!("presets/fp32.toml"),
            Self::Fp16 => include_str!("presets/fp16.toml"),
            Self::Q8 => include_str!("presets/q8.toml"),
            Self::Q4Mixed => include_str!("presets/q4-mixed.toml"),
            Self::Q4 => include_str!("presets/q4.toml"),
            Self::Q4f16 => include_str!("presets/q4f16.toml"),
        }
    }

    /// The recipe. That the file of a preset can be read is tested.
    pub fn recipe(self) -> Result<Recipe, RecipeError> {
        Recipe::parse(self.toml(), &format!("preset {self}"))
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

/// No preset has this name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "there is no precision `{name}`; known ones are {list}, and --recipe takes others from a file",
    list = Precision::ALL.map(Precision::as_str).join(", ")
)]
pub struct UnknownPrecision {
    name: String,
}
