//! What to export, checked before anything is read.

use std::num::NonZero;
use std::path::PathBuf;

use lfm2_graphs::contract::{Padding, Purpose, Target};
use lfm2_graphs::dialect::{Contrib, Dialect, Portable};
use lfm2_graphs::ir::DType;
use lfm2_graphs::lfm2::{Config, Extras};

use super::{QnnPrecision, Targets};
use crate::recipe::Recipe;

/// The choices of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number formats of weights and activations.
    pub recipe: Recipe,
    /// What a calibration run found out about the activations, for recipes that search.
    pub calibration: Option<PathBuf>,
    /// How the operations that runtimes disagree about are written.
    pub dialect: DialectName,
    /// Which padded batches must be exact.
    pub padding: Padding,
    /// Positions of the rotary tables, which bound the number of tokens; `None` takes the model's own limit.
    pub max_context: Option<usize>,
    /// Whether the state can be cut after any token of a run, which costs outputs.
    pub rollback: bool,
    /// What the graph is for: to be run as a model, or [`Purpose::Calibrate`].
    pub purpose: Purpose,
    /// The graph for prompts beside the general one.
    pub prefill: Prefill,
    /// How keys and values are kept.
    pub caches: Caches,
    /// The providers that the package gets graphs for.
    pub targets: Targets,
    /// Threads that make weights; `None` takes as many as there are processors. The bytes are the same.
    pub threads: Option<NonZero<usize>>,
}

/// What runs prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefill {
    /// The general graph.
    #[default]
    Same,
    /// A companion that multiplies bytes: matrices with a scale for each output, activations with one for each token.
    Int8,
}

/// How the keys and values of earlier tokens are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caches {
    /// In the type of the activations.
    #[default]
    Activations,
    /// As int8 with a scale for each channel, from a calibration.
    Int8,
}

/// The dialects by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DialectName {
    /// ONNX Runtime's own kernels.
    #[default]
    Contrib,
    /// Standard operators only.
    Portable,
}

/// Options that exclude each other or the model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionsError {
    /// No standard operator multiplies with packed weights.
    #[error(
        "the recipe {recipe} stores weights in blocks, which need ONNX Runtime's own operators, and the portable dialect excludes them; use --dialect contrib, or --precision fp32 or fp16"
    )]
    QuantizedPortable {
        /// Name of the recipe that was asked for.
        recipe: String,
    },
    /// Nothing in the recipe depends on it.
    #[error(
        "the recipe {recipe} searches for no numbers, so that --calibration changes nothing; leave it out, or use a recipe whose method is \"search\""
    )]
    UselessCalibration {
        /// Name of the recipe that was asked for.
        recipe: String,
    },
    /// Statistics are taken from the numbers of the checkpoint.
    #[error(
        "a graph for calibration computes with the numbers of the checkpoint, so that it comes in fp32 only and not as {recipe}; leave --precision and --recipe out"
    )]
    CalibrationRecipe {
        /// Name of the recipe that was asked for.
        recipe: String,
    },
    /// Statistics are taken from exact states and products.
    #[error("a graph for calibration computes as the checkpoint does; leave --prefill and --kv out")]
    CalibrationInt8,
    /// Companions are written together with the graph that they belong to.
    #[error("a graph for prompts alone is no export of its own")]
    PrefillAlone,
    /// There are no kernels for bytes and float16.
    #[error(
        "--prefill int8 needs float32 activations, and the recipe {recipe} has float16; use --precision q4, q8 or fp32, or leave --prefill out"
    )]
    PrefillActivations {
        /// Name of the recipe that was asked for.
        recipe: String,
    },
    /// Products of bytes in a form that is fast exist only as ONNX Runtime's own operators.
    #[error(
        "--{flag} int8 needs ONNX Runtime's own operators, which the portable dialect excludes; use --dialect contrib, or leave --{flag} out"
    )]
    Int8Portable {
        /// The flag, without dashes.
        flag: &'static str,
    },
    /// The range of keys and values is not known.
    #[error(
        "--kv int8 needs --calibration FILE: how large values become shows only in a run; `lfm2-export MODEL --for calibrate` and `lfm2-host calibrate` make the file"
    )]
    Uncalibrated,
    /// The ranges of activations are not known.
    #[error(
        "--qnn-precision {precision} needs --calibration FILE: between which bounds activations lie shows only in a run; `lfm2-export MODEL --for calibrate` and `lfm2-host calibrate` make the file"
    )]
    UncalibratedIntegers {
        /// The numbers that were asked for.
        precision: QnnPrecision,
    },
    /// Numbers of graphs that are not asked for.
    #[error(
        "--qnn-precision {precision} is for graphs for Qualcomm's NPUs, and none are asked for; leave it out, or use --for qnn"
    )]
    IdleQnnPrecision {
        /// The numbers that were asked for.
        precision: QnnPrecision,
    },
    /// A graph that was asked for cannot be written.
    #[error("there are no graphs for {target} in this package: {reason}; leave one of the two out")]
    Target {
        /// The provider.
        target: Target,
        /// Why.
        reason: &'static str,
    },
    /// A size of static graphs where there are none.
    #[error("--{flag} is the size of graphs for NPUs, and none are asked for; leave it out, or use --for qnn")]
    IdleSize {
        /// The flag, without dashes.
        flag: &'static str,
    },
    /// Leave to break rules that are those of other graphs.
    #[error(
        "--force is for graphs for NPUs that the provider would not take as a whole, and none are asked for; leave it out, or use --for qnn"
    )]
    IdleForce,
    /// A type of activations for a graph that is not asked for.
    #[error(
        "--cuda-activations is for the graph for NVIDIA's GPUs, and none is asked for; leave it out, or use --for cpu,cuda"
    )]
    IdleActivations,
    /// A size of static graphs that is none.
    #[error("--{flag} is 0: at least 1 token is needed")]
    NoSize {
        /// The flag, without dashes.
        flag: &'static str,
    },
    /// The tokens of a chunk would not all be kept.
    #[error(
        "--chunk {chunk} is more than the {context} tokens that static graphs keep; ask for less, or for more with --static-context"
    )]
    Chunk {
        /// Tokens of a run.
        chunk: usize,
        /// Rows of keys and values.
        context: usize,
    },
    /// More rows than the model has positions.
    #[error("--static-context {asked} is out of range: this model takes 1 to {limit} tokens")]
    StaticContext {
        /// What was asked for.
        asked: usize,
        /// The model's own limit.
        limit: usize,
    },
    /// More positions than the model has, or none.
    #[error("--max-context {asked} is out of range: this model takes 1 to {limit} tokens")]
    MaxContext {
        /// What was asked for.
        asked: usize,
        /// The model's own limit.
        limit: usize,
    },
}

