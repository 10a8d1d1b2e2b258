//! The graphs for Qualcomm's NPUs whose activations are integers: which numbers, and over which ranges.

use std::collections::BTreeMap;
use std::fmt;

use lfm2_graphs::ir::{DType, Format, Graph, Range, Role};
use lfm2_graphs::lfm2::EMBEDDINGS;
use lfm2_graphs::lower::attention::hidden;

use super::calibration::Calibrated;
use super::{ExportError, OptionsError};
use crate::checkpoint::{Checkpoint, CheckpointError};

/// The numbers that graphs for Qualcomm's NPUs compute with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QnnPrecision {
    /// Activations in float16, weights as the general graph has them.
    #[default]
    Fp16,
    /// Activations in 16-bit integers, weights in 8-bit ones with a scale for each output.
    W8a16,
    /// The same with projections of 4 bits; the head stays at 8.
    W4a16,
}

impl QnnPrecision {
    /// Every precision.
    pub const ALL: [Self; 3] = [Self::Fp16, Self::W8a16, Self::W4a16];

    /// The name on command lines and in contracts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fp16 => "fp16",
            Self::W8a16 => "w8a16",
            Self::W4a16 => "w4a16",
        }
    }

    /// Bits of projections, if activations are integers.
    pub(super) fn bits(self) -> Option<usize> {
        match self {
            Self::Fp16 => None,
            Self::W8a16 => Some(8),
            Self::W4a16 => Some(4),
        }
    }
}

impl fmt::Display for QnnPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much further than in the calibration text a value may go before it is cut off. At other positions rotary embedding turns pairs
/// of numbers, of which one may then be larger by the square root of 2; and of 16 bits half a bit is cheap.
pub(super) const HEAD_ROOM: f32 = 1.5;

/// What is known about the values of graphs of integers.
pub(super) struct Integers {
    pub(super) precision: QnnPrecision,
    bits: usize,
    ranges: BTreeMap<String, Range>,
}

impl Integers {
    /// What `precision` needs, if its activations are integers: the ranges of a calibration, and that of `table`, all of whose rows may
    /// be asked for.
    pub(super) fn new(
        precision: QnnPrecision,
        calibration: Option<&Calibrated>,
        checkpoint: &Checkpoint,
        table: &str,
    ) -> Result<Option<Self>, ExportError> {
        let Some(bits) = precision.bits() else { return Ok(None) };
        let calibration = calibration.ok_or(OptionsError::UncalibratedIntegers { precision })?;
        let mut ranges = calibration.ranges()?.clone();
        ranges.insert(EMBEDDINGS.to_owned(), range_of(checkpoint, table)?);
        for range in ranges.values_mut() {
            *range = range.map(|bound| bound * HEAD_ROOM);
        }
        Ok(Some(Self { precision, bits, ranges }))
    }

    /// An empty graph of integers.
    pub(super) fn graph(&self) -> Graph<'_> {
        let bits = self.bits;
        let formats = move |_: &str, role, _: &[usize]| match role {
            Role::Matrix => Format::Rows { bits },
            Role::Table | Role::Head => Format::Rows { bits: 8 },
            Role::Kernel | Role::Vector => Format::Dense(DType::Float32),
        };
        Graph::new(DType::Float32, formats).with_ranges(|name| self.ranges.get(name).copied())
    }

    /// What hides a position from attention.
    pub(super) fn hidden(&self) -> f64 {
        hidden(self.ranges.iter().map(|(name, range)| (name.as_str(), *range)))
    }
}

/// An empty graph that tells the ranges of its values.
pub(super) fn observed<'f>() -> Graph<'f> {
    Graph::new(DType::Float32, |_, _, _| Format::Dense(DType::Float32)).observing()
}

/// The least and the largest number of a tensor.
fn range_of(checkpoint: &Checkpoint, name: &str) -> Result<Range, CheckpointError> {
    const ROWS: usize = 512;
    let rows = checkpoint.get(name).map_or(0, |info| info.rows());
    let (mut values, mut range) = (Vec::new(), [0.0_f32; 2]);
    for start in (0..rows).step_by(ROWS) {
        checkpoint.read_rows(name, start, ROWS.min(rows - start), &mut values)?;
        range = values.iter().fold(range, |[least, largest], value| [least.min(*value), largest.max(*value)]);
    }
    Ok(range)
}
