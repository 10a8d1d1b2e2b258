use std::fs;

use lfm2_graphs::contract::Padding;
use lfm2_graphs::dialect::{Contrib, Dialect, Portable};
use lfm2_graphs::ir::Graph;
use lfm2_graphs::lfm2::{Extras, build};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// A config of the newest spelling, with `changes` applied: null removes a key.
fn parse(changes: Value) -> Result<ModelConfig, Vec<String>> {
    let mut json = json!({
        "architectures": ["Lfm2ForCausalLM"],
        "model_type": "lfm2",
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "norm_eps": 1e-5,
        "conv_L_cache": 3,
        "conv_bias": false,
        "intermediate_size": 64,
        "block_auto_adjust_ff_dim": false,
        "layer_types": ["conv", "full_attention", "conv"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "bos_token_id": 1,
        "eos_token_id": 7,
        "pad_token_id": 0,
    });
    let object = json.as_object_mut().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.shift_remove(key);
        } else {
            object.insert(key.clone(), value.clone());
        }
    }
    ModelConfig::from_json(object.clone())
}

#[track_caller]
fn assert_problems(changes: Value, expected: &[&str]) {
    let problems = parse(changes).unwrap_err();
    for part in expected {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part:?} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn every_fixture_is_understood() {
    use Mixer::{Attention as A, ShortConv as C};
    // Folder, vocabulary, width, feed-forward, heads, kv heads, head_dim, taps, bias, theta, tied, layers.
    type Row = (&'static str, usize, usize, usize, [usize; 3], usize, bool, f64, bool, Vec<Mixer>);
    let rows: Vec<Row> = vec![
        ("tiny-random/all-attention", 96, 64, 64, [4, 2, 16], 3, false, 1e6, true, vec![A; 3]),
        ("tiny-random/all-conv", 96, 64, 64, [4, 2, 16], 3, false, 1e6, true, vec![C; 4]),
        ("tiny-random/bias", 96, 64, 64, [4, 2, 16], 3, true, 1e6, true, vec![C, C, A, C]),
        ("tiny-random/bias-width-4", 96, 64, 64, [4, 4, 16], 4, true, 1e6, true, vec![C, A, C]),
        ("tiny-random/both-widths", 96, 64, 64, [4, 2, 16], 3, false, 5e5, true, vec![C, A, C, A]),
        ("tiny-random/eight-heads", 128, 128, 64, [8, 8, 16], 3, false, 1e6, true, vec![C, A, C]),
        ("tiny-random/head-dim-24", 100, 48, 80, [4, 2, 24], 3, false, 1e6, true, vec![C, A, C]),
        ("tiny-random/original", 160, 64, 96, [4, 2, 16], 3, false, 1e6, true, vec![C, C, A, C, A]),
        ("tiny-random/resaved", 96, 64, 96, [4, 2, 16], 3, false, 1e4, true, vec![C, A, C, C]),
        ("tiny-random/sharded", 96, 64, 64, [4, 2, 16], 3, false, 1e6, true, vec![C, C, A]),
        ("tiny-random/untied", 112, 64, 64, [4, 2, 16], 3, false, 1e6, false, vec![C, A, C, C]),
        ("tiny-random/width-2", 96, 64, 72, [4, 1, 16], 2, false, 1e6, true, vec![C, A, C]),
        ("tiny-random/width-4", 96, 64, 64, [4, 4, 16], 4, false, 1e6, true, vec![C, C, A]),
        ("tiny-random/width-5", 96, 64, 64, [4, 1, 16], 5, false, 1e6, true, vec![A, C, A, C]),
        ("tiny-chat", 1024, 256, 512, [4, 2, 64], 3, false, 1e6, true, vec![C, C, A, C, A, C]),
    ];
    let folders = fs::read_dir(fixture("tiny-random")).unwrap().count() + 1;
    assert_eq!(rows.len(), folders, "a fixture has no row here");
    for (
        name,
        vocab_size,
        hidden_size,
        feed_forward_size,
        [heads, kv_heads, head_dim],
        conv_width,
        conv_bias,
        rope_theta,
        tied,
        layers,
    ) in rows
    {
        let config = ModelConfig::load(&fixture(name)).unwrap();
        let context_length = if name == "tiny-chat" { 4096 } else { 512 };
        let expected = Config {
            vocab_size,
            hidden_size,
            feed_forward_size,
            layers,
            heads,
            kv_heads,
            head_dim,
            conv_width,
            conv_bias,
            norm_epsilon: 1e-5,
            rope_theta,
            tied,
            context_length,
        };
        assert_eq!(config.graph, expected, "{name}");
        assert_eq!((config.eos, config.bos, config.pad), (vec![7], Some(1), Some(0)), "{name}");
        assert_eq!(config.notes, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn spellings_of_one_thing_give_one_config() {
    let expected = parse(json!({})).unwrap().graph;
    for changes in [
        json!({"layer_types": null, "full_attn_idxs": [1]}),
        json!({"full_attn_idxs": [1]}),
        json!({"intermediate_size": null, "block_ff_dim": 64}),
        json!({"intermediate_size": 999, "block_ff_dim": 64}),
        json!({"rope_parameters": null, "rope_theta": 1_000_000}),
        json!({"rope_theta": 1e6}),
        json!({"rope_parameters": {"rope_theta": 1e6}}),
        json!({"rope_parameters": {"rope_type": "default"}, "rope_theta": 1e6}),
        json!({"rope_parameters": null, "rope_theta": 1e6, "rope_scaling": {"type": "default"}}),
        json!({"partial_rotary_factor": 1.0}),
        json!({"head_dim": 8}),
        json!({"tie_embedding": true}),
        json!({"tie_word_embeddings": true}),
        json!({"tie_embedding": true, "tie_word_embeddings": true}),
        json!({"architectures": null}),
        json!({"block_auto_adjust_ff_dim": true, "intermediate_size": 96, "block_multiple_of": 64, "block_ffn_dim_multiplier": 1}),
        // What transformers ignores.
        json!({"block_dim": 1024, "num_heads": 16, "conv_dim": 3, "conv_dim_out": 5, "block_norm_eps": 1e-6, "use_pos_enc": true, "theta": 3.0}),
    ] {
        assert_eq!(parse(changes.clone()).unwrap().graph, expected, "{changes}");
    }
    assert!(!parse(json!({"tie_embedding": false})).unwrap().graph.tied);
    assert!(!parse(json!({"tie_word_embeddings": false})).unwrap().graph.tied);
    assert_eq!(parse(json!({"layer_types": null})).unwrap().layer_types(), ["full_attention"; 3]);
}

#[test]
fn absent_keys_with_a_meaning_are_noted() {
    let config = parse(json!({"vocab_size": null, "block_auto_adjust_ff_dim": null})).unwrap();
    assert_eq!(config.graph.vocab_size, 65536);
    assert_eq!(config.graph.feed_forward_size, 256); // int(128 / 3) = 42, rounded up to 256
    assert_eq!(config.notes.len(), 2);
}

#[test]
fn an_explicit_null_multiplier_switches_rounding_off() {
    let mut json = parse(json!({"block_auto_adjust_ff_dim": true})).unwrap().json;
    json.insert("block_ffn_dim_multiplier".to_owned(), Value::Null);
    assert_eq!(ModelConfig::from_json(json).unwrap().graph.feed_forward_size, 42);
}

#[test]
fn conflicting_spellings_are_refused() {
    assert_problems(json!({"full_attn_idxs": [2]}), &["layer_types and full_attn_idxs"]);
    assert_problems(
        json!({"tie_embedding": true, "tie_word_embeddings": false}),
        &["tie_embedding is true but tie_word_embeddings is false"],
    );
    assert_problems(json!({"rope_theta": 5e5}), &["rope_theta is 500000 but rope_parameters.rope_theta is 1000000"]);
    assert_problems(json!({"num_hidden_layers": 4}), &["layer_types has 3 entries for the 4"]);
}

#[test]
fn scaled_rotary_embeddings_are_refused() {
    assert_problems(
        json!({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}}),
        &["rope_parameters.rope_type is \"yarn\"", "rope_parameters.factor"],
    );
    assert_problems(json!({"rope_scaling": {"type": "linear"}}), &["rope_scaling.type is \"linear\""]);
    assert_problems(json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}), &["full_attention"]);
    assert_problems(json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor is 0.5"]);
    assert_problems(json!({"rope_parameters": 3}), &["rope_parameters is 3"]);
}

#[test]
fn all_problems_are_reported_at_once_with_their_keys() {
    assert_problems(
        json!({
            "vocab_size": "many", "hidden_size": null, "num_hidden_layers": -1, "num_attention_heads": 2.5,
            "num_key_value_heads": [2], "conv_L_cache": null, "conv_bias": 0, "norm_eps": null,
            "rope_parameters": null, "intermediate_size": null, "max_position_embeddings": null, "eos_token_id": "</s>",
            "layer_types": ["conv", "attention", "sliding_attention", "attention"],
        }),
        &[
            "vocab_size is \"many\"",
            "hidden_size is missing",
            "num_hidden_layers is -1",
            "num_attention_heads is 2.5",
            "num_key_value_heads is [2]",
            "conv_L_cache is missing",
            "conv_bias is 0",
            "norm_eps is missing",
            "rope_theta is missing",
            "intermediate_size is missing",
            "max_position_embeddings is missing",
            "eos_token_id is \"</s>\"",
            "[\"attention\", \"sliding_attention\"]",
        ],
    );
    // Relations between values are looked at once all are there.
    assert_problems(
        json!({"num_key_value_heads": 3, "conv_L_cache": 1, "head_dim": 7, "norm_eps": 0}),
        &["num_key_value_heads 3", "conv_L_cache is 1", "head_dim is 7", "norm_eps is 0"],
    );
    assert_problems(
        json!({"eos_token_id": [7, 100], "bos_token_id": 101}),
        &["eos_token_id is 100", "bos_token_id is 101"],
    );
    assert_problems(json!({"full_attn_idxs": [3], "layer_types": null}), &["names layer 3"]);
    assert_problems(json!({"num_hidden_layers": u64::MAX, "layer_types": null}), &["at most 4096"]);
    assert_problems(json!({"num_attention_heads": 0}), &["num_attention_heads is 0", "head_dim is 0"]);
    assert_problems(json!({"block_auto_adjust_ff_dim": true, "block_multiple_of": 0}), &["block_multiple_of is 0"]);
    assert_problems(
        json!({"block_auto_adjust_ff_dim": true, "block_ffn_dim_multiplier": -1}),
        &["block_ffn_dim_multiplier"],
    );
}

#[test]
fn other_models_are_refused_by_name_only() {
    for (model_type, reason) in [
        ("lfm2_moe", "mixture-of-experts"),
        ("lfm2_vl", "vision-language"),
        ("lfm2-vl", "vision-language"),
        ("lfm2_audio", "audio"),
        ("lfm3", "LFM3"),
        ("lfm3_moe", "LFM3"),
        ("llama", "not an LFM2 model"),
    ] {
        assert_problems(json!({"model_type": model_type, "hidden_size": null}), &[reason]);
    }
    assert_problems(json!({"model_type": null}), &["model_type is missing"]);
    assert_problems(json!({"architectures": ["Lfm2BidirectionalModel"]}), &["causal"]);
    assert_problems(json!({"quantization_config": {"bits": 4}}), &["quantized already"]);
}

#[test]
fn several_ends_are_kept() {
    assert_eq!(parse(json!({"eos_token_id": [7, 2]})).unwrap().eos, [7, 2]);
    assert_eq!(parse(json!({"eos_token_id": null})).unwrap().eos, Vec::<u32>::new());
}

#[test]
fn a_negative_padding_id_means_none() {
    let config = parse(json!({"pad_token_id": -1})).unwrap();
    assert_eq!((config.pad, config.notes.len()), (None, 1));
    assert_problems(json!({"pad_token_id": -1.5, "bos_token_id": -1}), &["pad_token_id is -1.5", "bos_token_id is -1"]);
}

#[test]
fn keys_that_are_there_twice_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(fixture("tiny-chat").join(CONFIG_FILE)).unwrap();
    let twice = text.replacen('{', "{\"norm_eps\": 1e-6, \"model_type\": \"lfm2\",", 1);
    fs::write(folder.path().join(CONFIG_FILE), twice).unwrap();
    let error = ModelConfig::load(folder.path()).unwrap_err();
    let ConfigError::Invalid { problems, .. } = &error else { panic!("{error}") };
    let nested = text.replacen('{', "{\"rope_parameters\": {\"rope_theta\": 1e6, \"rope_theta\": 1e4},", 1);
    fs::write(folder.path().join(CONFIG_FILE), nested).unwrap();
    let nested = ModelConfig::load(folder.path()).unwrap_err().to_string();
    assert!(nested.contains("rope_parameters: rope_theta is there more than once"), "{nested}");
    assert_eq!(problems, &["model_type is there more than once", "norm_eps is there more than once"]);
}

#[test]
fn numbers_must_be_positive_in_float32() {
    for (key, value) in [("norm_eps", 1e-50), ("norm_eps", 1e39)] {
        assert_problems(json!({key: value}), &[key]);
    }
    for base in [1e-50, 1e39] {
        assert_problems(json!({"rope_parameters": {"rope_theta": base}}), &["rope_theta"]);
    }
}

#[test]
fn files_that_are_not_there_or_not_json_are_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(ModelConfig::load(folder.path()), Err(ConfigError::Io { .. })));
    for text in ["", "[]", "{", "\u{feff}{}", &"[".repeat(100_000)] {
        fs::write(folder.path().join(CONFIG_FILE), text).unwrap();
        let error = ModelConfig::load(folder.path()).unwrap_err();
        assert!(matches!(error, ConfigError::Json { .. }), "{error}");
        assert!(error.to_string().contains(CONFIG_FILE));
    }
}

