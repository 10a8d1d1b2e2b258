use std::fs;

use lfm2_graphs::contract::{MANIFEST_NAME, Manifest, ManifestGraph, Padding, Purpose};
use lfm2_graphs::dialect::{Contrib, Dialect, Portable};
use lfm2_graphs::ir::Graph;
use serde_json::json as value;
use tempfile::TempDir;

use super::*;
use crate::recipe::Precision;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// A checkpoint folder without weights, and a destination.
struct Case {
    source: TempDir,
    destination: TempDir,
}

impl Case {
    /// The sidecars of the chat fixture, with the given files replaced, or removed if there are no contents.
    fn new(changes: &[(&str, Option<&str>)]) -> Self {
        let case = Self { source: tempfile::tempdir().unwrap(), destination: tempfile::tempdir().unwrap() };
        for name in
            ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
        {
            fs::copy(fixture("tiny-chat").join(name), case.source.path().join(name)).unwrap();
        }
        for (name, contents) in changes {
            let path = case.source.path().join(name);
            match contents {
                Some(contents) => fs::write(path, contents).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        }
        case
    }

    fn prepare(&self, graph: &str, precision: Precision) -> Result<Vec<Sidecar>, SidecarError> {
        self.prepare_with(graph, precision, &Contrib { padding: Padding::None })
    }

    fn prepare_with(
        &self,
        file: &str,
        precision: Precision,
        dialect: &dyn Dialect,
    ) -> Result<Vec<Sidecar>, SidecarError> {
        let model = ModelConfig::load(self.source.path()).unwrap();
        let recipe = precision.recipe().unwrap();
        let graph = Graph::new(recipe.activations, |name, role, _| recipe.format(name, role));
        let mut contract =
            lfm2_graphs::lfm2::build(&model.graph, dialect, lfm2_graphs::lfm2::Extras::default(), &graph).unwrap();
        contract.precision = precision.as_str().to_owned();
        prepare(&Request {
            source: self.source.path(),
            destination: self.destination.path(),
            model: &model,
            contract: &contract,
            graph: file,
        })
    }

    /// Exports as the exporter does, as far as the sidecars can see it.
    fn write(&self, precision: Precision) -> Value {
        let name = format!("onnx/model{}.onnx", precision.suffix());
        let sidecars = self.prepare(&name, precision).unwrap();
        fs::create_dir_all(self.destination.path().join("onnx")).unwrap();
        fs::write(self.destination.path().join(&name), "").unwrap();
        for sidecar in &sidecars {
            fs::write(self.destination.path().join(&sidecar.name), &sidecar.bytes).unwrap();
        }
        let path = self.destination.path().join(MANIFEST_NAME);
        let mut manifest =
            fs::read_to_string(&path).map(|text| Manifest::from_json(&text).unwrap()).unwrap_or_default();
        let graph = ManifestGraph {
            file: name,
            data: vec![],
            purpose: Purpose::General,
            precision: precision.as_str().to_owned(),
            dialect: "contrib".to_owned(),
            minimum_runtime_minor: 30,
        };
        manifest.merge(graph, vec![]);
        fs::write(path, manifest.to_json().unwrap()).unwrap();
        parsed(&sidecars, "config.json")
    }
}

fn text(sidecars: &[Sidecar], name: &str) -> String {
    let sidecar = sidecars.iter().find(|sidecar| sidecar.name == name).unwrap_or_else(|| panic!("no {name}"));
    String::from_utf8(sidecar.bytes.clone()).unwrap()
}

fn parsed(sidecars: &[Sidecar], name: &str) -> Value {
    serde_json::from_str(&text(sidecars, name)).unwrap()
}

#[track_caller]
fn assert_problems(changes: &[(&str, Option<&str>)], expected: &[&str]) {
    let error = Case::new(changes).prepare("x.onnx", Precision::Fp32).unwrap_err();
    let SidecarError::Checkpoint { problems, .. } = &error else { panic!("{error}") };
    for part in expected {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part:?} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn the_chat_fixture_gets_every_file() {
    let sidecars = Case::new(&[]).prepare("onnx/model_q4.onnx", Precision::Q4).unwrap();
    let names: Vec<&str> = sidecars.iter().map(|sidecar| sidecar.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "genai_config.json"
        ]
    );
    for name in ["tokenizer.json", "chat_template.jinja"] {
        assert_eq!(text(&sidecars, name), fs::read_to_string(fixture("tiny-chat").join(name)).unwrap());
    }
    let tokenizer = parsed(&sidecars, "tokenizer_config.json");
    assert_eq!(tokenizer["chat_template"], value!(text(&sidecars, "chat_template.jinja")));
    assert_eq!(tokenizer["eos_token"], "<|im_end|>");
    // Read as the same floating-point number, however it is written.
    assert_eq!(tokenizer["model_max_length"].as_f64(), Some(1e30));
}

#[test]
fn the_config_says_what_transformers_js_needs() {
    let changes = r#"{"model_type":"lfm2","vocab_size":160,"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,
        "num_key_value_heads":2,"max_position_embeddings":512,"norm_eps":1e-5,"conv_L_cache":3,"conv_bias":false,
        "block_ff_dim":64,"block_auto_adjust_ff_dim":false,"full_attn_idxs":[1],"rope_theta":1e6,"eos_token_id":7,
        "transformers.js_config":{"device":"wasm"}}"#;
    let config =
        parsed(&Case::new(&[("config.json", Some(changes))]).prepare("x.onnx", Precision::Q4).unwrap(), "config.json");
    assert_eq!(config["layer_types"], value!(["conv", "full_attention"]));
    assert_eq!(config["architectures"], value!(["Lfm2ForCausalLM"]));
    // What the checkpoint says stays.
    assert_eq!(config["full_attn_idxs"], value!([1]));
    assert_eq!(config["transformers.js_config"], value!({"device": "wasm", "use_external_data_format": {"x.onnx": 1}}));
}

