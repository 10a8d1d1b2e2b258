//! Small models and the number formats that they come in.

use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::Padding;
use lfm2_graphs::dialect::{Contrib, ContribGpu, Dialect, Fixed, FixedFor, Portable};
use lfm2_graphs::ir::{DType, Graph};
use lfm2_graphs::lfm2::{Config, Mixer};

/// A model of two layers, one of each kind, whose sizes all differ so that none can stand for another by mistake. The blocks of
/// every preset divide them.
pub fn config() -> Config {
    Config {
        vocab_size: 96,
        hidden_size: 256,
        feed_forward_size: 384,
        layers: vec![Mixer::ShortConv, Mixer::Attention],
        heads: 8,
        kv_heads: 2,
        head_dim: 16,
        conv_width: 3,
        conv_bias: false,
        norm_epsilon: 1e-5,
        rope_theta: 1e6,
        tied: true,
        context_length: 128,
    }
}

/// The dialect as it is named in goldens: `contrib`, `contrib-left`, `contrib-gpu`, `contrib-gpu-bf16`, `portable`, or a static one, which is for
/// chunks of 4 tokens behind 8, or with `-token` for single ones.
///
/// # Panics
/// If there is no such dialect.
pub fn dialect(name: &str) -> Box<dyn Dialect> {
    match name {
        "contrib" => Box::new(Contrib { padding: Padding::None }),
        "contrib-left" => Box::new(Contrib { padding: Padding::Left }),
        "contrib-gpu" => Box::new(ContribGpu::new(Padding::None, DType::Float16)),
        "contrib-gpu-bf16" => Box::new(ContribGpu::new(Padding::None, DType::Bfloat16)),
        "portable" => Box::new(Portable),
        "coreml" => Box::new(Fixed::new(FixedFor::Coreml, 4, 8, false)),
        "nnapi" => Box::new(Fixed::new(FixedFor::Nnapi, 4, 8, false)),
        "qnn" => Box::new(Fixed::new(FixedFor::Qnn, 4, 8, false)),
        "coreml-token" => Box::new(Fixed::new(FixedFor::Coreml, 1, 8, true)),
        "nnapi-token" => Box::new(Fixed::new(FixedFor::Nnapi, 1, 8, true)),
        "qnn-token" => Box::new(Fixed::new(FixedFor::Qnn, 1, 8, true)),
        _ => panic!("there is no dialect {name}"),
    }
}

/// An empty graph whose weights and activations have the formats of a precision.
pub fn graph(precision: Precision) -> Graph<'static> {
    let recipe = precision.recipe().unwrap();
    Graph::new(recipe.activations, move |name, role, _| recipe.format(name, role))
}
