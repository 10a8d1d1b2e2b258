use std::num::NonZero;
use std::ops::ControlFlow;

use lfm2_graphs::format::unpack_row;
use lfm2_graphs::ir::{Graph, Role, RopePart};
use safetensors::tensor::{Dtype, TensorView};

use super::*;
use crate::layout::Layout;
use crate::quantize::Method;
use crate::recipe::{Choice, Precision, Rule, Selector};
use crate::write::{HashedFile, write_data};

/// A checkpoint with one float32 tensor called `w.weight`, opened.
fn checkpoint(shape: &[usize], values: &[f32]) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
    let file = folder.path().join("model.safetensors");
    safetensors::serialize_to_file([("w.weight", view)], None, &file).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, checkpoint)
}

fn weight(shape: &[usize], format: Format) -> Weight {
    Weight { name: "w.weight".into(), shape: shape.to_vec(), role: Role::Matrix, format }
}

fn initializer(dtype: DType, shape: &[usize], source: Source) -> Initializer {
    Initializer { dtype, shape: shape.to_vec(), source }
}

/// A recipe with one rule for all matrices.
fn recipe(blocks: Blocks, method: Method) -> Recipe {
    let rule =
        Rule { line: 1, selectors: vec![Selector::Role(Role::Matrix)], choice: Choice::Blocks { blocks, method } };
    Recipe { rules: vec![rule], ..Precision::Fp32.recipe().unwrap() }
}

fn plain() -> Recipe {
    Precision::Fp32.recipe().unwrap()
}

fn produced(checkpoint: &Checkpoint, recipe: &Recipe, initializer: &Initializer) -> Result<Vec<u8>, WriteError> {
    let all = Producer::new(checkpoint, recipe, &BTreeMap::new()).whole(initializer)?;
    assert_eq!(all.len() as u64, initializer.bytes());
    Ok(all)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[test]
fn matrices_of_many_parts_are_transposed() {
    let [rows, columns] = [3000, 3001];
    assert!(rows * columns > 2 * STRIPE_VALUES);
    let values: Vec<f32> = (0..rows * columns).map(|i| (i % 65_521) as f32).collect();
    let (_folder, checkpoint) = checkpoint(&[rows, columns], &values);
    let weight = weight(&[rows, columns], Format::Dense(DType::Float32));
    let source = Source::Transposed { weight };
    let out = produced(&checkpoint, &plain(), &initializer(DType::Float32, &[columns, rows], source)).unwrap();
    let out = floats(&out);
    let wrong = (0..rows * columns).find(|i| out[(i % columns) * rows + i / columns] != values[*i]);
    assert_eq!(wrong, None);
}

#[test]
fn numbers_by_row_are_stored_by_column() {
    // More rows than are read at a time.
    let [rows, columns] = [1100, 300];
    assert!(rows * columns > PART_VALUES);
    let values: Vec<f32> =
        (0..rows * columns).map(|i| ((i * 7919 % 2003) as f32 - 1001.0) * (i / columns) as f32).collect();
    let (_folder, checkpoint) = checkpoint(&[rows, columns], &values);
    let weight = weight(&[rows, columns], Format::Channels);
    let made =
        |dtype, shape: &[usize], source| produced(&checkpoint, &plain(), &initializer(dtype, shape, source)).unwrap();
    let numbers = made(DType::Uint8, &[columns, rows], Source::Channels { weight: weight.clone() });
    let scales = floats(&made(DType::Float32, &[rows], Source::ChannelScales { weight }));
    for (i, &value) in values.iter().enumerate() {
        let (row, column) = (i / columns, i % columns);
        let number = f32::from(numbers[column * rows + row]) - 128.0;
        assert!((number * scales[row] - value).abs() <= 0.501 * scales[row], "row {row}, column {column}");
    }
}

/// A graph over one quantized matrix, in whichever order it asks for its parts.
fn file(checkpoint: &Checkpoint, recipe: &Recipe, order: &[&str], threads: usize) -> Vec<u8> {
    let blocks = match recipe.format("w.weight", Role::Matrix) {
        Format::Blocks(blocks) => blocks,
        Format::Dense(_) | Format::Channels | Format::Rows { .. } => panic!("not quantized"),
    };
    let graph = Graph::new(DType::Float32, |name, role, _| recipe.format(name, role));
    let shape = checkpoint.get("w.weight").unwrap().shape.clone();
    let weight = graph.root().within("w", |at| at.weight(Role::Matrix, &shape));
    let [rows, columns] = [weight.rows(), weight.columns()];
    for part in order {
        let weight = weight.clone();
        let (dtype, width, source) = match *part {
            "packed" => (DType::Uint8, columns * blocks.bits / 8, Source::Packed { weight }),
            "scales" => (blocks.scales, columns / blocks.block_size, Source::Scales { weight }),
            _ => (DType::Uint8, blocks.zero_point_bytes(columns), Source::ZeroPoints { weight }),
        };
        graph.root().initializer(part, dtype, &[rows, width], source);
    }
    let content = graph.content();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let layout = Layout::new(&content);
    assert!(layout.spans.iter().all(Option::is_some));
    let mut written = HashedFile::create(&path).unwrap();
    let importance = BTreeMap::new();
    let producer = Producer::new(checkpoint, recipe, &importance);
    let mut last = (0, 0);
    let mut progress = |done, total| {
        last = (done, total);
        ControlFlow::Continue(())
    };
    write_data(&mut written, &layout, &content, producer, NonZero::new(threads), &mut progress).unwrap();
    written.finish().unwrap();
    assert_eq!(last, (layout.length, layout.length));
    let bytes = std::fs::read(path).unwrap();
    let mut parts: Vec<_> = order.iter().zip(&layout.spans).collect();
    parts.sort_by_key(|(name, _)| **name);
    let span = |span: &Option<crate::layout::Span>| {
        let span = span.unwrap();
        bytes[span.offset as usize..(span.offset + span.length) as usize].to_vec()
    };
    parts.into_iter().flat_map(|(_, it)| span(it)).collect()
}

#[test]
fn neither_threads_nor_the_order_of_parts_change_a_byte() {
    let shape = [700, 2048];
    assert!(shape[0] * shape[1] > 4 * PART_VALUES);
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|i| ((i * 37 % 1013) as f32 - 500.0) / 10.0).collect();
    let (_folder, checkpoint) = checkpoint(&shape, &values);
    for method in Method::ALL {
        for (bits, zero_points) in [(4, true), (8, true)] {
            let blocks = Blocks { bits, block_size: 32, zero_points, scales: DType::Float32 };
            let recipe = recipe(blocks, method);
            let expected = file(&checkpoint, &recipe, &["packed", "scales", "zero"], 1);
            for threads in [2, 5] {
                assert!(file(&checkpoint, &recipe, &["packed", "scales", "zero"], threads) == expected);
            }
            assert!(file(&checkpoint, &recipe, &["zero", "scales", "packed"], 2) == expected);
        }
    }
}

