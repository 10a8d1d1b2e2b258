//! Random weights, and the bytes of initializers made from them.

use half::{bf16, f16};
use lfm2_export::proto::Data;
use lfm2_export::quantize::{Method, Quantized, quantize, round_by_channel};
use lfm2_graphs::format::{rope_rows, unpack_row};
use lfm2_graphs::ir::{Blocks, Content, DType, Format, Graph, Initializer, Role, Source, Weight};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Weights that follow from a seed and their names, in the number formats of a recipe.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// Everything random depends on it.
    pub seed: u64,
    /// Element type of activations, states and plain weights.
    pub activations: DType,
    /// How matrices, table and head are quantized, if they are.
    pub blocks: Option<Blocks>,
    /// Whether matrices are quantized by row instead.
    pub channels: bool,
}

impl Weights {
    /// An empty graph whose weights are these.
    pub fn graph(self) -> Graph<'static> {
        Graph::new(self.activations, move |_, role, _| self.format(role))
    }

    /// An empty float32 graph that computes with the numbers that these weights stand for.
    pub fn reference_graph(self) -> Graph<'static> {
        Graph::new(DType::Float32, |_, _, _| Format::Dense(DType::Float32))
    }

    /// The bytes of all initializers of a graph, whichever of the two it is.
    pub fn data(self, content: &Content) -> Vec<Data> {
        content.initializers.iter().map(|(_, initializer)| Data::Inline(self.bytes(initializer))).collect()
    }

    /// The rows of the token table that graphs with these weights stand for, one behind the other.
    pub fn table(self, rows: usize, columns: usize) -> Vec<f32> {
        let (name, role, shape) = ("model.embed_tokens.weight".to_owned(), Role::Table, vec![rows, columns]);
        self.represented(&Weight { name, shape, role, format: self.format(role) })
    }

    fn format(self, role: Role) -> Format {
        match (role, self.blocks) {
            (Role::Matrix, _) if self.channels => Format::Channels,
            (Role::Table | Role::Head | Role::Matrix, Some(blocks)) => Format::Blocks(blocks),
            _ => Format::Dense(self.activations),
        }
    }

    fn bytes(self, initializer: &Initializer) -> Vec<u8> {
        let dtype = initializer.dtype;
        match &initializer.source {
            Source::Dense { weight } => floats(&self.represented(weight), dtype),
            Source::Transposed { weight } => floats(&transposed(&self.represented(weight), weight), dtype),
            Source::Column { weight, column } => {
                let values = self.represented(weight);
                let column: Vec<f32> = values.iter().skip(*column).step_by(weight.columns()).copied().collect();
                floats(&column, dtype)
            }
            Source::Packed { weight } => self.quantized(weight).packed,
            Source::Scales { weight } => floats(&self.quantized(weight).scales, dtype),
            Source::ZeroPoints { weight } => self.quantized(weight).zero_points,
            Source::Channels { weight } => transposed(&self.by_channel(weight).0, weight),
            Source::ChannelScales { weight } => floats(&self.by_channel(weight).1, dtype),
            Source::Rows { .. } | Source::RowScales { .. } | Source::Encoded(_) | Source::EncodedScale(_) => {
                panic!("graphs of integers are tested with weights that are exported")
            }
            Source::Rope { part, theta, head_dim } => {
                floats(&rope_rows(*part, *theta, *head_dim, 0, initializer.shape[0]), dtype)
            }
            Source::Ints(values) if dtype == DType::Int64 => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Source::Ints(values) if dtype == DType::Uint8 => values.iter().map(|&it| it as u8).collect(),
            Source::Ints(_) => panic!("integers of another type than int64 and uint8"),
            Source::Float(value) => floats(&[*value as f32], dtype),
            Source::Floats(values) => floats(values, dtype),
        }
    }

    /// The numbers that the stored weight stands for.
    fn represented(self, weight: &Weight) -> Vec<f32> {
        match self.format(weight.role) {
            Format::Blocks(blocks) => {
                let Quantized { packed, scales, zero_points } = self.quantized(weight);
                let mut values = vec![0.0; weight.len()];
                let rows = weight.rows();
                let part = |whole: usize, row: usize| row * (whole / rows)..(row + 1) * (whole / rows);
                for (row, values) in values.chunks_mut(weight.columns()).enumerate() {
                    let packed = &packed[part(packed.len(), row)];
                    let (scales, zeros) =
                        (&scales[part(scales.len(), row)], &zero_points[part(zero_points.len(), row)]);
                    unpack_row(blocks, packed, scales, zeros, values);
                }
                values
            }
            Format::Channels => {
                let (numbers, scales) = self.by_channel(weight);
                let value = |(i, &number): (usize, &u8)| (f32::from(number) - 128.0) * scales[i / weight.columns()];
                numbers.iter().enumerate().map(value).collect()
            }
            Format::Rows { .. } => panic!("no graph of integers has random weights"),
            Format::Dense(dtype) => random(self.seed, weight).into_iter().map(|value| rounded(value, dtype)).collect(),
        }
    }

    fn by_channel(self, weight: &Weight) -> (Vec<u8>, Vec<f32>) {
        let (mut numbers, mut scales) = (Vec::new(), Vec::new());
        round_by_channel(weight.columns(), &random(self.seed, weight), &mut numbers, &mut scales);
        (numbers, scales)
    }

    fn quantized(self, weight: &Weight) -> Quantized {
        let Format::Blocks(blocks) = self.format(weight.role) else { panic!("{} is not quantized", weight.name) };
        let mut quantized = Quantized::default();
        quantize(blocks, Method::Round, weight.columns(), None, &random(self.seed, weight), &mut quantized);
        quantized
    }
}

/// A matrix `[rows, columns]` as `[columns, rows]`.
fn transposed<T: Copy>(values: &[T], weight: &Weight) -> Vec<T> {
    let [rows, columns] = [weight.rows(), weight.columns()];
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// The nearest number that the type can hold.
pub fn rounded(value: f32, dtype: DType) -> f32 {
    match dtype {
        DType::Float16 => f16::from_f32(value).to_f32(),
        DType::Bfloat16 => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// Values that keep activations near 1: scales around 1, matrices and kernels whose rows have length about 1.
fn random(seed: u64, weight: &Weight) -> Vec<f32> {
    // FNV-1a: two weights of one graph must not be equal.
    let hash = weight
        .name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut generator = StdRng::seed_from_u64(seed ^ hash);
    let (centre, spread) = match weight.role {
        Role::Table => (0.0, 1.0),
        Role::Head | Role::Matrix | Role::Kernel => (0.0, (3.0 / weight.columns() as f32).sqrt()),
        Role::Vector => (1.0, 0.5),
    };
    (0..weight.len()).map(|_| centre + spread * generator.random_range(-1.0..1.0)).collect()
}

fn floats(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::Float32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::Float16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        DType::Bfloat16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        other => panic!("{other} does not hold floats"),
    }
}
