//! Number formats that graphs and hosts must agree on to the bit: rotary tables and packed rows.

pub use crate::ir::{Blocks, RopePart};

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

/// Decodes one row of packed numbers: `out.len()` values from `packed` bytes, one scale per block, and the row's packed zero
/// points, which are not looked at if the blocks have none.
///
/// # Panics
/// If `packed`, `scales` or `zero_points` is shorter than `out` needs.
pub fn unpack_row(blocks: Blocks, packed: &[u8], scales: &[f32], zero_points: &[u8], out: &mut [f32]) {
    for (block, values) in out.chunks_mut(blocks.block_size).enumerate() {
        let zero = if blocks.zero_points { number(blocks.bits, zero_points, block) } else { blocks.zero_point() };
        let first = block * blocks.block_size;
        for (i, value) in values.iter_mut().enumerate() {
            *value = (f32::from(number(blocks.bits, packed, first + i)) - f32::from(zero)) * scales[block];
        }
    }
}

/// Number `i` of a row of packed numbers.
fn number(bits: usize, packed: &[u8], i: usize) -> u8 {
    match bits {
        4 if i.is_multiple_of(2) => packed[i / 2] & 0x0f,
        4 => packed[i / 2] >> 4,
        _ => packed[i],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;

    #[test]
    fn zero_points_are_packed_like_numbers() {
        let blocks = Blocks { bits: 4, block_size: 16, zero_points: true, scales: DType::Float32 };
        assert_eq!(blocks.zero_point_bytes(48), 2);
        let packed = [0x21; 24];
        let mut out = [0.0; 48];
        unpack_row(blocks, &packed, &[1.0, 10.0, 100.0], &[0xf0, 0x02], &mut out);
        for (block, expected) in [[1.0, 2.0], [-140.0, -130.0], [-100.0, 0.0]].into_iter().enumerate() {
            assert_eq!(out[block * 16..][..2], expected);
            assert_eq!(out[block * 16 + 14..][..2], expected);
        }
        let symmetric = Blocks { zero_points: false, ..blocks };
        unpack_row(symmetric, &packed, &[1.0; 3], &[], &mut out);
        assert_eq!(out[..2], [-7.0, -6.0]);
        assert_eq!(symmetric.zero_point_bytes(48), 0);
    }
}
