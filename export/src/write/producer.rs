//! Weights on their way from the checkpoint to the package, in parts of bounded size that can be made in any order.

use std::collections::BTreeMap;

use lfm2_graphs::format::rope_rows;
use lfm2_graphs::ir::{Blocks, DType, Format, Initializer, Source, Weight};

use super::WriteError;
use super::bytes::{append_floats, append_integers};
use crate::checkpoint::Checkpoint;
use crate::quantize::{Quantized, encode, quantize, quantize_rows, round_by_channel};
use crate::recipe::Recipe;

/// Numbers that are converted at a time: 1 MiB of float32, which caches hold.
const PART_VALUES: usize = 1 << 18;

/// Numbers of columns that are turned into rows at a time: 16 MiB of float32. Fewer would make many small reads.
const STRIPE_VALUES: usize = 1 << 22;

/// Makes the bytes of initializers. It changes nothing, so that several threads can share it.
#[derive(Clone, Copy, Debug)]
pub struct Producer<'c> {
    checkpoint: &'c Checkpoint,
    recipe: &'c Recipe,
    importance: &'c BTreeMap<String, Vec<f32>>,
}

/// A part of an initializer: rows `start..start + count` of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    start: usize,
    count: usize,
}

/// The bytes of a part.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Little-endian, row after row.
    pub(super) bytes: Vec<u8>,
    /// What packing the part has found besides its numbers.
    pub(super) rest: Option<Rest>,
}

/// Scales and zero points of rows that have been packed.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) scales: Vec<f32>,
    pub(super) zero_points: Vec<u8>,
}

impl<'c> Producer<'c> {
    /// Reads from `checkpoint`, and quantizes as `recipe` says. `importance` has, by the names of weights, one number for each
    /// column: how much errors there matter.
    pub fn new(checkpoint: &'c Checkpoint, recipe: &'c Recipe, importance: &'c BTreeMap<String, Vec<f32>>) -> Self {
        Self { checkpoint, recipe, importance }
    }

    /// All bytes of a small initializer.
    pub fn whole(&self, initializer: &Initializer) -> Result<Vec<u8>, WriteError> {
        let mut bytes = Vec::new();
        for part in parts(initializer) {
            bytes.extend(self.make(initializer, part)?.bytes);
        }
        Ok(bytes)
    }

    /// The bytes of one of the [`parts`] of an initializer.
    pub(super) fn make(&self, initializer: &Initializer, part: Part) -> Result<Made, WriteError> {
        let dtype = initializer.dtype;
        let mut bytes = Vec::new();
        let mut rest = None;
        match &initializer.source {
            Source::Dense { weight } => append_floats(&self.rows(weight, part, dtype)?, dtype, &mut bytes),
            Source::Transposed { weight } => append_floats(&self.columns(weight, part, dtype)?, dtype, &mut bytes),
            Source::Column { weight, column } => {
                let column = Part { start: *column, count: 1 };
                append_floats(&self.columns(weight, column, dtype)?, dtype, &mut bytes);
            }
            Source::Packed { weight } => {
                let Quantized { packed, scales, zero_points } = self.quantized(weight, part)?;
                bytes = packed;
                rest = Some(Rest { scales, zero_points });
            }
            Source::Scales { weight } => append_floats(&self.quantized(weight, part)?.scales, dtype, &mut bytes),
            Source::ZeroPoints { weight } => bytes = self.quantized(weight, part)?.zero_points,
            Source::Channels { weight } => bytes = transposed(&self.channels(weight)?.0, weight.columns()),
            Source::ChannelScales { weight } => append_floats(&self.channels(weight)?.1, dtype, &mut bytes),
            Source::Rows { weight } => {
                let scales;
                (bytes, scales) = self.by_rows(weight, part)?;
                rest = Some(Rest { scales, zero_points: Vec::new() });
            }
            Source::RowScales { weight } => append_floats(&self.by_rows(weight, part)?.1, dtype, &mut bytes),
            Source::Encoded(numbers) => {
                let (integers, _) = encode(&self.numbers(numbers, initializer)?);
                bytes.extend(integers.iter().flat_map(|integer| integer.to_le_bytes()));
            }
            Source::EncodedScale(numbers) => {
                append_floats(&[encode(&self.numbers(numbers, initializer)?).1], dtype, &mut bytes);
            }
            Source::Rope { part: half, theta, head_dim } => {
                append_floats(&rope_rows(*half, *theta, *head_dim, part.start, part.count), dtype, &mut bytes);
            }
            Source::Ints(values) => append_integers(values, dtype, &mut bytes),
            Source::Float(value) => append_floats(&[*value as f32], dtype, &mut bytes),
            Source::Floats(values) => append_floats(values, dtype, &mut bytes),
        }
        Ok(Made { bytes, rest })
    }

