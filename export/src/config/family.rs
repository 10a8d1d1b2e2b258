//! Which models can be exported at all.

use serde_json::{Map, Value};

use super::reader::brief;

/// The value of `model_type` of the models that can be exported.
const DENSE: &str = "lfm2";

/// The value in `architectures` of the models that can be exported.
const CAUSAL: &str = "Lfm2ForCausalLM";

/// Refuses models of other kinds, for which problems with single keys would only mislead.
pub(super) fn check(json: &Map<String, Value>) -> Result<(), Vec<String>> {
    let problem = match json.get("model_type") {
        None | Some(Value::Null) => Some("model_type is missing, so this is not known to be an LFM2 model".to_owned()),
        Some(Value::String(name)) if name == DENSE => other_use(json),
        Some(Value::String(name)) => Some(format!("model_type is {name:?}: {}", reason(name))),
        Some(other) => Some(format!("model_type is {}, a text is needed", brief(other))),
    };
    problem.map_or(Ok(()), |problem| Err(vec![problem]))
}

/// Why a `model_type` cannot be exported.
fn reason(model_type: &str) -> &'static str {
    // The first releases of some families wrote a hyphen.
    match model_type.replace('-', "_").as_str() {
        "lfm2_moe" => "mixture-of-experts models cannot be exported yet, only dense LFM2 models can",
        name if name.starts_with("lfm2_vl") => "vision-language models cannot be exported, only LFM2 text models can",
        name if name.starts_with("lfm2_audio") => "audio models cannot be exported, only LFM2 text models can",
        name if name.starts_with("lfm3") => "LFM3 is another architecture, only LFM2 models can be exported",
        _ => "this is not an LFM2 model",
    }
}

/// Why an LFM2 that is not a plain causal language model cannot be exported.
fn other_use(json: &Map<String, Value>) -> Option<String> {
    if json.get("quantization_config").is_some_and(|value| !value.is_null()) {
        return Some(
            "quantization_config is there: the weights are quantized already; export the original checkpoint instead"
                .to_owned(),
        );
    }
    // Encoders built on LFM2 have the same model type and tensors, but attend in both directions.
    match json.get("architectures") {
        None | Some(Value::Null) => None,
        Some(Value::Array(names)) if names.iter().any(|name| name == CAUSAL) => None,
        Some(other) => {
            Some(format!("architectures is {}: only causal language models ({CAUSAL}) can be exported", brief(other)))
        }
    }
}
