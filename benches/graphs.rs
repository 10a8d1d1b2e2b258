//! Building the graph of LFM2-350M, without its weights.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::Padding;
use lfm2_graphs::dialect::{Contrib, Dialect, Portable};
use lfm2_graphs::ir::Graph;
use lfm2_graphs::lfm2::{Config, Extras, Mixer, build};

fn graphs(criterion: &mut Criterion) {
    let config = lfm2_350m();
    let contrib = Contrib { padding: Padding::None };
    let cases: [(&dyn Dialect, Precision); 3] =
        [(&contrib, Precision::Q4), (&contrib, Precision::Fp32), (&Portable, Precision::Fp32)];
    let mut group = criterion.benchmark_group("build the graph of 350M");
    for (dialect, precision) in cases {
        let Ok(recipe) = precision.recipe() else { continue };
        group.bench_function(BenchmarkId::new(dialect.name(), precision), |bencher| {
            bencher.iter(|| {
                let graph = Graph::new(recipe.activations, |name, role, _| recipe.format(name, role));
                build(&config, dialect, Extras::default(), &graph).is_ok()
            });
        });
    }
    group.finish();
}

fn lfm2_350m() -> Config {
    let attention = [2, 5, 8, 10, 12, 14];
    let mixer = |layer| if attention.contains(&layer) { Mixer::Attention } else { Mixer::ShortConv };
    Config {
        vocab_size: 65_536,
        hidden_size: 1024,
        feed_forward_size: 4608,
        layers: (0..16).map(mixer).collect(),
        heads: 16,
        kv_heads: 8,
        head_dim: 64,
        conv_width: 3,
        conv_bias: false,
        norm_epsilon: 1e-5,
        rope_theta: 1e6,
        tied: true,
        context_length: 128_000,
    }
}

criterion_group!(benches, graphs);
criterion_main!(benches);
