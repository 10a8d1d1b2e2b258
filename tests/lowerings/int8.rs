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
                let found = stored_as_int8(name, weights, *block, feeds, kept.clone(), &scales);
                compare(&format!("{name}, {block:?}, seed {seed}"), CACHES, &found["context"], &expected["context"]);
                for (name, scales) in PRESENT.into_iter().zip(&scales) {
                    stored_to_half_a_step(name, &found[name], &expected[name], scales);
                }
                kept = PRESENT.map(|name| Tensor::Bytes(found[name].mapv(|number| number as i8)));
            }
        }
    }
}

/// Keys and values beyond the largest that a calibration saw are stored as the largest, with their sign, and the answer is what
/// float32 caches with these numbers give: nothing wraps around.
#[test]
fn numbers_out_of_range_are_clipped() {
    let shapes = [(4, 2, 32), (6, 2, 64), (4, 4, 16)];
    for (seed, (heads, kv_heads, head_dim)) in SEEDS.flat_map(|seed| shapes.map(|shape| (seed, shape))) {
        let mut random = Random::new(seed, CACHES);
        let [(prompt, prompt_feeds), (token, token_feeds)] = [(7, 0), (1, 7)].map(|(sequence, past)| {
            let block = Attend { run: tokens(1, sequence, past), heads, kv_heads, head_dim };
            (block, block.feeds(&mut random))
        });
        let weights = weights(CACHES, seed);
        let exact = exact_runs(weights, &[(prompt, prompt_feeds.clone()), (token, token_feeds.clone())]);
        // The last token is within the range, so that no more than the past is clipped, which a graph of float32 can be given.
        // Some channels of it are near 0: there the range is a tenth of what would be needed.
        let scales = PRESENT.map(|name| {
            let (all, last) = (&exact[1][name], exact[1][name].slice_axis(ndarray::Axis(2), (7..).into()).to_owned());
            let largest = channel_scales(all).into_iter().zip(channel_scales(&last));
            largest.map(|(all, last)| (0.1 * all).max(1.001 * last)).collect::<Vec<f32>>()
        });
        for name in ["contrib", "contrib-left"] {
            let empty = || Tensor::Bytes(ArrayD::zeros(IxDyn(&[1, kv_heads, 0, head_dim])));
            let found = stored_as_int8(name, weights, prompt, &prompt_feeds, [empty(), empty()], &scales);
            assert!(found["context"].iter().all(|value| value.is_finite()), "{name}, seed {seed}");
            for (name, scales) in PRESENT.into_iter().zip(&scales) {
                let (clipped, below, above) = clipped(&exact[0][name], scales);
                assert!(below > 10 && above > 10, "{name}, seed {seed}: {below} below and {above} above the range");
                stored_to_half_a_step(name, &found[name], &clipped, scales);
            }
            let bytes = PRESENT.map(|name| Tensor::Bytes(found[name].mapv(|number| number as i8)));
            let answer = stored_as_int8(name, weights, token, &token_feeds, bytes, &scales);
            let mut feeds = token_feeds.clone();
            let floats =
                PRESENT.into_iter().zip(&scales).map(|(name, scales)| Tensor::Floats(read(&found[name], scales)));
            feeds.extend(PAST.into_iter().zip(floats));
            let expected = reference(weights, &feeds, &|dialect, at| token.write(dialect, at));
            compare(&format!("{name}, {token:?}, seed {seed}"), CACHES, &answer["context"], &expected["context"]);
        }
    }
}

/// Runs the block with caches of int8: `past` before, and one scale for each channel of keys and of values.
fn stored_as_int8(
    name: &str,
    weights: Weights,
    block: Attend,
    feeds: &Feeds,
    past: [Tensor; 2],
    scales: &[Vec<f32>; 2],
) -> BTreeMap<String, ArrayD<f32>> {
    let mut feeds = feeds.clone();
    feeds.extend(PAST.into_iter().zip(past));
    let scales = scales.clone();
    let graph = weights.graph().with_caches(move |name| {
        let at = PRESENT.iter().position(|known| *known == name)?;
        Some(scales[at].clone())
    });
    block.write(&*dialect(name), graph.root());
    verify(&graph.content()).unwrap();
    run(&graph.content(), weights, &feeds)
}

/// A cache `[1, kv_heads, rows, head_dim]` with every number within -128 to 127 steps of its channel, and how many were below and above.
fn clipped(cache: &ArrayD<f32>, scales: &[f32]) -> (ArrayD<f32>, usize, usize) {
    let (mut within, mut below, mut above) = (cache.clone(), 0, 0);
    let head_dim = *cache.shape().last().unwrap();
    for (at, value) in within.indexed_iter_mut() {
        let scale = scales[at[1] * head_dim + at[3]];
        // Numbers that round to the outermost step are within.
        below += usize::from(*value < -129.0 * scale);
        above += usize::from(*value > 128.0 * scale);
        *value = value.clamp(-128.0 * scale, 127.0 * scale);
    }
    (within, below, above)
}

/// What the numbers of a cache of int8 stand for.
fn read(stored: &ArrayD<f32>, scales: &[f32]) -> ArrayD<f32> {
    let head_dim = *stored.shape().last().unwrap();
    let mut values = stored.clone();
    values.indexed_iter_mut().for_each(|(at, value)| *value *= scales[at[1] * head_dim + at[3]]);
    values
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
