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

/// Caches of int8 against those of float32, from the first prompt to single tokens behind it.
#[test]
fn quantized_caches() {
    let shapes = [(4, 2, 32), (6, 2, 64), (4, 4, 16)];
    for (seed, (heads, kv_heads, head_dim)) in SEEDS.flat_map(|seed| shapes.map(|shape| (seed, shape))) {
        for name in ["contrib", "contrib-left"] {
            let mut random = Random::new(seed, CACHES);
            let (mut past, mut kept): (Option<[Tensor; 2]>, Option<[Tensor; 2]>) = (None, None);
            let mut length = 0;
            for sequence in [7, 1, 5, 1] {
                let block = Attend { run: tokens(1, sequence, length), heads, kv_heads, head_dim };
                let mut feeds = block.feeds(&mut random);
                let mut expected = feeds.clone();
                for (i, cache) in ["past_key", "past_value"].into_iter().enumerate() {
                    if let (Some(past), Some(kept)) = (&past, &kept) {
                        expected.insert(cache, past[i].clone());
                        feeds.insert(cache, kept[i].clone());
                    } else {
                        let empty = ArrayD::zeros(IxDyn(&[1, kv_heads, 0, head_dim]));
                        feeds.insert(cache, Tensor::Bytes(empty));
                    }
                }
                let weights = weights(CACHES, seed);
                let expected = reference(weights, &expected, &|dialect, at| block.write(dialect, at));
                // A norm leaves rows of length sqrt(head_dim), times scales of at most 1.5, in unknown directions.
                let scales = vec![4.0 / 127.0; kv_heads * head_dim];
                let graph = weights.graph().with_caches(move |_| Some(scales.clone()));
                block.write(&*dialect(name), graph.root());
                verify(&graph.content()).unwrap();
                let found = run(&graph.content(), weights, &feeds);
                compare(&format!("{name}, {block:?}, seed {seed}"), CACHES, &found["context"], &expected["context"]);
                let cache = |outputs: &BTreeMap<String, ArrayD<f32>>, name: &str| outputs[name].clone();
                for name in ["present_key", "present_value"] {
                    let stored = cache(&found, name).mapv(|number| number * 4.0 / 127.0);
                    compare(&format!("{name}, seed {seed}"), CACHES, &stored, &expected[name]);
                }
                past = Some(["present_key", "present_value"].map(|name| Tensor::Floats(cache(&expected, name))));
                kept = Some(
                    ["present_key", "present_value"].map(|name| Tensor::Bytes(cache(&found, name).mapv(|it| it as i8))),
                );
                length += sequence;
            }
        }
    }
}
