use lfm2_graphs::format::unpack_row;
use lfm2_graphs::ir::DType;
use proptest::prelude::*;

use super::*;

fn quantized(blocks: Blocks, method: Method, importance: Option<&[f32]>, values: &[f32]) -> Vec<f32> {
    let mut out = Quantized::default();
    quantize(blocks, method, values.len(), importance, values, &mut out);
    assert_eq!(out.packed.len(), values.len() * blocks.bits / 8);
    assert_eq!(out.scales.len(), values.len() / blocks.block_size);
    assert_eq!(out.zero_points.len(), blocks.zero_point_bytes(values.len()));
    let mut row = vec![0.0; values.len()];
    unpack_row(blocks, &out.packed, &out.scales, &out.zero_points, &mut row);
    row
}

/// Every number format that a recipe can ask for.
fn formats() -> impl Iterator<Item = Blocks> {
    let scales = [DType::Float32, DType::Float16];
    [4, 8].into_iter().flat_map(move |bits| {
        [16, 32, 64, 128, 256].into_iter().flat_map(move |block_size| {
            [false, true].into_iter().flat_map(move |zero_points| {
                scales.into_iter().map(move |scales| Blocks { bits, block_size, zero_points, scales })
            })
        })
    })
}

fn any_format() -> impl Strategy<Value = Blocks> {
    prop::sample::select(formats().collect::<Vec<_>>())
}

/// Rows of two blocks of the largest size, mostly like weights, with outliers.
fn any_row() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![8 => -1.0_f32..1.0, 1 => -8.0_f32..8.0, 1 => Just(0.0)];
    (prop::collection::vec(value, 512), prop::sample::select(vec![1e-3_f32, 1.0, 100.0]))
        .prop_map(|(values, magnitude)| values.into_iter().map(|value| value * magnitude).collect())
}

/// The measure of the search, written as its documentation says it.
fn measure(blocks: Blocks, importance: Option<&[f32]>, values: &[f32], found: &[f32]) -> Vec<f64> {
    let size = blocks.block_size;
    let block = |at: usize| {
        let values = &values[at..at + size];
        let mean = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / size as f64;
        let error = |i: usize| {
            let weight =
                (mean + f64::from(values[i]).powi(2)).sqrt() * importance.map_or(1.0, |it| f64::from(it[at + i]));
            weight * f64::from(values[i] - found[at + i]).powi(2)
        };
        (0..size).map(error).sum()
    };
    (0..values.len()).step_by(size).map(block).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Rounding is off by half a step. At the end opposite to the extreme of a symmetric block there is one step less: there it may
    /// be a whole step.
    #[test]
    fn rounding_is_off_by_a_step_at_most(blocks in any_format(), values in any_row()) {
        let found = quantized(blocks, Method::Round, None, &values);
        for (values, found) in values.chunks(blocks.block_size).zip(found.chunks(blocks.block_size)) {
            let (least, most) = rounding::extremes(values);
            let largest = block::largest(blocks);
            let zero = f32::from(blocks.zero_point());
            let step = if blocks.zero_points { (most - least) / largest } else { most.max(-least) / zero };
            for (value, found) in values.iter().zip(found) {
                let at_an_end = !blocks.zero_points && value.abs() > step * (zero - 1.0);
                // The stored scale is off by half a unit of float16, at most that of its smallest numbers, and numbers go up to 255.
                let rounding = if blocks.scales == DType::Float16 { step * 2.0_f32.powi(-11) + 2.0_f32.powi(-25) } else { step * 1e-6 };
                let bound = if at_an_end { 1.0 } else { 0.5 } * step + rounding * largest;
                prop_assert!((value - found).abs() <= bound * 1.0001, "{value} became {found}, step {step}");
            }
        }
    }

    /// What has been quantized is representable, and stays as it is, where the numbers take up their whole range: else the steps
    /// are finer the second time. The last bits of a scale may be lost, because it is computed anew from its multiples.
    #[test]
    fn quantizing_the_quantized_changes_nothing(blocks in any_format(), values in any_row()) {
        let mut first = Quantized::default();
        quantize(blocks, Method::Round, values.len(), None, &values, &mut first);
        let found = quantized(blocks, Method::Round, None, &values);
        let again = quantized(blocks, Method::Round, None, &found);
        let pairs = found.chunks(blocks.block_size).zip(again.chunks(blocks.block_size));
        for ((found, again), packed) in pairs.zip(first.packed.chunks(blocks.bytes_per_block())) {
            let numbers: Vec<u8> =
                if blocks.bits == 8 { packed.to_vec() } else { packed.iter().flat_map(|it| [it & 15, it >> 4]).collect() };
            let is_full = numbers.contains(&0) && (!blocks.zero_points || numbers.contains(&(block::largest(blocks) as u8)));
            let largest = found.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            for (a, b) in found.iter().zip(again) {
                prop_assert!(!is_full || (a - b).abs() <= 1e-6 * largest, "{a} became {b}");
            }
        }
    }

    /// In its own measure the search is at least as good in every block as rounding; the last digits of two sums may differ.
    #[test]
    fn the_search_is_never_worse_than_rounding(
        blocks in any_format(),
        values in any_row(),
        importance in prop::option::of(prop::collection::vec(1e-5_f32..10.0, 512)),
    ) {
        let importance = importance.as_deref();
        let rounded = measure(blocks, importance, &values, &quantized(blocks, Method::Round, importance, &values));
        let searched = measure(blocks, importance, &values, &quantized(blocks, Method::Search, importance, &values));
        for (searched, rounded) in searched.iter().zip(rounded) {
            prop_assert!(*searched <= rounded * (1.0 + 1e-4) + 1e-12, "{searched} > {rounded}");
        }
    }

    /// Whatever lies in a block, the result is finite, or infinite where a scale is too large for float16.
    #[test]
    fn any_finite_numbers_can_be_quantized(blocks in any_format(), bits in prop::collection::vec(any::<u32>(), 256)) {
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).map(|it| if it.is_finite() { it } else { 0.0 }).collect();
        for method in Method::ALL {
            let mut out = Quantized::default();
            quantize(blocks, method, values.len(), None, &values, &mut out);
            // Scales of float16 are refused by name when they are written, if they are too large for it.
            let finite = |scale: &f32| scale.is_finite() || (blocks.scales == DType::Float16 && scale.is_infinite());
            prop_assert!(out.scales.iter().all(finite), "{:?}", out.scales);
        }
    }
}