    fn rows(&self, weight: &Weight, part: Part, dtype: DType) -> Result<Vec<f32>, WriteError> {
        let mut values = Vec::new();
        self.checkpoint.read_rows(&weight.name, part.start, part.count, &mut values)?;
        check(weight, &values, dtype, |at| part.start + at / weight.columns().max(1))?;
        Ok(values)
    }

    /// Columns of the weight as rows.
    fn columns(&self, weight: &Weight, part: Part, dtype: DType) -> Result<Vec<f32>, WriteError> {
        let mut values = Vec::new();
        self.checkpoint.read_columns(&weight.name, part.start, part.count, &mut values)?;
        check(weight, &values, dtype, |at| at / part.count.max(1))?;
        Ok(transposed(&values, part.count))
    }

    /// The numbers and the scales of a whole weight quantized by row. What is stored first needs the extremes of all rows, so that
    /// there are no parts.
    fn channels(&self, weight: &Weight) -> Result<(Vec<u8>, Vec<f32>), WriteError> {
        let (mut numbers, mut scales) = (Vec::with_capacity(weight.len()), Vec::with_capacity(weight.rows()));
        let step = (PART_VALUES / weight.columns().max(1)).max(1);
        for start in (0..weight.rows()).step_by(step) {
            let part = Part { start, count: step.min(weight.rows() - start) };
            let values = self.rows(weight, part, DType::Float32)?;
            round_by_channel(weight.columns(), &values, &mut numbers, &mut scales);
        }
        Ok((numbers, scales))
    }

    /// The numbers, packed, and the scales of rows that have one each.
    fn by_rows(&self, weight: &Weight, part: Part) -> Result<(Vec<u8>, Vec<f32>), WriteError> {
        let Format::Rows { bits } = weight.format else { return Ok((Vec::new(), Vec::new())) };
        let values = self.rows(weight, part, DType::Float32)?;
        let importance = self.importance.get(&weight.name).map(Vec::as_slice);
        Ok(quantize_rows(bits, weight.columns(), importance, &values))
    }

