//! Which keys of `generation_config.json` the host follows, and which it may pass over.

use serde_json::Value;

/// The keys in `config` that may change the answer, and that the host does not follow: all that are not known.
pub(super) fn without_effect(config: &Value) -> Vec<&str> {
    let keys = config.as_object().into_iter().flatten();
    keys.filter(|(key, value)| !is_harmless(key, value)).map(|(key, _)| key.as_str()).collect()
}

fn is_harmless(key: &str, value: &Value) -> bool {
    let is_empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    let is_neutral = |&(name, neutral): &(&str, f64)| name == key && value.as_f64() == Some(neutral);
    is_empty || FOLLOWED.contains(&key) || ELSEWHERE.contains(&key) || NEUTRAL.iter().any(is_neutral)
}

const FOLLOWED: [&str; 9] = [
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "max_new_tokens",
    "stop_strings",
    "eos_token_id",
];

/// Keys that say how transformers computes and what it returns, but do not change which token is chosen.
const ELSEWHERE: [&str; 24] = [
    "_from_model_config",
    "_commit_hash",
    "transformers_version",
    "bos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "use_cache",
    "cache_implementation",
    "cache_config",
    "return_legacy_cache",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "output_logits",
    "return_dict_in_generate",
    "disable_compile",
    "compile_config",
    "prefill_chunk_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "target_lookbehind",
    "low_memory",
];

/// Values that have no effect in transformers either.
const NEUTRAL: [(&str, f64); 17] = [
    ("num_beams", 1.0),
    ("num_beam_groups", 1.0),
    ("num_return_sequences", 1.0),
    ("length_penalty", 1.0),
    ("diversity_penalty", 0.0),
    // The default of transformers, which gives way to `max_new_tokens`.
    ("max_length", 20.0),
    ("typical_p", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("guidance_scale", 1.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("penalty_alpha", 0.0),
    ("top_h", 1.0),
];
