//! Names, types and shapes of the graph's ports: the names that transformers.js and onnxruntime-genai know.

use super::{Config, Extras, Mixer};
use crate::contract::{Inputs, Outputs, Port, State, StateKind, Update};
use crate::ir::graph::port;
use crate::ir::{DType, Dim};

/// The inputs other than states.
pub(super) fn inputs() -> Inputs {
    let per_token = |length: &str| vec![Dim::symbol("batch_size"), Dim::symbol(length)];
    Inputs {
        input_ids: port("input_ids", DType::Int64, per_token("sequence_length")),
        attention_mask: port("attention_mask", DType::Int64, per_token("total_sequence_length")),
        num_logits_to_keep: port("num_logits_to_keep", DType::Int64, vec![]),
    }
}

/// The outputs other than states. The middle dimension of the logits is declared as what the default keeps, because
/// onnxruntime-genai sizes its buffer by it.
pub(super) fn outputs(config: &Config) -> Outputs {
    let shape = vec![Dim::symbol("batch_size"), Dim::Fixed(1), Dim::Fixed(config.vocab_size)];
    Outputs { logits: port("logits", DType::Float32, shape), statistics: vec![] }
}

/// The states of layer `layer`: one of a convolution, keys and values of an attention.
pub(super) fn states(
    config: &Config,
    layer: usize,
    mixer: Mixer,
    dtype: DType,
    update: Update,
    extras: Extras,
) -> Vec<State> {
    match mixer {
        Mixer::ShortConv => {
            let shape = vec![Dim::symbol("batch_size"), config.hidden_size.into(), (config.conv_width - 1).into()];
            let columns = vec![Dim::symbol("batch_size"), Dim::symbol("sequence_length"), config.hidden_size.into()];
            vec![State {
                layer,
                kind: StateKind::Conv,
                // The convolution's state has a fixed size whatever happens to the caches.
                update: Update::InPlace,
                past: port(format!("past_conv.{layer}"), dtype, shape.clone()),
                present: port(format!("present_conv.{layer}"), dtype, shape),
                columns: extras.rollback.then(|| port(format!("conv_columns.{layer}"), dtype, columns)),
            }]
        }
        Mixer::Attention => [(StateKind::Key, "key"), (StateKind::Value, "value")]
            .map(|(kind, name)| State {
                layer,
                kind,
                update,
                past: cache(config, format!("past_key_values.{layer}.{name}"), dtype, "past_sequence_length"),
                present: cache(config, format!("present.{layer}.{name}"), dtype, "total_sequence_length"),
                columns: None,
            })
            .into(),
    }
}

fn cache(config: &Config, name: String, dtype: DType, length: &str) -> Port {
    let shape = vec![Dim::symbol("batch_size"), config.kv_heads.into(), Dim::symbol(length), config.head_dim.into()];
    port(name, dtype, shape)
}
