//! Quantized numbers lie where ONNX Runtime looks for them: `tests/reference/blocks.py` made the same with its own quantizer.

use lfm2_export::quantize::{Method, Quantized, quantize};
use lfm2_graphs::format::unpack_row;
use lfm2_graphs::ir::{Blocks, DType};
use lfm2_tests::reference_data;
use safetensors::SafeTensors;

/// The numbers are the same but for values half way between two of them, which ONNX Runtime rounds another way or has a
/// reciprocal that is off by one bit; a wrong order of halves, blocks or rows moves nearly all.
const TIES: usize = 3;

#[test]
fn packed_as_onnx_runtime_packs() {
    let bytes = std::fs::read(reference_data().join("blocks.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        tensors.tensor(name).unwrap().data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    };
    let weight = floats("weight");
    let columns = tensors.tensor("weight").unwrap().shape()[1];
    let mut compared = 0;
    for (bits, block_size) in [4, 8].into_iter().flat_map(|bits| [16, 32, 64, 128, 256].map(|size| (bits, size))) {
        for (zero_points, kind) in [(false, "symmetric"), (true, "zero_points")] {
            let blocks = Blocks { bits, block_size, zero_points, scales: DType::Float32 };
            let name = format!("{bits}.{block_size}.{kind}");
            let expected = Quantized {
                packed: tensors.tensor(&format!("{name}.packed")).unwrap().data().to_vec(),
                scales: floats(&format!("{name}.scales")),
                zero_points: match tensors.tensor(&format!("{name}.zero_points")) {
                    Ok(tensor) => tensor.data().to_vec(),
                    Err(_) => Vec::new(),
                },
            };
            let mut found = Quantized::default();
            quantize(blocks, Method::Round, columns, None, &weight, &mut found);
            assert_eq!(found.packed.len(), expected.packed.len(), "{name}");
            let off = found.packed.iter().zip(&expected.packed).filter(|(a, b)| a != b).count();
            assert!(off <= TIES, "{name}: {off} bytes differ");
            assert_eq!(found.zero_points, expected.zero_points, "{name}");
            for (a, b) in found.scales.iter().zip(&expected.scales) {
                assert!((a - b).abs() <= 1e-6 * b.abs(), "{name}: scale {a} instead of {b}");
            }
            // Theirs is read by our reader.
            let rows = weight.len() / columns;
            for (row, values) in weight.chunks(columns).enumerate() {
                let part = |length: usize| row * (length / rows)..(row + 1) * (length / rows);
                let scales = &expected.scales[part(expected.scales.len())];
                let zeros = &expected.zero_points[part(expected.zero_points.len())];
                let mut out = vec![0.0; columns];
                unpack_row(blocks, &expected.packed[part(expected.packed.len())], scales, zeros, &mut out);
                for (i, (value, out)) in values.iter().zip(out).enumerate() {
                    let step = scales[i / block_size].abs();
                    assert!((value - out).abs() <= step * 1.01, "{name}: {value} became {out}");
                }
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 20);
}
