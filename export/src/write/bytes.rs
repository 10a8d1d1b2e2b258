//! Numbers to the bytes that ONNX stores: little-endian.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use lfm2_graphs::ir::DType;

/// Appends numbers as elements of type `dtype`, which is a float type.
pub(super) fn append_floats(values: &[f32], dtype: DType, out: &mut Vec<u8>) {
    match dtype {
        DType::Float16 => {
            let mut halves = [f16::ZERO; 1024];
            for block in values.chunks(halves.len()) {
                let halves = &mut halves[..block.len()];
                halves.convert_from_f32_slice(block);
                out.extend(halves.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
        // To the nearest, and between two to the even one; what comes from bfloat16 stays what it is.
        DType::Bfloat16 => out.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes())),
        _ => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
    }
}

/// Appends numbers as elements of type `dtype`, which is an integer type.
pub(super) fn append_integers(values: &[i64], dtype: DType, out: &mut Vec<u8>) {
    match dtype {
        DType::Int32 => out.extend(values.iter().flat_map(|&value| (value as i32).to_le_bytes())),
        DType::Uint8 | DType::Int8 => out.extend(values.iter().map(|&value| value as u8)),
        // The first of two lies in the low half of their byte.
        DType::Int4 => {
            out.extend(
                values.chunks(2).map(|pair| (pair[0] as u8 & 0xf) | pair.get(1).map_or(0, |it| (*it as u8) << 4)),
            );
        }
        DType::Uint16 | DType::Int16 => out.extend(values.iter().flat_map(|&value| (value as u16).to_le_bytes())),
        _ => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
    }
}
