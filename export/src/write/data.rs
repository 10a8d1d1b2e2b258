//! Weights on their way from the checkpoint to the package, in blocks of bounded size.

use std::collections::HashMap;

use lfm2_graphs::format::rope_rows;
use lfm2_graphs::ir::{Blocks, DType, Format, Initializer, RopePart, Source, Weight};

use super::WriteError;
use super::bytes::{append_floats, append_integers};
use crate::checkpoint::Checkpoint;
use crate::quantize::round_to_nearest;

/// Numbers that are converted at a time: 4 MiB of float32.
const BLOCK_VALUES: usize = 1 << 20;

/// Numbers of a stripe of columns that is turned into rows at a time: 64 MiB of float32. Wider matrices are read once for each
/// stripe.
const STRIPE_VALUES: usize = 1 << 24;

/// Where the bytes of an initializer go, block after block.
pub type Sink<'s> = dyn FnMut(&[u8]) -> Result<(), WriteError> + 's;

/// Makes the bytes of initializers. Needs memory for some blocks, and for the scales of one weight.
pub struct Producer<'c> {
    checkpoint: &'c Checkpoint,
    /// Scales that were found while their weight was packed, until they are asked for.
    scales: HashMap<String, Vec<f32>>,
    values: Vec<f32>,
    bytes: Vec<u8>,
}

impl<'c> Producer<'c> {
    /// Reads from `checkpoint`.
    pub fn new(checkpoint: &'c Checkpoint) -> Self {
        Self { checkpoint, scales: HashMap::new(), values: Vec::new(), bytes: Vec::new() }
    }

    /// Sends the bytes of `initializer` to `sink`: little-endian, row after row.
    pub fn produce(&mut self, initializer: &Initializer, sink: &mut Sink<'_>) -> Result<(), WriteError> {
        let dtype = initializer.dtype;
        match &initializer.source {
            Source::Dense { weight } => self.dense(weight, dtype, sink),
            Source::Transposed { weight } => self.transposed(weight, dtype, sink),
            Source::Packed { weight } => self.packed(weight, sink),
            Source::Scales { weight } => self.scales(weight, dtype, sink),
            Source::Rope { part, theta, head_dim } => {
                let positions = initializer.shape.first().copied().unwrap_or(0);
                self.rope(Rope { part: *part, theta: *theta, head_dim: *head_dim, positions }, dtype, sink)
            }
            Source::Ints(values) => {
                self.bytes.clear();
                append_integers(values, dtype, &mut self.bytes);
                sink(&self.bytes)
            }
            Source::Float(value) => {
                self.values.clear();
                self.values.push(*value as f32);
                self.send(dtype, sink)
            }
        }
    }

    fn dense(&mut self, weight: &Weight, dtype: DType, sink: &mut Sink<'_>) -> Result<(), WriteError> {
        for (start, rows) in row_blocks(weight) {
            self.read(weight, start, rows, dtype)?;
            self.send(dtype, sink)?;
        }
        Ok(())
    }

    fn transposed(&mut self, weight: &Weight, dtype: DType, sink: &mut Sink<'_>) -> Result<(), WriteError> {
        let [rows, columns] = [weight.rows(), weight.columns()];
        let width = (STRIPE_VALUES / rows).clamp(1, columns);
        let mut stripe = vec![0.0_f32; width * rows];
        for first in (0..columns).step_by(width) {
            let width = width.min(columns - first);
            for (start, count) in row_blocks(weight) {
                self.read(weight, start, count, dtype)?;
                let part = Part { first, width, start, rows };
                transpose_into(&mut stripe, &self.values, columns, part);
            }
            for block in stripe[..width * rows].chunks(BLOCK_VALUES) {
                self.bytes.clear();
                append_floats(block, dtype, &mut self.bytes);
                sink(&self.bytes)?;
            }
        }
        Ok(())
    }

    fn packed(&mut self, weight: &Weight, sink: &mut Sink<'_>) -> Result<(), WriteError> {
        let Some(blocks) = blocks_of(weight) else { return Ok(()) };
        let mut scales = Vec::with_capacity(weight.len() / blocks.block_size);
        for (start, rows) in row_blocks(weight) {
            self.read(weight, start, rows, DType::Float32)?;
            self.bytes.clear();
            round_to_nearest(blocks, &self.values, &mut self.bytes, &mut scales);
            sink(&self.bytes)?;
        }
        self.scales.insert(weight.name.clone(), scales);
        Ok(())
    }

    fn scales(&mut self, weight: &Weight, dtype: DType, sink: &mut Sink<'_>) -> Result<(), WriteError> {
        if !self.scales.contains_key(&weight.name) {
            self.packed(weight, &mut |_| Ok(()))?;
        }
        let scales = self.scales.remove(&weight.name).unwrap_or_default();
        // The values have been checked as they were read, so that only the narrower type of the scales can be at fault.
        if let Some(at) = scales.iter().position(|scale| !scale.is_finite()) {
            let row = at / (scales.len() / weight.rows().max(1)).max(1);
            return Err(WriteError::ScaleOverflow { tensor: weight.name.clone(), row });
        }
        self.bytes.clear();
        append_floats(&scales, dtype, &mut self.bytes);
        sink(&self.bytes)
    }

