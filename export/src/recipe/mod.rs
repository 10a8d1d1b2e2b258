//! Recipes: which weight gets which number format, and how the numbers are found.

mod idle;
mod parse;
mod preset;
mod selector;

use std::fmt;

use lfm2_graphs::ir::{Blocks, DType, Format, Role, Weight};

pub use idle::IdleRules;
pub use parse::{RecipeError, RecipeFileError};
pub use preset::{Precision, UnknownPrecision};
pub use selector::Selector;

use crate::quantize::Method;

/// Which number formats the weights and activations of a graph have: the rules of a TOML file, of which each weight follows the
/// first that names it. Weights that no rule names have the type of the activations, and so have norms, biases and the taps of
/// convolutions always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What contracts and file names call it.
    pub name: String,
    /// One sentence for lists.
    pub description: String,
    /// Element type of activations and states.
    pub activations: DType,
    /// The rules in their order.
    pub rules: Vec<Rule>,
    /// The file, for messages.
    pub origin: String,
}

/// One rule of a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Line in the recipe's file, from 1.
    pub line: usize,
    /// The weights that it is for: those that any of these names.
    pub selectors: Vec<Selector>,
    /// What they are stored as.
    pub choice: Choice,
}

/// What a rule makes of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Plain numbers.
    Dense(DType),
    /// Blocks.
    Blocks {
        /// How they are stored.
        blocks: Blocks,
        /// How their numbers are found.
        method: Method,
    },
}

impl Recipe {
    /// The number format of the weight `name`.
    pub fn format(&self, name: &str, role: Role) -> Format {
        match self.rule(name, role).map(|rule| rule.choice) {
            Some(Choice::Dense(dtype)) => Format::Dense(dtype),
            Some(Choice::Blocks { blocks, .. }) => Format::Blocks(blocks),
            None => Format::Dense(self.activations),
        }
    }

    /// How the numbers of a weight are found that is stored in blocks.
    pub fn method(&self, weight: &Weight) -> Method {
        match self.rule(&weight.name, weight.role).map(|rule| rule.choice) {
            Some(Choice::Blocks { method, .. }) => method,
            Some(Choice::Dense(_)) | None => Method::Round,
        }
    }

    /// Whether some weights are stored in blocks, which only dialects with kernels for them can compute with.
    pub fn is_quantized(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.choice, Choice::Blocks { .. }))
    }

    /// Whether some numbers are searched for, which is what a calibration helps with.
    pub fn searches(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.choice, Choice::Blocks { method: Method::Search, .. }))
    }

    /// What the hub layout appends to the graph's file name.
    pub fn suffix(&self) -> String {
        suffix(&self.name)
    }

    /// The first rule that names the weight.
    fn rule(&self, name: &str, role: Role) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.names(name, role))
    }
}

impl Rule {
    fn names(&self, name: &str, role: Role) -> bool {
        has_choice(role) && self.selectors.iter().any(|selector| selector.matches(name, role))
    }
}

impl Choice {
    /// Bits per value in the file, scales and zero points included.
    pub fn bits(self) -> f64 {
        match self {
            Self::Dense(dtype) => 8.0 * dtype.size() as f64,
            Self::Blocks { blocks, .. } => {
                let zero_point = if blocks.zero_points { blocks.bits } else { 0 };
                blocks.bits as f64 + (8 * blocks.scales.size() + zero_point) as f64 / blocks.block_size as f64
            }
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether recipes choose the format of weights with this role. The others are small, and no kernel takes them in blocks.
fn has_choice(role: Role) -> bool {
    match role {
        Role::Table | Role::Head | Role::Matrix => true,
        Role::Kernel | Role::Vector => false,
    }
}

/// What the hub layout appends to the file name of a graph whose recipe has this name; Transformers.js looks for these.
fn suffix(name: &str) -> String {
    match name {
        "fp32" => String::new(),
        "q8" => "_quantized".to_owned(),
        name => format!("_{name}"),
    }
}

/// What graphs for calibration have in the place of [`Recipe::suffix`].
pub const CALIBRATE_SUFFIX: &str = "_calibrate";

#[cfg(test)]
mod tests;
