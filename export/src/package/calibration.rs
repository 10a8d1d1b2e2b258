//! What a calibration says about the weights and the caches of a checkpoint.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Calibration, Contract, ContractError};
use lfm2_graphs::ir::{CHANNEL_LARGEST, Format, Range, Role, Weight};

use super::QnnPrecision;
use super::integers::HEAD_ROOM as RANGE_ROOM;
use crate::input::read_file;
use crate::problems::{Problems, lines};
use crate::quantize::Method;
use crate::recipe::Recipe;

/// Most bytes of a calibration: those of the largest models have some tens of megabytes.
const LARGEST: u64 = 1 << 30;

/// Columns are taken to matter at least this part, and at most the inverse of it, of the mean of their weight. It keeps sums of
/// products within what float32 can hold, and every column from being given up.
const LEAST: f64 = 1e-5;

/// How much larger than anything in the calibration text a value may become before it is cut off. Each tenth costs a tenth of
/// the resolution of all others.
const HEAD_ROOM: f32 = 1.1;

/// The scale of a channel that was always zero.
const SMALLEST_SCALE: f32 = 1e-8;

/// A calibration of the checkpoint that is exported.
pub(super) struct Calibrated {
    path: PathBuf,
    calibration: Calibration,
}

impl Calibrated {
    /// Reads the calibration in `path`, which must be of the checkpoint `model`.
    pub(super) fn load(path: &Path, model: &str) -> Result<Self, CalibrationError> {
        let path = path.to_owned();
        let bytes = match read_file(&path, LARGEST) {
            Ok(bytes) => bytes,
            Err(source) => return Err(CalibrationError::Io { path, source }),
        };
        // What is not UTF-8 is no JSON either, and its reader says so.
        match Calibration::from_json(&String::from_utf8_lossy(&bytes)) {
            Err(ContractError::Version { found, expected }) => Err(CalibrationError::Version { path, found, expected }),
            Err(source) => Err(CalibrationError::Json { path, source }),
            Ok(calibration) if calibration.model != model => Err(CalibrationError::OtherModel { path }),
            Ok(calibration) => Ok(Self { path, calibration }),
        }
    }

