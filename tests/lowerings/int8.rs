//! Products of bytes, and caches of int8.

use super::*;

/// Bytes of the largest magnitudes and signs are where products of bytes overflow: the sums must be exact on every processor.
/// What is rounded is known here, so that nothing but float32 sums is left as a difference.
#[test]
fn products_of_bytes_are_exact() {
    for seed in SEEDS {
        for (rows, inputs, outputs) in [(1, 512, 32), (3, 512, 48), (64, 512, 64)] {
            let size = [1, rows, inputs];
            let mut random = Random::new(seed, CHANNELS);
            // Whole numbers of at most 127 with 127 among them in every row: quantizing changes nothing.
            let x = random.floats(&size, 1.0).floats().mapv(|value| if value < 0.0 { -127.0 } else { 127.0 });
            let feeds = Feeds::from([("x", Tensor::Floats(x))]);
            let numbers = Numbers { error: 1e-5, cosine: 0.999_999, ..CHANNELS };
            check(&format!("{rows} rows"), "contrib", numbers, seed, &feeds, &|dialect, at| {
                let x = input(at, "x", &size);
                let weight = at.within("projection", |at| at.weight(Role::Matrix, &[outputs, inputs]));
                output(at, "y", dialect.linear(at, x, &weight, None), &[1, rows, outputs]);
            });
        }
    }
}

/// The result for a token does not depend on what else is in the run, however large that is.
#[test]
fn tokens_are_quantized_alone() {
    let weights = weights(CHANNELS, 1);
    let [rows, inputs, outputs] = [4, 128, 32];
    let y = |x: ArrayD<f32>| {
        let size = x.shape().to_vec();
        let feeds = Feeds::from([("x", Tensor::Floats(x))]);
        let found = execute("contrib", weights, &feeds, &|dialect, at| {
            let weight = at.within("projection", |at| at.weight(Role::Matrix, &[outputs, inputs]));
            let x = input(at, "x", &size);
            output(at, "y", dialect.linear(at, x, &weight, None), &[1, size[1], outputs]);
        });
        Tensor::Floats(found["y"].clone())
    };
    let mut x = Random::new(1, CHANNELS).floats(&[1, rows, inputs], 1.0).floats().clone();
    x.slice_mut(ndarray::s![0, 1, ..]).mapv_inplace(|value| value * 1e6);
    x.slice_mut(ndarray::s![0, 2, ..]).fill(0.0);
    let all = y(x.clone());
    for row in 0..rows {
        let alone = y(Tensor::Floats(x.clone()).slice(1, row, row + 1).floats().clone());
        assert_eq!(all.slice(1, row, row + 1).floats(), alone.floats(), "row {row}");
    }
    assert!(all.slice(1, 2, 3).floats().iter().all(|value| *value == 0.0));
}

/// Caches of int8 against those of float32, from the first prompt to single tokens behind it. Scales fit the values, as those of
/// a calibration do: every channel's largest is 127 steps.
#[test]
fn quantized_caches() {
    let shapes = [(4, 2, 32), (6, 2, 64), (4, 4, 16)];
    for (seed, (heads, kv_heads, head_dim)) in SEEDS.flat_map(|seed| shapes.map(|shape| (seed, shape))) {
        let mut random = Random::new(seed, CACHES);
        let mut length = 0;
        let runs = [7, 1, 5, 1].map(|sequence| {
            let block = Attend { run: tokens(1, sequence, length), heads, kv_heads, head_dim };
            length += sequence;
            let feeds = block.feeds(&mut random);
            (block, feeds)
        });
        let weights = weights(CACHES, seed);
        let expected = exact_runs(weights, &runs);
        let largest = expected.last().unwrap();
        let scales = PRESENT.map(|name| channel_scales(&largest[name]));
        for name in ["contrib", "contrib-left"] {
            let empty = || Tensor::Bytes(ArrayD::zeros(IxDyn(&[1, kv_heads, 0, head_dim])));
            let mut kept = [empty(), empty()];
            for ((block, feeds), expected) in runs.iter().zip(&expected) {
                let mut feeds = feeds.clone();
                feeds.extend(PAST.into_iter().zip(kept.clone()));
                let scales_of = scales.clone();
                let graph = weights.graph().with_caches(move |name| {
                    let at = PRESENT.iter().position(|known| *known == name)?;
                    Some(scales_of[at].clone())
                });
                block.write(&*dialect(name), graph.root());
                verify(&graph.content()).unwrap();
                let found = run(&graph.content(), weights, &feeds);
                compare(&format!("{name}, {block:?}, seed {seed}"), CACHES, &found["context"], &expected["context"]);
                for (name, scales) in PRESENT.into_iter().zip(&scales) {
                    stored_to_half_a_step(name, &found[name], &expected[name], scales);
                }
                kept = PRESENT.map(|name| Tensor::Bytes(found[name].mapv(|number| number as i8)));
            }
        }
    }
}

const PAST: [&str; 2] = ["past_key", "past_value"];
const PRESENT: [&str; 2] = ["present_key", "present_value"];

/// What each run gives with caches of float32.
fn exact_runs(weights: Weights, runs: &[(Attend, Feeds)]) -> Vec<BTreeMap<String, ArrayD<f32>>> {
    let mut found: Vec<BTreeMap<String, ArrayD<f32>>> = Vec::new();
    for (block, feeds) in runs {
        let mut feeds = feeds.clone();
        if let Some(before) = found.last() {
            feeds.extend(PAST.into_iter().zip(PRESENT.map(|name| Tensor::Floats(before[name].clone()))));
        }
        found.push(reference(weights, &feeds, &|dialect, at| block.write(dialect, at)));
    }
    found
}

/// A 127th of the largest magnitude of each channel of `cache` `[1, kv_heads, rows, head_dim]`.
fn channel_scales(cache: &ArrayD<f32>) -> Vec<f32> {
    let heads = cache.index_axis(ndarray::Axis(0), 0);
    let largest = heads.map_axis(ndarray::Axis(1), |rows| rows.iter().fold(0.0_f32, |most, it| most.max(it.abs())));
    largest.iter().map(|most| most / 127.0).collect()
}

/// Rounding moves a number by half of its channel's step, whatever else is stored.
fn stored_to_half_a_step(name: &str, stored: &ArrayD<f32>, expected: &ArrayD<f32>, scales: &[f32]) {
    let head_dim = *expected.shape().last().unwrap();
    for (at, expected) in expected.indexed_iter() {
        let scale = scales[at[1] * head_dim + at[3]];
        // Beside the rounding, the fused and the decomposed norm differ in their last bits.
        let distance = (stored[&at] * scale - expected).abs();
        assert!(distance <= 0.501 * scale, "{name} at {at:?}: {distance} from {expected}, the step is {scale}");
    }
}