#[test]
fn the_search_finds_better_steps() {
    let values: Vec<f32> = (0..256).map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0).powi(3)).collect();
    for blocks in formats().filter(|blocks| blocks.bits == 4 && blocks.block_size <= 64) {
        let total =
            |method| -> f64 { measure(blocks, None, &values, &quantized(blocks, method, None, &values)).iter().sum() };
        let [rounded, searched] = Method::ALL.map(total);
        assert!(searched < 0.97 * rounded, "{blocks:?}: {searched} of {rounded}");
    }
}

#[test]
fn important_columns_are_met_more_closely() {
    let values: Vec<f32> = (0..32).map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0) * 0.9).collect();
    let importance: Vec<f32> = (0..32).map(|i| if i == 5 { 1e4 } else { 1.0 }).collect();
    let blocks = Blocks { bits: 4, block_size: 32, zero_points: false, scales: DType::Float32 };
    let off = |importance| (quantized(blocks, Method::Search, importance, &values)[5] - values[5]).abs();
    assert!(off(Some(&importance)) < 0.3 * off(None), "{} and {}", off(Some(&importance)), off(None));
}

#[test]
fn extremes_zeros_and_small_numbers() {
    for method in Method::ALL {
        for zero_points in [false, true] {
            let blocks = |scales| Blocks { bits: 4, block_size: 32, zero_points, scales };
            let quantized = |scales, values: &[f32]| quantized(blocks(scales), method, None, values);
            let mut values = vec![0.0; 64];
            assert_eq!(quantized(DType::Float32, &values), values, "zeros stay zeros");
            values[3] = -4.0;
            values[40] = 4.0;
            let found = quantized(DType::Float32, &values);
            let off = found.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off <= 1e-6, "alone in a block, both signs are met: {found:?}");
            values[3] = 1e-30;
            values[40] = 0.0;
            let found = quantized(DType::Float16, &values);
            assert!(found.iter().all(|value| *value == 0.0), "what float16 scales cannot hold becomes zero");
            values[3] = 1e-40;
            let found = quantized(DType::Float32, &values);
            assert!(
                found.iter().all(|value| value.abs() <= 1e-37),
                "nor can float32 scales hold everything: {found:?}"
            );
        }
    }
}

#[test]
fn all_rows_begin_with_a_whole_byte() {
    let blocks = Blocks { bits: 4, block_size: 16, zero_points: true, scales: DType::Float32 };
    // Three blocks in a row: their zero points take a byte and a half, and the middle fills the other half.
    let row: Vec<f32> = (0..48).map(|i| (i % 16) as f32 - 3.0 * (i / 16) as f32).collect();
    let (mut one, mut two) = (Quantized::default(), Quantized::default());
    quantize(blocks, Method::Round, 48, None, &row, &mut one);
    assert_eq!(one.zero_points, [0x30, 0x86]);
    quantize(blocks, Method::Round, 48, None, &[row.clone(), row].concat(), &mut two);
    assert_eq!(two.zero_points, [one.zero_points.clone(), one.zero_points].concat());
}
