//! `genai_config.json`, with which onnxruntime-genai finds its way around the graph.

use std::fs;

use lfm2_graphs::contract::{Contract, MANIFEST_NAME, Manifest, Port, Purpose, State, StateKind, Update, preference};
use serde_json::{Map, Value, json as value};

use super::model::one_or_many;
use super::{Problems, Request, Sidecar, SidecarError, existing, json};

const FILE: &str = "genai_config.json";

/// Longest conversation by default. onnxruntime-genai allocates the caches for all of it at once.
const MAX_LENGTH: usize = 4096;

/// The sampling settings that a checkpoint's generation settings have in common with onnxruntime-genai.
const SEARCH_KEYS: [&str; 5] = ["do_sample", "temperature", "top_k", "top_p", "repetition_penalty"];

/// The config for this graph, or the one that is there already if it is for a graph to be preferred. None if no graph of the
/// package is for running.
pub(super) fn config(
    request: &Request<'_>,
    ends: &[u32],
    problems: &mut Problems,
) -> Result<Option<Sidecar>, SidecarError> {
    let is_model = request.contract.purpose == Purpose::General;
    let present = existing(&request.destination.join(FILE))?;
    if let Some(present) =
        present.filter(|present| if is_model { keeps(request, present) } else { is_for_another(request, present) })
    {
        return Ok(Some(json(FILE, &Value::Object(present))));
    }
    if !is_model {
        return Ok(None);
    }
    let contract = request.contract;
    let mut inputs = Map::new();
    let ids = contract.ids()?;
    inputs.insert("input_ids".to_owned(), value!(ids.input_ids.name));
    inputs.insert("attention_mask".to_owned(), value!(ids.attention_mask.name));
    let mut outputs = Map::new();
    outputs.insert("logits".to_owned(), value!(contract.logits()?.name));
    for (kind, name) in [(StateKind::Key, "key"), (StateKind::Value, "value"), (StateKind::Conv, "conv")] {
        if let Some(pattern) = pattern(contract, kind, |state| &state.past)? {
            inputs.insert(format!("past_{name}_names"), value!(pattern));
        }
        if let Some(pattern) = pattern(contract, kind, |state| &state.present)? {
            outputs.insert(format!("present_{name}_names"), value!(pattern));
        }
    }

    let model = request.model;
    let graph = &model.graph;
    let mut described = value!({
        "context_length": contract.context_length,
        "decoder": {
            "session_options": { "log_id": "onnxruntime-genai", "provider_options": [] },
            "filename": request.graph,
            "head_size": graph.head_dim,
            "hidden_size": graph.hidden_size,
            "inputs": inputs,
            "outputs": outputs,
            "num_attention_heads": graph.heads,
            "num_hidden_layers": graph.layers.len(),
            "num_key_value_heads": graph.kv_heads,
            "layer_types": model.layer_types(),
            "conv_cache_size": graph.conv_width - 1,
        },
        "eos_token_id": one_or_many(ends),
        // Without a token for padding, the first one that ends an answer does, as in onnxruntime-genai's own exporter.
        "pad_token_id": model.pad.or(ends.first().copied()),
        "type": contract.family,
        "vocab_size": graph.vocab_size,
    });
    if let Some(bos) = model.bos {
        described["bos_token_id"] = value!(bos);
    }
    Ok(Some(json(FILE, &value!({ "model": described, "search": search(request, problems) }))))
}

fn search(request: &Request<'_>, problems: &mut Problems) -> Value {
    let contract = request.contract;
    let shares = contract.states.iter().all(|state| !state.kind.grows() || state.update == Update::InPlace);
    let mut search = value!({
        "diversity_penalty": 0.0,
        "do_sample": false,
        "early_stopping": true,
        "length_penalty": 1.0,
        "max_length": contract.context_length.min(MAX_LENGTH),
        "min_length": 0,
        "no_repeat_ngram_size": 0,
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": shares,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
    });
    // A damaged file has been reported with the generation settings themselves.
    let before = problems.0.len();
    let settings = problems.object(request.source, "generation_config.json").unwrap_or_default();
    problems.0.truncate(before);
    for key in SEARCH_KEYS {
        // An unknown type would keep onnxruntime-genai from reading the whole file.
        if let Some(setting) = settings.get(key)
            && (setting.is_number() && search[key].is_number() || setting.is_boolean() && search[key].is_boolean())
        {
            search[key] = setting.clone();
        }
    }
    search
}

/// The names of all states of one kind, with `%d` in the place of the layer. `None` if there are no such states.
fn pattern(
    contract: &Contract,
    kind: StateKind,
    port: impl Fn(&State) -> &Port,
) -> Result<Option<String>, SidecarError> {
    let states = contract.states.iter().filter(|state| state.kind == kind);
    let mut patterns: Vec<String> = states
        .map(|state| {
            let layer = state.layer.to_string();
            let parts = port(state).name.split('.').map(|part| if part == layer { "%d" } else { part });
            parts.collect::<Vec<_>>().join(".")
        })
        .collect();
    patterns.sort_unstable();
    patterns.dedup();
    match patterns.as_slice() {
        [] => Ok(None),
        [pattern] => Ok(Some(pattern.clone())),
        _ => Err(SidecarError::Names { names: patterns }),
    }
}

/// The graph that a config is for.
fn filename(config: &Map<String, Value>) -> Option<&str> {
    config.get("model")?.get("decoder")?.get("filename")?.as_str()
}

/// Whether the config that is there is for another graph, which is there as well.
fn is_for_another(request: &Request<'_>, present: &Map<String, Value>) -> bool {
    filename(present).is_some_and(|name| name != request.graph && request.destination.join(name).is_file())
}

/// Whether the config that is there is for another graph of this package, which is there as well and to be preferred.
fn keeps(request: &Request<'_>, present: &Map<String, Value>) -> bool {
    let Some(filename) = filename(present).filter(|_| is_for_another(request, present)) else {
        return false;
    };
    // Only the manifest knows which precision a graph has; without one, nothing is known about what is there.
    let manifest = fs::read_to_string(request.destination.join(MANIFEST_NAME)).ok();
    let manifest = manifest.and_then(|text| Manifest::from_json(&text).ok()).unwrap_or_default();
    let precision = manifest.graphs.iter().find(|graph| graph.file == filename).map(|graph| graph.precision.as_str());
    precision.is_some_and(|present| preference(present) < preference(&request.contract.precision))
}