    /// All numbers of a small constant.
    fn numbers(&self, source: &Source, initializer: &Initializer) -> Result<Vec<f32>, WriteError> {
        let dtype = DType::Float32;
        let whole = Initializer { dtype, shape: initializer.shape.clone(), source: source.clone() };
        let bytes = self.whole(&whole)?;
        let (numbers, _) = bytes.as_chunks::<4>();
        Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn quantized(&self, weight: &Weight, part: Part) -> Result<Quantized, WriteError> {
        let mut out = Quantized::default();
        let Some(blocks) = blocks_of(weight) else { return Ok(out) };
        let values = self.rows(weight, part, DType::Float32)?;
        let importance = self.importance.get(&weight.name).map(Vec::as_slice);
        quantize(blocks, self.recipe.method(weight), weight.columns(), importance, &values, &mut out);
        // The values have been checked as they were read, so that only the narrower type of the scales can be at fault.
        if let Some(at) = out.scales.iter().position(|scale| !scale.is_finite()) {
            let row = part.start + at / (weight.columns() / blocks.block_size).max(1);
            return Err(WriteError::ScaleOverflow { tensor: weight.name.clone(), row });
        }
        Ok(out)
    }
}

/// What an initializer is made in, in the order of its bytes.
pub(super) fn parts(initializer: &Initializer) -> Vec<Part> {
    let (rows, most) = match &initializer.source {
        Source::Dense { weight }
        | Source::Packed { weight }
        | Source::Scales { weight }
        | Source::Rows { weight }
        | Source::RowScales { weight }
        | Source::ZeroPoints { weight } => (weight.rows(), PART_VALUES / weight.columns().max(1)),
        Source::Transposed { weight } => (weight.columns(), STRIPE_VALUES / weight.rows().max(1)),
        Source::Rope { head_dim, .. } => {
            (initializer.shape.first().copied().unwrap_or(0), PART_VALUES / (head_dim / 2).max(1))
        }
        Source::Channels { .. } | Source::ChannelScales { .. } | Source::Column { .. } => (1, 1),
        // Of one scale, which needs all numbers.
        Source::Encoded(_) | Source::EncodedScale(_) => (1, 1),
        Source::Ints(_) | Source::Float(_) | Source::Floats(_) => (1, 1),
    };
    let step = most.max(1);
    (0..rows).step_by(step).map(|start| Part { start, count: step.min(rows - start) }).collect()
}

/// The matrix whose rows are the columns of `values`, of which there are `columns`. Goes in tiles, so that neither side jumps
/// through memory.
fn transposed<T: Copy + Default>(values: &[T], columns: usize) -> Vec<T> {
    const TILE: usize = 32;
    let rows = values.len() / columns.max(1);
    let mut out = vec![T::default(); values.len()];
    for row_tile in (0..rows).step_by(TILE) {
        for column_tile in (0..columns).step_by(TILE) {
            for column in column_tile..(column_tile + TILE).min(columns) {
                let out = &mut out[column * rows..];
                for row in row_tile..(row_tile + TILE).min(rows) {
                    out[row] = values[row * columns + column];
                }
            }
        }
    }
    out
}

fn blocks_of(weight: &Weight) -> Option<Blocks> {
    match weight.format {
        Format::Blocks(blocks) => Some(blocks),
        Format::Dense(_) | Format::Channels | Format::Rows { .. } => None,
    }
}

/// Makes sure that `dtype` can hold the values. `row` tells in which row of the weight a value lies.
fn check(weight: &Weight, values: &[f32], dtype: DType, row: impl Fn(usize) -> usize) -> Result<(), WriteError> {
    // Looking at every value without leaving early lets the compiler use wide registers; the place is searched for only on
    // failure.
    if values.iter().fold(true, |all, value| all & fits(*value, dtype)) {
        return Ok(());
    }
    match values.iter().position(|value| !fits(*value, dtype)) {
        None => Ok(()),
        Some(at) => Err(refused(weight, row(at), values[at], dtype)),
    }
}

/// Whether `value` is finite as an element of type `dtype`.
fn fits(value: f32, dtype: DType) -> bool {
    // Magnitudes from 65520 on round to infinity in float16, and those beyond half of a step behind its largest number in bfloat16;
    // NaN fails all comparisons.
    match dtype {
        DType::Float16 => value.abs() < 65520.0,
        DType::Bfloat16 => value.abs() < f32::from_bits(0x7f7f_8000),
        _ => value.abs() <= f32::MAX,
    }
}

fn refused(weight: &Weight, row: usize, value: f32, dtype: DType) -> WriteError {
    let tensor = weight.name.clone();
    if value.is_finite() {
        WriteError::Overflow { tensor, row, value, dtype }
    } else {
        WriteError::NotFinite { tensor, row, value }
    }
}

#[cfg(test)]
mod tests;