impl Options {
    /// The dialect to lower with.
    pub fn dialect(&self) -> Result<Box<dyn Dialect>, OptionsError> {
        let (recipe, exact) = (&self.recipe, !self.recipe.is_quantized());
        match self.purpose {
            Purpose::Calibrate if !exact || recipe.activations != DType::Float32 => {
                return Err(OptionsError::CalibrationRecipe { recipe: recipe.name.clone() });
            }
            Purpose::Calibrate if self.prefill == Prefill::Int8 || self.caches == Caches::Int8 => {
                return Err(OptionsError::CalibrationInt8);
            }
            Purpose::Prefill | Purpose::Chunk | Purpose::Token => return Err(OptionsError::PrefillAlone),
            Purpose::Calibrate | Purpose::General => {}
        }
        let portable = self.dialect == DialectName::Portable;
        for (flag, asked) in [("prefill", self.prefill == Prefill::Int8), ("kv", self.caches == Caches::Int8)] {
            if asked && portable && exact {
                return Err(OptionsError::Int8Portable { flag });
            }
        }
        if self.prefill == Prefill::Int8 && recipe.activations != DType::Float32 {
            return Err(OptionsError::PrefillActivations { recipe: recipe.name.clone() });
        }
        if self.caches == Caches::Int8 && self.calibration.is_none() {
            return Err(OptionsError::Uncalibrated);
        }
        let qnn = self.targets.qnn;
        if qnn != QnnPrecision::Fp16 && self.calibration.is_none() {
            return Err(OptionsError::UncalibratedIntegers { precision: qnn });
        }
        let is_used = recipe.searches() || self.caches == Caches::Int8 || qnn != QnnPrecision::Fp16;
        if self.calibration.is_some() && !is_used {
            return Err(OptionsError::UselessCalibration { recipe: recipe.name.clone() });
        }
        self.targets.check()?;
        if self.purpose == Purpose::Calibrate && self.targets.force {
            // The graph that tells ranges is the processor's.
            return Err(OptionsError::IdleForce);
        }
        let wanted = self.targets.others().find(|target| self.targets.is_asked(*target));
        if let (Some(target), Some(reason)) = (wanted, self.refusal()) {
            return Err(OptionsError::Target { target, reason });
        }
        match self.dialect {
            DialectName::Portable if self.recipe.is_quantized() => {
                Err(OptionsError::QuantizedPortable { recipe: self.recipe.name.clone() })
            }
            // Portable graphs compute left-padded batches exactly whether or not that is asked for.
            DialectName::Portable => Ok(Box::new(Portable)),
            DialectName::Contrib => Ok(Box::new(Contrib { padding: self.padding })),
        }
    }

    /// What the graph returns beside logits and states.
    pub(super) fn extras(&self) -> Extras {
        Extras { rollback: self.rollback }
    }

    /// The model with the context length that was asked for.
    pub fn limit(&self, config: &Config) -> Result<Config, OptionsError> {
        let limit = config.context_length;
        match self.max_context {
            None => Ok(config.clone()),
            Some(asked) if (1..=limit).contains(&asked) => Ok(Config { context_length: asked, ..config.clone() }),
            Some(asked) => Err(OptionsError::MaxContext { asked, limit }),
        }
    }
}