#[test]
fn packed_rows_are_what_the_weight_was() {
    let shape = [5, 64];
    let values: Vec<f32> = (0..320).map(|i| ((i * 37 % 101) as f32 - 50.0) / 10.0).collect();
    let (_folder, checkpoint) = checkpoint(&shape, &values);
    let blocks = Blocks { bits: 4, block_size: 32, zero_points: true, scales: DType::Float32 };
    let recipe = recipe(blocks, Method::Round);
    let weight = weight(&shape, Format::Blocks(blocks));
    let part = |dtype, width, source| produced(&checkpoint, &recipe, &initializer(dtype, &[5, width], source)).unwrap();
    let numbers = part(DType::Uint8, 32, Source::Packed { weight: weight.clone() });
    let scales = floats(&part(DType::Float32, 2, Source::Scales { weight: weight.clone() }));
    let zero_points = part(DType::Uint8, 1, Source::ZeroPoints { weight });
    for row in 0..5 {
        let mut out = [0.0; 64];
        unpack_row(blocks, &numbers[row * 32..][..32], &scales[row * 2..][..2], &zero_points[row..][..1], &mut out);
        for (i, value) in out.iter().enumerate() {
            assert!((value - values[row * 64 + i]).abs() <= scales[row * 2 + i / 32].abs() * 1.001);
        }
    }
}

#[test]
fn rotary_tables_are_the_same_in_one_piece_and_in_many() {
    let (_folder, checkpoint) = checkpoint(&[1], &[0.0]);
    let positions = PART_VALUES / 32 + 100;
    let source = Source::Rope { part: RopePart::Sin, theta: 1e6, head_dim: 64 };
    let out = produced(&checkpoint, &plain(), &initializer(DType::Float32, &[positions, 32], source));
    assert_eq!(floats(&out.unwrap()), rope_rows(RopePart::Sin, 1e6, 64, 0, positions));
}