    fn rope(&mut self, rope: Rope, dtype: DType, sink: &mut Sink<'_>) -> Result<(), WriteError> {
        let rows_at_once = (BLOCK_VALUES / (rope.head_dim / 2).max(1)).max(1);
        for start in (0..rope.positions).step_by(rows_at_once) {
            let rows = rows_at_once.min(rope.positions - start);
            self.values = rope_rows(rope.part, rope.theta, rope.head_dim, start, rows);
            self.send(dtype, sink)?;
        }
        Ok(())
    }

    /// Reads rows into `self.values` and makes sure that `dtype` can hold them.
    fn read(&mut self, weight: &Weight, start: usize, rows: usize, dtype: DType) -> Result<(), WriteError> {
        self.checkpoint.read_rows(&weight.name, start, rows, &mut self.values)?;
        // Looking at every value without leaving early lets the compiler use wide registers; the place is searched for only on
        // failure.
        if self.values.iter().fold(true, |all, value| all & fits(*value, dtype)) {
            return Ok(());
        }
        match self.values.iter().position(|value| !fits(*value, dtype)) {
            None => Ok(()),
            Some(at) => Err(refused(weight, start + at / weight.columns().max(1), self.values[at])),
        }
    }

    fn send(&mut self, dtype: DType, sink: &mut Sink<'_>) -> Result<(), WriteError> {
        self.bytes.clear();
        append_floats(&self.values, dtype, &mut self.bytes);
        sink(&self.bytes)
    }
}

struct Rope {
    part: RopePart,
    theta: f64,
    head_dim: usize,
    positions: usize,
}

/// Columns `first..first + width` of a matrix of `rows` rows, of which those from `start` on are at hand.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    width: usize,
    start: usize,
    rows: usize,
}

/// Writes the part's columns of `values`, which are whole rows, as rows of `stripe`. Goes in tiles, so that neither side jumps
/// through memory.
fn transpose_into(stripe: &mut [f32], values: &[f32], columns: usize, part: Part) {
    const TILE: usize = 32;
    let count = values.len() / columns.max(1);
    for row_tile in (0..count).step_by(TILE) {
        for column_tile in (0..part.width).step_by(TILE) {
            for column in column_tile..(column_tile + TILE).min(part.width) {
                let out = &mut stripe[column * part.rows + part.start..];
                for row in row_tile..(row_tile + TILE).min(count) {
                    out[row] = values[row * columns + part.first + column];
                }
            }
        }
    }
}

/// Ranges of rows of about [`BLOCK_VALUES`] numbers: first row and number of rows.
fn row_blocks(weight: &Weight) -> impl Iterator<Item = (usize, usize)> + use<> {
    let rows = weight.rows();
    let step = (BLOCK_VALUES / weight.columns().max(1)).max(1);
    (0..rows).step_by(step).map(move |start| (start, step.min(rows - start)))
}

fn blocks_of(weight: &Weight) -> Option<Blocks> {
    match weight.format {
        Format::Blocks(blocks) => Some(blocks),
        Format::Dense(_) => None,
    }
}

/// Whether `value` is finite as an element of type `dtype`.
fn fits(value: f32, dtype: DType) -> bool {
    // Magnitudes from 65520 on round to infinity in float16; NaN fails both comparisons.
    if dtype == DType::Float16 { value.abs() < 65520.0 } else { value.abs() <= f32::MAX }
}

fn refused(weight: &Weight, row: usize, value: f32) -> WriteError {
    let tensor = weight.name.clone();
    if value.is_finite() {
        WriteError::Overflow { tensor, row, value }
    } else {
        WriteError::NotFinite { tensor, row, value }
    }
}

#[cfg(test)]
mod tests {
    use lfm2_graphs::format::unpack_row;
    use lfm2_graphs::ir::Role;
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    /// A checkpoint with one float32 tensor called `w`, opened.
    fn checkpoint(shape: &[usize], values: &[f32]) -> (tempfile::TempDir, Checkpoint) {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
        let file = folder.path().join("model.safetensors");
        safetensors::serialize_to_file([("w", view)], None, &file).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        (folder, checkpoint)
    }

    fn weight(shape: &[usize], format: Format) -> Weight {
        Weight { name: "w".into(), shape: shape.to_vec(), role: Role::Matrix, format }
    }

    fn initializer(dtype: DType, shape: &[usize], source: Source) -> Initializer {
        Initializer { dtype, shape: shape.to_vec(), source }
    }