    /// How much errors in each column matter, for every weight that the recipe or the graphs for NPUs search numbers for: the mean squares of what
    /// the columns are multiplied with, relative to the mean of the weight.
    pub(super) fn importance<'w>(
        &self,
        recipe: &Recipe,
        qnn: QnnPrecision,
        weights: impl Iterator<Item = &'w Weight>,
    ) -> Result<BTreeMap<String, Vec<f32>>, CalibrationError> {
        let mut problems = Problems::default();
        let mut all = BTreeMap::new();
        let is_searched = |weight: &&Weight| {
            (matches!(weight.format, Format::Blocks(_)) && recipe.method(weight) == Method::Search)
                || (qnn == QnnPrecision::W4a16 && weight.role == Role::Matrix)
        };
        for weight in weights.filter(is_searched) {
            let name = &weight.name;
            let columns = weight.columns();
            match self.calibration.weights.get(name) {
                None => problems.add(format!("it has nothing about `{name}`")),
                Some(squares) if squares.len() != columns => {
                    problems.add(format!("it has {} numbers for `{name}`, which has {columns} columns", squares.len()));
                }
                Some(squares) if !squares.iter().all(|square| square.is_finite() && *square >= 0.0) => {
                    problems.add(format!("its numbers for `{name}` are not all finite and positive or zero"));
                }
                Some(squares) => {
                    all.insert(name.clone(), relative(squares));
                }
            }
        }
        self.unless(problems, all)
    }

    /// The scales of every cache of the graph that `contract` describes, by the name of the output that returns it: the largest
    /// magnitude with some head room becomes the largest number.
    ///
    /// Keys could also be bounded by the weights of their norm, but by far more than they ever reach.
    pub(super) fn cache_scales(&self, contract: &Contract) -> Result<BTreeMap<String, Vec<f32>>, CalibrationError> {
        let mut problems = Problems::default();
        let mut scales = BTreeMap::new();
        for state in contract.states.iter().filter(|state| state.kind.grows()) {
            let name = &state.present.name;
            let channels: usize = state.present.shape.iter().filter_map(|dim| dim.fixed()).product();
            match self.calibration.states.get(name) {
                None => problems.add(format!("it has nothing about `{name}`")),
                Some(largest) if largest.len() != channels => {
                    problems.add(format!("it has {} channels for `{name}`, and the model {channels}", largest.len()));
                }
                Some(largest) if largest.iter().any(|value| !(value.is_finite() && *value >= 0.0)) => {
                    problems.add(format!("its magnitudes for `{name}` are not all finite and positive or zero"));
                }
                Some(largest) => {
                    let scale = |value: &f32| (value * HEAD_ROOM / f32::from(CHANNEL_LARGEST)).max(SMALLEST_SCALE);
                    scales.insert(name.clone(), largest.iter().map(scale).collect());
                }
            }
        }
        self.unless(problems, scales)
    }

    /// The range of every value of the graphs of integers.
    pub(super) fn ranges(&self) -> Result<&BTreeMap<String, Range>, CalibrationError> {
        let mut problems = Problems::default();
        let ranges = &self.calibration.ranges;
        if ranges.is_empty() {
            problems.add(
                "it has no ranges of activations, which a graph for calibration with one for NPUs beside it tells"
                    .to_owned(),
            );
        }
        for (name, [least, largest]) in ranges {
            // Head room is added to them, and how far they are apart has to be a number then too.
            let is_small = ((largest - least) * RANGE_ROOM).is_finite();
            if !(least.is_finite() && largest.is_finite() && least <= largest && is_small) {
                problems.add(format!("its range of `{name}` is none, from {least} to {largest}"));
            }
        }
        self.unless(problems, ranges)
    }

    fn unless<T>(&self, problems: Problems, found: T) -> Result<T, CalibrationError> {
        if problems.is_empty() {
            return Ok(found);
        }
        Err(CalibrationError::Unfit { path: self.path.clone(), problems: problems.into_list() })
    }
}

/// Why a calibration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// The file system refused.
    #[error("the calibration {path} cannot be read: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not what `lfm2-host calibrate` writes.
    #[error("{path} is no calibration that this version reads ({source}); make it again with `lfm2-host calibrate`", path = .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ContractError,
    },
    /// Written by an older or newer host.
    #[error(
        "{path} is a calibration of version {found}, and this program reads version {expected}; make it again with `lfm2-export MODEL --for calibrate` and `lfm2-host calibrate`",
        path = .path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version of this program.
        expected: u32,
    },
    /// Made with another checkpoint or tokenizer.
    #[error("{path} is the calibration of another checkpoint; make one of this checkpoint with `lfm2-host calibrate`", path = .path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
    },
    /// Everything in which it does not fit the checkpoint.
    #[error(
        "the calibration {path} does not fit what is asked for; make it again with `lfm2-export MODEL --for calibrate` and `lfm2-host calibrate`:{list}",
        path = .path.display(),
        list = lines(problems)
    )]
    Unfit {
        /// The file.
        path: PathBuf,
        /// One sentence for each.
        problems: Vec<String>,
    },
}

/// The numbers over their mean, in bounds. Where all are 0, nothing is known and every column matters as much.
fn relative(squares: &[f32]) -> Vec<f32> {
    let mean = squares.iter().map(|&square| f64::from(square)).sum::<f64>() / squares.len().max(1) as f64;
    let relative = |square: f64| if mean > 0.0 { (square / mean).clamp(LEAST, 1.0 / LEAST) } else { 1.0 };
    squares.iter().map(|&square| relative(f64::from(square)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn importance_is_relative_and_bounded() {
        assert_eq!(relative(&[0.0, 4.0, 2.0]), [1e-5, 2.0, 1.0]);
        assert_eq!(relative(&[0.0, 0.0]), [1.0, 1.0]);
        assert_eq!(relative(&[f32::MAX, f32::MAX]), [1.0, 1.0]);
    }
}