#[test]
fn numbers_that_cannot_be_stored_are_refused_with_their_place() {
    let mut values = vec![1.0; 64];
    values[40] = 65_536.0;
    let (_folder, large) = checkpoint(&[2, 32], &values);
    let dense = |dtype| {
        let source = Source::Dense { weight: weight(&[2, 32], Format::Dense(dtype)) };
        produced(&large, &plain(), &initializer(dtype, &[2, 32], source))
    };
    dense(DType::Float32).unwrap();
    let error = dense(DType::Float16).unwrap_err();
    assert!(matches!(&error, WriteError::Overflow { row: 1, value, .. } if *value == 65_536.0), "{error}");
    let source = Source::Transposed { weight: weight(&[2, 32], Format::Dense(DType::Float16)) };
    let error = produced(&large, &plain(), &initializer(DType::Float16, &[32, 2], source)).unwrap_err();
    assert!(matches!(&error, WriteError::Overflow { row: 1, .. }), "{error}");
    assert!(dense(DType::Bfloat16).is_ok(), "it has the range of float32");

    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        values[3] = bad;
        let (_folder, damaged) = checkpoint(&[2, 32], &values);
        let blocks = Blocks { bits: 4, block_size: 32, zero_points: true, scales: DType::Float32 };
        for method in Method::ALL {
            let source = Source::Packed { weight: weight(&[2, 32], Format::Blocks(blocks)) };
            let initializer = initializer(DType::Uint8, &[2, 16], source);
            let error = produced(&damaged, &recipe(blocks, method), &initializer).unwrap_err();
            assert!(matches!(&error, WriteError::NotFinite { row: 0, tensor, .. } if tensor == "w.weight"), "{error}");
        }
    }
}

#[test]
fn bfloat16_is_rounded_to_the_nearest_and_keeps_what_it_can_hold() {
    // The last of these are halfway between two, of which the even one is taken; what lies behind the largest number is refused.
    let (step, largest) = (2.0_f32.powi(-7), f32::from_bits(0x7f7f_0000));
    let given = [0.0, -2.5, 1e-40, largest, 1.0 + 0.49 * step, 1.0 + 0.51 * step, 1.0 + 0.5 * step, 1.0 + 1.5 * step];
    let stored = [0.0, -2.5, f32::from_bits(0x0001_0000), largest, 1.0, 1.0 + step, 1.0, 1.0 + 2.0 * step];
    let dense = |values: &[f32]| {
        let (_folder, checkpoint) = checkpoint(&[2, 4], values);
        let source = Source::Dense { weight: weight(&[2, 4], Format::Dense(DType::Bfloat16)) };
        produced(&checkpoint, &plain(), &initializer(DType::Bfloat16, &[2, 4], source))
    };
    let wide = |bytes: Vec<u8>| -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()).collect()
    };
    assert_eq!(wide(dense(&given).unwrap()), stored);
    assert_eq!(wide(dense(&stored).unwrap()), stored);
    let error = dense(&[0.0, 0.0, 0.0, 0.0, 0.0, f32::MAX, 0.0, 0.0]).unwrap_err();
    assert!(matches!(&error, WriteError::Overflow { row: 1, dtype: DType::Bfloat16, .. }), "{error}");
}

#[test]
fn values_beyond_a_float16_scale_are_refused_with_the_remedy() {
    let mut values = vec![1.0; 64];
    values[40] = 1e6;
    let (_folder, checkpoint) = checkpoint(&[2, 32], &values);
    for method in Method::ALL {
        let scales = |dtype| {
            let blocks = Blocks { bits: 4, block_size: 32, zero_points: false, scales: dtype };
            let source = Source::Scales { weight: weight(&[2, 32], Format::Blocks(blocks)) };
            produced(&checkpoint, &recipe(blocks, method), &initializer(dtype, &[2, 1], source))
        };
        scales(DType::Float32).unwrap();
        let error = scales(DType::Float16).unwrap_err();
        assert!(matches!(&error, WriteError::ScaleOverflow { row: 1, .. }), "{error}");
    }
}