#[test]
fn several_precisions_share_one_config() {
    let case = Case::new(&[]);
    let config = case.write(Precision::Fp32);
    assert_eq!(config["transformers.js_config"]["dtype"], "fp32");
    let config = case.write(Precision::Q8);
    assert_eq!(
        config["transformers.js_config"],
        value!({"dtype": "q8", "use_external_data_format": {"model.onnx": 1, "model_quantized.onnx": 1}})
    );
    case.write(Precision::Q4);
    let config = case.write(Precision::Fp16);
    assert_eq!(config["transformers.js_config"]["dtype"], "q4");
    assert_eq!(config["transformers.js_config"]["use_external_data_format"].as_object().unwrap().len(), 4);

    // onnxruntime-genai runs the best one, whatever was exported last.
    let genai = existing(&case.destination.path().join("genai_config.json")).unwrap().unwrap();
    assert_eq!(genai["model"]["decoder"]["filename"], "onnx/model_q4.onnx");

    fs::remove_file(case.destination.path().join("onnx/model_q4.onnx")).unwrap();
    let config = case.write(Precision::Fp16);
    assert_eq!(config["transformers.js_config"]["dtype"], "q8");
    assert!(config["transformers.js_config"]["use_external_data_format"].get("model_q4.onnx").is_none());
    let genai = existing(&case.destination.path().join("genai_config.json")).unwrap().unwrap();
    assert_eq!(genai["model"]["decoder"]["filename"], "onnx/model_fp16.onnx");
}

#[test]
fn a_package_of_another_model_is_not_mixed_in() {
    let case = Case::new(&[]);
    let path = case.destination.path().join("config.json");
    fs::write(&path, r#"{"model_type": "llama"}"#).unwrap();
    assert!(matches!(case.prepare("x.onnx", Precision::Q4), Err(SidecarError::OtherModel { .. })));
    fs::write(&path, "{").unwrap();
    assert!(matches!(case.prepare("x.onnx", Precision::Q4), Err(SidecarError::Existing { .. })));
    // The checkpoint's own folder is not another model.
    fs::copy(case.source.path().join("config.json"), &path).unwrap();
    case.prepare("x.onnx", Precision::Q4).unwrap();
}

#[test]
fn genai_finds_ports_and_sizes() {
    let case = Case::new(&[]);
    let genai = parsed(&case.prepare("onnx/model_q4.onnx", Precision::Q4).unwrap(), "genai_config.json");
    assert_eq!(
        genai["model"],
        value!({
            "context_length": 4096,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": "onnx/model_q4.onnx",
                "head_size": 64,
                "hidden_size": 256,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                    "past_conv_names": "past_conv.%d",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                    "present_conv_names": "present_conv.%d",
                },
                "num_attention_heads": 4,
                "num_hidden_layers": 6,
                "num_key_value_heads": 2,
                "layer_types": ["conv", "conv", "full_attention", "conv", "full_attention", "conv"],
                "conv_cache_size": 2,
            },
            "eos_token_id": 7,
            "pad_token_id": 0,
            "type": "lfm2",
            "vocab_size": 1024,
            "bos_token_id": 1,
        })
    );
    assert_eq!(genai["search"]["past_present_share_buffer"], true);
    // The caches of portable graphs grow.
    let genai = parsed(&case.prepare_with("x.onnx", Precision::Fp32, &Portable).unwrap(), "genai_config.json");
    assert_eq!(genai["search"]["past_present_share_buffer"], false);
}

