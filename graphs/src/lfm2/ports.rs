//! Names, types and shapes of the graph's ports: the names that transformers.js and onnxruntime-genai know.

use super::{Config, Extras, Mixer};
use crate::contract::{AttentionInputs, IdInputs, Outputs, Port, RowInputs, State, StateKind, Update};
use crate::dialect::Window;
use crate::ir::graph::port;
use crate::ir::{DType, Dim};

/// The inputs of graphs that take token ids, other than states.
pub(super) fn ids() -> IdInputs {
    let per_token = |length: &str| vec![Dim::symbol("batch_size"), Dim::symbol(length)];
    IdInputs {
        input_ids: port("input_ids", DType::Int64, per_token("sequence_length")),
        attention_mask: port("attention_mask", DType::Int64, per_token("total_sequence_length")),
        num_logits_to_keep: port("num_logits_to_keep", DType::Int64, vec![]),
    }
}

/// Name of the input that takes rows of the table.
pub const EMBEDDINGS: &str = "inputs_embeds";

/// The inputs of graphs that take rows of the table, other than states.
pub(super) fn rows(config: &Config, dtype: DType, window: Window) -> RowInputs {
    let Window { tokens, past, hidden, .. } = window;
    let per_token = |name, columns: usize| port(name, dtype, [1, tokens, columns].map(Dim::Fixed).to_vec());
    let attention = || AttentionInputs {
        cosines: per_token("cosines", config.head_dim / 2),
        sines: per_token("sines", config.head_dim / 2),
        bias: per_token("attention_bias", past + tokens),
        hidden,
    };
    RowInputs {
        tokens,
        past,
        embeddings: port(
            EMBEDDINGS,
            dtype,
            window.matrix(tokens, config.hidden_size).into_iter().map(Dim::Fixed).collect(),
        ),
        attention: config.has_attention().then(attention),
    }
}

/// The outputs other than states. The middle dimension of the logits is declared as what the default keeps, because
/// onnxruntime-genai sizes its buffer by it.
pub(super) fn outputs(config: &Config, window: Option<Window>) -> Outputs {
    let shape = match window {
        None => Some(vec![Dim::symbol("batch_size"), Dim::Fixed(1), Dim::Fixed(config.vocab_size)]),
        Some(window) => {
            window.logits.then(|| window.matrix(window.tokens, config.vocab_size).into_iter().map(Dim::Fixed).collect())
        }
    };
    Outputs { logits: shape.map(|shape| port("logits", DType::Float32, shape)), statistics: vec![], ranges: None }
}

/// The states of layer `layer` in a static graph: what the host keeps of the past, and what a run adds to it.
pub(super) fn fixed_states(config: &Config, layer: usize, mixer: Mixer, dtype: DType, window: Window) -> Vec<State> {
    let Window { tokens, past, .. } = window;
    let state = |kind, axis, [taken, given]: [String; 2], [taken_shape, given_shape]: [Vec<Dim>; 2]| State {
        layer,
        kind,
        update: Update::ByHost,
        past: port(taken, dtype, taken_shape),
        present: port(given, dtype, given_shape),
        scale: None,
        axis,
        columns: None,
    };
    match mixer {
        Mixer::ShortConv => {
            let shape =
                |columns: usize| window.matrix(columns, config.hidden_size).into_iter().map(Dim::Fixed).collect();
            let names = [format!("past_conv.{layer}"), format!("new_conv.{layer}")];
            vec![state(StateKind::Conv, window.axis(), names, [config.conv_width - 1, tokens].map(shape))]
        }
        Mixer::Attention => {
            let [heads, width] = [config.kv_heads, config.head_dim];
            let names = |name| [format!("past_key_values.{layer}.{name}"), format!("new.{layer}.{name}")];
            let keys = [past, tokens].map(|rows| [heads, width, rows].map(Dim::Fixed).to_vec());
            let values = [past, tokens].map(|rows| [heads, rows, width].map(Dim::Fixed).to_vec());
            vec![state(StateKind::Key, 2, names("key"), keys), state(StateKind::Value, 1, names("value"), values)]
        }
    }
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
                scale: None,
                axis: 2,
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
                scale: None,
                axis: 2,
                columns: None,
            })
            .into(),
    }
}

fn cache(config: &Config, name: String, dtype: DType, length: &str) -> Port {
    let shape = vec![Dim::symbol("batch_size"), config.kv_heads.into(), Dim::symbol(length), config.head_dim.into()];
    port(name, dtype, shape)
}