    fn produced(producer: &mut Producer<'_>, initializer: &Initializer) -> Result<Vec<u8>, WriteError> {
        let mut all = Vec::new();
        producer.produce(initializer, &mut |bytes| {
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        assert_eq!(all.len() as u64, initializer.bytes());
        Ok(all)
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    #[test]
    fn matrices_of_many_blocks_and_stripes_are_transposed() {
        // Wide enough for several stripes, long enough for several blocks of rows.
        let [rows, columns] = [3000, 6000];
        assert!(rows * columns > STRIPE_VALUES.max(BLOCK_VALUES));
        let values: Vec<f32> = (0..rows * columns).map(|i| (i % 65_521) as f32).collect();
        let (_folder, checkpoint) = checkpoint(&[rows, columns], &values);
        let weight = weight(&[rows, columns], Format::Dense(DType::Float32));
        let source = Source::Transposed { weight };
        let out = produced(&mut Producer::new(&checkpoint), &initializer(DType::Float32, &[columns, rows], source));
        let out = floats(&out.unwrap());
        let wrong = (0..rows * columns).find(|i| out[(i % columns) * rows + i / columns] != values[*i]);
        assert_eq!(wrong, None);
    }

    #[test]
    fn scales_are_the_same_whether_asked_for_before_or_after_the_numbers() {
        let shape = [5, 64];
        let values: Vec<f32> = (0..320).map(|i| ((i * 37 % 101) as f32 - 50.0) / 10.0).collect();
        let (_folder, checkpoint) = checkpoint(&shape, &values);
        let blocks = Blocks { bits: 4, block_size: 32, scales: DType::Float32 };
        let weight = weight(&shape, Format::Blocks(blocks));
        let packed = initializer(DType::Uint8, &[5, 2, 16], Source::Packed { weight: weight.clone() });
        let scales = initializer(DType::Float32, &[5, 2], Source::Scales { weight });

        let mut producer = Producer::new(&checkpoint);
        let before = produced(&mut producer, &scales).unwrap();
        let numbers = produced(&mut producer, &packed).unwrap();
        assert_eq!(produced(&mut producer, &scales).unwrap(), before);
        assert!(producer.scales.is_empty(), "nothing is kept after its use");

        let scales = floats(&before);
        for row in 0..5 {
            let mut out = [0.0; 64];
            unpack_row(blocks, &numbers[row * 32..][..32], &scales[row * 2..][..2], &mut out);
            for (i, value) in out.iter().enumerate() {
                assert!((value - values[row * 64 + i]).abs() <= scales[row * 2 + i / 32].abs() * 1.001);
            }
        }
    }

    #[test]
    fn rotary_tables_are_the_same_in_one_piece_and_in_many() {
        let (_folder, checkpoint) = checkpoint(&[1], &[0.0]);
        let positions = BLOCK_VALUES / 32 + 100;
        let source = Source::Rope { part: RopePart::Sin, theta: 1e6, head_dim: 64 };
        let out = produced(&mut Producer::new(&checkpoint), &initializer(DType::Float32, &[positions, 32], source));
        assert_eq!(floats(&out.unwrap()), rope_rows(RopePart::Sin, 1e6, 64, 0, positions));
    }

    #[test]
    fn numbers_that_cannot_be_stored_are_refused_with_their_place() {
        let mut values = vec![1.0; 64];
        values[40] = 65_536.0;
        let (_folder, checkpoint) = checkpoint(&[2, 32], &values);
        let dense = |dtype| {
            let source = Source::Dense { weight: weight(&[2, 32], Format::Dense(dtype)) };
            produced(&mut Producer::new(&checkpoint), &initializer(dtype, &[2, 32], source))
        };
        dense(DType::Float32).unwrap();
        let error = dense(DType::Float16).unwrap_err();
        assert!(matches!(&error, WriteError::Overflow { row: 1, value, .. } if *value == 65_536.0), "{error}");

        values[3] = f32::NAN;
        let (_folder, damaged) = self::checkpoint(&[2, 32], &values);
        let source = Source::Dense { weight: weight(&[2, 32], Format::Dense(DType::Float32)) };
        let error = produced(&mut Producer::new(&damaged), &initializer(DType::Float32, &[2, 32], source)).unwrap_err();
        assert!(matches!(&error, WriteError::NotFinite { row: 0, .. }), "{error}");
    }

    #[test]
    fn values_beyond_a_float16_scale_are_refused_with_the_remedy() {
        let mut values = vec![1.0; 64];
        values[40] = 1e6;
        let (_folder, checkpoint) = checkpoint(&[2, 32], &values);
        let scales = |dtype| {
            let blocks = Blocks { bits: 4, block_size: 32, scales: dtype };
            let source = Source::Scales { weight: weight(&[2, 32], Format::Blocks(blocks)) };
            produced(&mut Producer::new(&checkpoint), &initializer(dtype, &[2, 1], source))
        };
        scales(DType::Float32).unwrap();
        let error = scales(DType::Float16).unwrap_err();
        assert!(matches!(&error, WriteError::ScaleOverflow { row: 1, .. }), "{error}");
    }
}
