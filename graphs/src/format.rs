//! Number formats that graphs and hosts must agree on to the bit: rotary tables and packed rows.

use crate::ir::{Blocks, RopePart};

/// Cosines or sines of positions `start..start + rows`, row after row, `head_dim / 2` values each.
///
/// The angle of position p and pair i is p * theta^(-2i / head_dim) ("RoFormer", Su et al. 2021, equation 15), with the
/// frequency rounded to float32 and the product taken in float32, as the reference implementation does: the rounding is part
/// of what models were trained with, and at position 100 000 it reaches 4e-3 rad.
pub fn rope_rows(part: RopePart, theta: f64, head_dim: usize, start: usize, rows: usize) -> Vec<f32> {
    let theta = theta as f32;
    let frequencies: Vec<f32> = (0..head_dim / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / head_dim as f32)).collect();
    let mut values = Vec::with_capacity(rows * frequencies.len());
    for position in start..start + rows {
        values.extend(frequencies.iter().map(|&frequency| {
            let angle = position as f32 * frequency;
            match part {
                RopePart::Cos => angle.cos(),
                RopePart::Sin => angle.sin(),
            }
        }));
    }
    values
}

/// Decodes one row of packed numbers: `out.len()` values from `packed` bytes and one scale per block.
///
/// # Panics
/// If `packed` or `scales` is shorter than `out` needs.
pub fn unpack_row(blocks: Blocks, packed: &[u8], scales: &[f32], out: &mut [f32]) {
    let zero = f32::from(blocks.zero_point());
    for (i, value) in out.iter_mut().enumerate() {
        let number = match blocks.bits {
            4 if i % 2 == 0 => packed[i / 2] & 0x0f,
            4 => packed[i / 2] >> 4,
            _ => packed[i],
        };
        *value = (f32::from(number) - zero) * scales[i / blocks.block_size];
    }
}
