//! Quantizing a projection of LFM2-350M, with every method, in the formats of the presets. One thread; in values per second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lfm2_export::quantize::{Method, Quantized, quantize};
use lfm2_graphs::ir::{Blocks, DType};

const COLUMNS: usize = 1024;
const ROWS: usize = 256;

fn quantizers(criterion: &mut Criterion) {
    let values = weights(ROWS * COLUMNS);
    let importance: Vec<f32> = (0..COLUMNS).map(|i| 0.1 + (i % 7) as f32).collect();
    let mut group = criterion.benchmark_group("quantize");
    group.throughput(Throughput::Elements(values.len() as u64));
    for (bits, block_size, zero_points) in
        [(4, 32, false), (4, 32, true), (4, 128, false), (8, 32, false), (8, 128, true)]
    {
        let blocks = Blocks { bits, block_size, zero_points, scales: DType::Float32 };
        let kind = if zero_points { "with zero points" } else { "symmetric" };
        for method in Method::ALL {
            let name = format!("{bits} bits, blocks of {block_size}, {kind}");
            let mut out = Quantized::default();
            group.bench_function(BenchmarkId::new(method.as_str(), name), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    quantize(blocks, method, COLUMNS, Some(&importance), &values, &mut out);
                });
            });
        }
    }
    group.finish();
}

/// Numbers distributed about like weights: a bell curve, from a fixed linear congruential generator.
fn weights(count: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    (0..count).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * 0.02).collect()
}

criterion_group!(benches, quantizers);
criterion_main!(benches);