/// Any JSON that a hand could write.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0_u64..6).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(default|conv|full_attention|yarn|lfm2|[a-z]{0,3})".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("(rope_theta|rope_type|type|[a-z]{1,2})", inner), 0..3)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// A size of which products overflow, or one of which they do not.
fn size() -> impl Strategy<Value = usize> {
    let extreme = [1, 2, 3, 64, 1 << 10, 1 << 15, 1 << 16, 1 << 24, (1 << 31) - 16, (1 << 31) - 1, u32::MAX];
    prop_oneof![prop::sample::select(extreme.to_vec()).prop_map(|size: u32| size as usize), Just(usize::MAX)]
}

proptest! {
    #[test]
    fn what_is_valid_can_be_built(
        sizes in prop::collection::vec(size(), 5), kv_heads in prop::sample::select(vec![1, 2, 1 << 20]),
        width in 2_usize..6, left in any::<bool>()
    ) {
        let [vocab_size, hidden_size, feed_forward_size, head_dim, context_length] = sizes[..] else { panic!("five") };
        let base = parse(json!({})).unwrap().graph;
        let config = Config {
            vocab_size, hidden_size, feed_forward_size, head_dim, context_length, kv_heads, heads: kv_heads * width,
            layers: vec![Mixer::ShortConv, Mixer::Attention], ..base
        };
        if config.validate().is_ok() {
            let dialect: Box<dyn Dialect> = if left { Box::new(Portable) } else { Box::new(Contrib { padding: Padding::Left }) };
            let precision = crate::recipe::Precision::Fp32;
            let recipe = precision.recipe().unwrap();
            let graph = Graph::new(recipe.activations, |name, role, _| recipe.format(name, role));
            // An error is an answer; a panic is not.
            if build(&config, &*dialect, Extras::default(), &graph).is_ok() {
                crate::layout::Layout::new(&graph.content());
            }
        }
    }

    #[test]
    fn random_edits_never_panic(edits in prop::collection::vec((0_usize..64, value()), 1..5), which in 0_usize..3) {
        const EXTRA: [&str; 10] = [
            "rope_theta", "rope_scaling", "rope_parameters", "head_dim", "full_attn_idxs", "layer_types", "block_ff_dim",
            "tie_embedding", "tie_word_embeddings", "partial_rotary_factor",
        ];
        let name = ["tiny-random/original", "tiny-random/resaved", "tiny-chat"][which];
        let mut json: Map<String, Value> = serde_json::from_slice(&fs::read(fixture(name).join(CONFIG_FILE)).unwrap()).unwrap();
        let keys: Vec<String> = json.keys().cloned().chain(EXTRA.map(str::to_owned)).collect();
        for (position, value) in edits {
            json.insert(keys[position % keys.len()].clone(), value);
        }
        match ModelConfig::from_json(json) {
            Ok(config) => prop_assert!(config.graph.validate().is_ok()),
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }
}
