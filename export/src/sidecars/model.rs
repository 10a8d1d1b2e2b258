//! `config.json` and `generation_config.json`.

use lfm2_graphs::contract::Purpose;
use serde_json::{Map, Value, json as value};

use super::{Problems, Request, Sidecar, SidecarError, existing, json};
use crate::config::CONFIG_FILE;
use crate::recipe::Precision;

/// The key with the settings of transformers.js.
const TRANSFORMERS_JS: &str = "transformers.js_config";

/// The key in it that says in how many external files the weights of each graph lie.
const EXTERNAL_DATA: &str = "use_external_data_format";

/// Presets that transformers.js has no `dtype` for: their graphs can only be named by file.
const UNKNOWN_TO_TRANSFORMERS_JS: [Precision; 1] = [Precision::Q4Mixed];

const GENERATION_FILE: &str = "generation_config.json";

/// The config with what transformers.js needs and checkpoints may lack.
pub(super) fn config(request: &Request<'_>, problems: &mut Problems) -> Result<Sidecar, SidecarError> {
    let mut config = request.model.json.clone();
    config.entry("architectures").or_insert_with(|| value!(["Lfm2ForCausalLM"]));
    config.insert("layer_types".to_owned(), value!(request.model.layer_types()));
    if let Some(settings) = config.get(TRANSFORMERS_JS)
        && !settings.is_object()
    {
        problems.add(format!("{CONFIG_FILE}: {TRANSFORMERS_JS} is not an object"));
    }

    let path = request.destination.join(CONFIG_FILE);
    let mut graphs = Map::new();
    if let Some(present) = existing(&path)? {
        let same = |other: &Map<String, Value>| without_settings(&present) == without_settings(other);
        if !same(&config) && !same(&request.model.json) {
            return Err(SidecarError::OtherModel { path });
        }
        let listed = present.get(TRANSFORMERS_JS).and_then(|settings| settings.get(EXTERNAL_DATA)?.as_object());
        graphs.extend(listed.into_iter().flatten().map(|(name, chunks)| (name.clone(), chunks.clone())));
    }
    let name = request.graph.rsplit_once('/').map_or(request.graph, |(_, name)| name);
    // A graph that was removed must not stay in the list; one in the other layout must.
    let is_there = |name: &str| ["", "onnx"].iter().any(|it| request.destination.join(it).join(name).is_file());
    graphs.retain(|other, _| is_there(other));
    // Transformers.js has no use for any other graph.
    if request.contract.purpose == Purpose::General {
        graphs.insert(name.to_owned(), value!(1));
    }

    let known = Precision::preferred().into_iter().filter(|precision| !UNKNOWN_TO_TRANSFORMERS_JS.contains(precision));
    let best = known.into_iter().find(|precision| graphs.contains_key(&hub_name(*precision)));
    let mut settings = config.get(TRANSFORMERS_JS).and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(best) = best {
        settings.insert("dtype".to_owned(), value!(best.as_str()));
    }
    settings.insert(EXTERNAL_DATA.to_owned(), Value::Object(graphs));
    config.insert(TRANSFORMERS_JS.to_owned(), Value::Object(settings));
    Ok(json(CONFIG_FILE, &Value::Object(config)))
}

/// The generation settings, and the token ids in them that end an answer.
///
/// As in transformers, the ids of `generation_config.json` count, and else those of `config.json`.
pub(super) fn generation(request: &Request<'_>, problems: &mut Problems) -> (Sidecar, Vec<u32>) {
    let mut settings = problems.object(request.source, GENERATION_FILE).unwrap_or_default();
    let model = request.model;
    let ends = match settings.get("eos_token_id") {
        None | Some(Value::Null) => {
            if model.eos.is_empty() {
                problems.add(format!(
                    "neither {GENERATION_FILE} nor {CONFIG_FILE} names an eos_token_id, so that no answer would end"
                ));
            }
            settings.insert("eos_token_id".to_owned(), one_or_many(&model.eos));
            model.eos.clone()
        }
        Some(ids) => token_ids(ids, model.graph.vocab_size).unwrap_or_else(|| {
            problems.add(format!("{GENERATION_FILE}: eos_token_id is {ids}, which are not ids of the vocabulary"));
            Vec::new()
        }),
    };
    for (key, id) in [("bos_token_id", model.bos), ("pad_token_id", model.pad)] {
        if let Some(id) = id
            && settings.get(key).is_none_or(Value::is_null)
        {
            settings.insert(key.to_owned(), value!(id));
        }
    }
    (json(GENERATION_FILE, &Value::Object(settings)), ends)
}

/// Token ids as configs have them: a single one is not put into a list.
pub(super) fn one_or_many(ids: &[u32]) -> Value {
    match ids {
        [id] => value!(id),
        ids => value!(ids),
    }
}

/// One id or a list of at least one, all within the vocabulary.
fn token_ids(value: &Value, vocab_size: usize) -> Option<Vec<u32>> {
    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let within = |value: &Value| value.as_u64().filter(|&id| id < vocab_size as u64)?.try_into().ok();
    let ids: Vec<u32> = values.iter().map(within).collect::<Option<_>>()?;
    (!ids.is_empty()).then_some(ids)
}

/// The name under which transformers.js looks for a graph of this precision.
fn hub_name(precision: Precision) -> String {
    format!("model{}.onnx", precision.suffix())
}

fn without_settings(config: &Map<String, Value>) -> Map<String, Value> {
    config.iter().filter(|(key, _)| *key != TRANSFORMERS_JS).map(|(key, value)| (key.clone(), value.clone())).collect()
}