#[test]
fn generation_settings_are_kept_and_completed() {
    let settings = r#"{"temperature":0.3,"do_sample":true,"top_k":"many","min_p":0.15,"eos_token_id":[7,2]}"#;
    let sidecars = Case::new(&[("generation_config.json", Some(settings))]).prepare("x.onnx", Precision::Q4).unwrap();
    assert_eq!(
        parsed(&sidecars, "generation_config.json"),
        value!({"temperature":0.3,"do_sample":true,"top_k":"many","min_p":0.15,"eos_token_id":[7,2],"bos_token_id":1,"pad_token_id":0})
    );
    let genai = parsed(&sidecars, "genai_config.json");
    assert_eq!(genai["model"]["eos_token_id"], value!([7, 2]));
    assert_eq!(genai["search"]["temperature"], 0.3);
    assert_eq!(genai["search"]["do_sample"], true);
    assert_eq!(genai["search"]["top_k"], 50);

    let sidecars = Case::new(&[("generation_config.json", None)]).prepare("x.onnx", Precision::Q4).unwrap();
    let expected = value!({"eos_token_id": 7, "bos_token_id": 1, "pad_token_id": 0});
    assert_eq!(parsed(&sidecars, "generation_config.json"), expected);
}

#[test]
fn templates_lose_their_generation_tags_wherever_they_are() {
    let template = "{% generation %}x{% endgeneration %}";
    let stripped = "{% if true %}x{% endif %}";
    let inline = value!({ "chat_template": template }).to_string();
    let named =
        value!({ "chat_template": [{"name": "default", "template": template}, {"name": "tool_use"}] }).to_string();

    let case = Case::new(&[("chat_template.jinja", Some(template)), ("tokenizer_config.json", Some(&inline))]);
    let sidecars = case.prepare("x.onnx", Precision::Q4).unwrap();
    assert_eq!(text(&sidecars, "chat_template.jinja"), stripped);
    assert_eq!(parsed(&sidecars, "tokenizer_config.json")["chat_template"], stripped);

    let case = Case::new(&[("chat_template.jinja", None), ("tokenizer_config.json", Some(&named))]);
    let sidecars = case.prepare("x.onnx", Precision::Q4).unwrap();
    assert!(sidecars.iter().all(|sidecar| sidecar.name != "chat_template.jinja"));
    assert_eq!(parsed(&sidecars, "tokenizer_config.json")["chat_template"][0]["template"], stripped);

    // The file of its own replaces the inline one, and models without any template are exported, too.
    let case = Case::new(&[("chat_template.jinja", Some("new")), ("tokenizer_config.json", Some(&inline))]);
    let sidecars = case.prepare("x.onnx", Precision::Q4).unwrap();
    assert_eq!(parsed(&sidecars, "tokenizer_config.json")["chat_template"], "new");
    let case = Case::new(&[("chat_template.jinja", None)]);
    let sidecars = case.prepare("x.onnx", Precision::Q4).unwrap();
    assert!(parsed(&sidecars, "tokenizer_config.json").get("chat_template").is_none());
}

#[test]
fn everything_missing_or_damaged_is_reported_at_once() {
    assert_problems(
        &[("tokenizer.json", None), ("tokenizer_config.json", None)],
        &["tokenizer.json is missing", "tokenizer_config.json is missing"],
    );
    assert_problems(
        &[
            ("tokenizer.json", Some("{\"version\"")),
            ("tokenizer_config.json", Some("[]")),
            ("generation_config.json", Some("{")),
            ("special_tokens_map.json", Some("")),
        ],
        &[
            "tokenizer.json is not JSON",
            "tokenizer_config.json is not",
            "generation_config.json is not",
            "special_tokens_map.json",
        ],
    );
    assert_problems(&[("generation_config.json", Some(r#"{"eos_token_id": [1024]}"#))], &["eos_token_id is [1024]"]);
    assert_problems(&[("generation_config.json", Some(r#"{"eos_token_id": []}"#))], &["eos_token_id is []"]);
    assert_problems(
        &[("tokenizer_config.json", Some(r#"{"chat_template": 3}"#)), ("chat_template.jinja", None)],
        &["chat_template is neither"],
    );

    let config = fs::read_to_string(fixture("tiny-chat/config.json")).unwrap().replace("\"eos_token_id\": 7,", "");
    assert_problems(&[("config.json", Some(&config)), ("generation_config.json", None)], &["no answer would end"]);
}
