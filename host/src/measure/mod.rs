//! Benchmarks: what is measured, how, and what is recorded of it.
//!
//! A [`Cell`] is one [`Test`] with one model and one setting. [`measure`] loads the model and runs the test; a [`Row`] says what
//! came out, with everything that the numbers depend on; a [`Format`](format::Format) writes rows, and [`diff`] compares two files of them.
//! Names and meanings are those of llama-bench where it has them. Nothing here prints.

pub mod agreement;
pub mod bandwidth;
mod cell;
pub mod diff;
pub mod format;
pub mod merge;
mod outcome;
pub mod records;
pub mod report;
pub mod roofline;
mod row;
mod run;
pub mod significance;
pub mod statistics;
mod subject;
mod test;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;

pub use cell::{Cell, Measured, Names, Sources, measure};
pub use outcome::{Failure, Status};
pub use row::{Origin, Program, Row, library_sha256};
pub use run::{Procedure, Samples, run};
pub use subject::Subject;
pub use test::Test;

use std::io;
use std::path::PathBuf;

use crate::decoder::{DecoderError, OpenError};
use crate::evaluate::EvaluationError;
use crate::package::PackageError;
use crate::provider::ProviderError;
use crate::runtime::RuntimeError;
use crate::sampler::SamplingError;
use crate::session::SessionError;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The package cannot be opened.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// There is no usable runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The library of the runtime cannot be read for its hash.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The provider cannot be used.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The graph cannot be loaded.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The graphs for the provider cannot be loaded.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A step failed.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    /// The comparison with the reference failed.
    #[error("the comparison with the reference failed: {0}")]
    Evaluation(#[from] EvaluationError),
    /// The texts of the comparison went through other graphs than the test.
    #[error(
        "prompts of the test were computed with {test}, and those that were compared with the reference with {compared}"
    )]
    OtherPrefill {
        /// Number formats of the test.
        test: String,
        /// Those of the comparison.
        compared: String,
    },
    /// Whoever watched has stopped it.
    #[error("stopped on request")]
    Stopped,
    /// No token can be chosen: the logits are no numbers.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}
