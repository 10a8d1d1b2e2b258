//! What to export, checked before anything is read.

use lfm2_graphs::contract::Padding;
use lfm2_graphs::dialect::{Contrib, Dialect, Portable};
use lfm2_graphs::lfm2::Config;

use crate::recipe::Precision;

/// The choices of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number formats of weights and activations.
    pub precision: Precision,
    /// How the operations that runtimes disagree about are written.
    pub dialect: DialectName,
    /// Which padded batches must be exact.
    pub padding: Padding,
    /// Positions of the rotary tables, which bound the number of tokens; `None` takes the model's own limit.
    pub max_context: Option<usize>,
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
        "--precision {precision} needs ONNX Runtime's own operators, which the portable dialect excludes; use --dialect contrib, or --precision fp32 or fp16"
    )]
    QuantizedPortable {
        /// The precision that was asked for.
        precision: Precision,
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
        match self.dialect {
            DialectName::Portable if self.precision.is_quantized() => {
                Err(OptionsError::QuantizedPortable { precision: self.precision })
            }
            // Portable graphs compute left-padded batches exactly whether or not that is asked for.
            DialectName::Portable => Ok(Box::new(Portable)),
            DialectName::Contrib => Ok(Box::new(Contrib { padding: self.padding })),
        }
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
