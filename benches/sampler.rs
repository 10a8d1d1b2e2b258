//! Sampling from the 65,536 logits of LFM2, with the settings that it is used with and with unfavourable ones.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lfm2_host::sampler::{Sampler, SamplingSettings};
use ndarray::aview1;

const VOCAB_SIZE: usize = 65_536;
const LFM2: SamplingSettings =
    SamplingSettings { temperature: 0.3, top_k: 0, top_p: 1.0, min_p: 0.15, repetition_penalty: 1.05, seed: 1 };
const LFM2_5: SamplingSettings =
    SamplingSettings { temperature: 0.1, top_k: 50, top_p: 0.1, min_p: 0.0, repetition_penalty: 1.05, seed: 1 };

fn sampler(criterion: &mut Criterion) {
    let peaked = bell(VOCAB_SIZE, 2.0);
    let flat = bell(VOCAB_SIZE, 0.01);
    let cases = [
        ("lfm2", LFM2, &peaked),
        ("lfm2.5", LFM2_5, &peaked),
        ("greedy", SamplingSettings { temperature: 0.0, ..LFM2 }, &peaked),
        ("flat with top-p", SamplingSettings { temperature: 1.0, min_p: 0.0, top_p: 0.9, ..LFM2 }, &flat),
    ];
    let mut group = criterion.benchmark_group("sample 65536 logits");
    for (name, settings, logits) in cases {
        let Ok(mut sampler) = Sampler::new(settings, VOCAB_SIZE) else { continue };
        (0..2000).for_each(|token| sampler.observe(token * 31));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| sampler.sample(aview1(logits)));
        });
    }
    group.finish();
}

/// Numbers distributed about like the logits of a model: a bell curve, from a fixed linear congruential generator.
fn bell(count: usize, width: f32) -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    (0..count).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * width).collect()
}

criterion_group!(benches, sampler);
criterion_main!(benches);
