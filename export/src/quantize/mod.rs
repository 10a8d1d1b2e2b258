//! From numbers to blocks: one method per file.
//!
//! Blocks are independent of each other, sums go over fixed lanes in a fixed order, and no instruction is used that only some
//! processors have: the same numbers give the same bytes everywhere.

mod block;
mod channels;
mod rounding;
mod rows;
mod search;

pub use channels::round_by_channel;
pub use rows::{encode, quantize_rows};

use lfm2_graphs::ir::Blocks;

use self::block::{LARGEST_BLOCK, Steps};

/// How the scale, and the zero point, of a block are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// They follow from the extremes of the block.
    Round,
    /// Those of the least weighted error among many.
    Search,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 2] = [Self::Round, Self::Search];

    /// The name in recipes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Round => "round",
            Self::Search => "search",
        }
    }

    /// The method of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }
}

/// Quantized rows, as the operators take them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantized {
    /// Numbers, the low half of a byte first.
    pub packed: Vec<u8>,
    /// One scale for each block, as its stored type represents it.
    pub scales: Vec<f32>,
    /// Zero points, packed like the numbers, each row beginning with a byte of its own; empty if blocks have none.
    pub zero_points: Vec<u8>,
}

impl Quantized {
    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.packed.clear();
        self.scales.clear();
        self.zero_points.clear();
    }
}

/// Quantizes whole rows of `columns` values, which the block size divides, and appends them to `out`.
///
/// `importance` has one number for each column: how much an error there matters, such as the mean square of what the column is
/// multiplied with. Only [`Method::Search`] looks at it.
///
/// Values must be finite. A scale that its type cannot hold comes out infinite.
pub fn quantize(
    blocks: Blocks,
    method: Method,
    columns: usize,
    importance: Option<&[f32]>,
    values: &[f32],
    out: &mut Quantized,
) {
    let mut numbers = [0_u8; LARGEST_BLOCK];
    let mut zeros = Vec::with_capacity(columns / blocks.block_size);
    for row in values.chunks_exact(columns.max(1)) {
        zeros.clear();
        for (i, block) in row.chunks_exact(blocks.block_size).enumerate() {
            let importance = importance.and_then(|all| all.get(i * blocks.block_size..)?.get(..blocks.block_size));
            let steps: Steps = match method {
                Method::Round => rounding::steps(blocks, block),
                Method::Search => search::steps(blocks, block, importance),
            };
            let numbers = &mut numbers[..block.len()];
            steps.numbers(blocks, block, numbers);
            out.scales.push(steps.scale);
            pack(blocks.bits, numbers, &mut out.packed);
            zeros.push(steps.zero);
        }
        if blocks.zero_points {
            if blocks.bits == 4 && zeros.len() % 2 == 1 {
                // Nobody reads the half byte behind the last one; ONNX Runtime's quantizer writes the middle there.
                zeros.push(blocks.zero_point());
            }
            pack(blocks.bits, &zeros, &mut out.zero_points);
        }
    }
}

/// Appends numbers of 4 bits, two to a byte, or of 8. An odd last one has a byte to itself.
fn pack(bits: usize, numbers: &[u8], out: &mut Vec<u8>) {
    if bits == 4 {
        let (pairs, last) = numbers.as_chunks::<2>();
        out.extend(pairs.iter().map(|[low, high]| low | high << 4));
        out.extend(last);
    } else {
        out.extend_from_slice(numbers);
    }
}

#[cfg(test)]
mod tests;
