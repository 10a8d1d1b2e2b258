use super::*;

/// A package with these files.
fn load(files: &[(&str, &str)]) -> Result<GenerationDefaults, GenerationError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    GenerationDefaults::load(folder.path())
}

fn sampling(generation_config: &str) -> SamplingSettings {
    let files = [("generation_config.json", generation_config), ("config.json", r#"{"eos_token_id": 7}"#)];
    load(&files).unwrap().sampling
}

#[test]
fn sampling_values_of_the_file_come_first() {
    assert_eq!(sampling(r#"{"eos_token_id": 7, "temperature": null}"#), LFM2);
    assert_eq!(sampling(r#"{"do_sample": true}"#), LFM2);
    let lfm2_5 =
        sampling(r#"{"do_sample": true, "temperature": 0.1, "top_k": 40, "top_p": 0.1, "repetition_penalty": 1.05}"#);
    let expected =
        SamplingSettings { temperature: 0.1, top_k: 40, top_p: 0.1, min_p: 0.0, repetition_penalty: 1.05, seed: 0 };
    assert_eq!(lfm2_5, expected);
    assert_eq!(sampling(r#"{"min_p": 0.1}"#), SamplingSettings { min_p: 0.1, ..TRANSFORMERS });
    assert_eq!(sampling(r#"{"do_sample": false}"#), SamplingSettings { temperature: 0.0, ..TRANSFORMERS });
    assert!(sampling(r#"{"do_sample": false, "temperature": 0.7}"#).is_greedy());
}

#[test]
fn eos_is_found_in_any_file() {
    let eos = |files: &[(&str, &str)]| load(files).unwrap().eos;
    let config = ("config.json", r#"{"eos_token_id": [7, 2]}"#);
    assert_eq!(eos(&[("generation_config.json", r#"{"eos_token_id": 3}"#), config]), [3]);
    assert_eq!(eos(&[("generation_config.json", r#"{"eos_token_id": []}"#), config]), [7, 2]);
    assert_eq!(eos(&[config]), [7, 2]);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-chat/tokenizer.json");
    let tokenizer = std::fs::read_to_string(fixture).unwrap();
    let tokenizer = ("tokenizer.json", tokenizer.as_str());
    assert_eq!(eos(&[tokenizer, ("tokenizer_config.json", r#"{"eos_token": {"content": "<|im_end|>"}}"#)]), [7]);
    for files in [&[][..], &[tokenizer, ("tokenizer_config.json", r#"{"eos_token": "</s>"}"#)][..]] {
        assert!(matches!(load(files), Err(GenerationError::NoEos { .. })), "{files:?}");
    }
}

#[test]
fn all_wrong_values_are_named_with_their_file() {
    let file =
        r#"{"temperature": "hot", "top_k": -1, "eos_token_id": ["</s>"], "stop_strings": [""], "max_new_tokens": 1.5}"#;
    let message = load(&[("generation_config.json", file)]).unwrap_err().to_string();
    for part in ["generation_config.json", "temperature", "top_k", "eos_token_id", "stop_strings", "max_new_tokens"] {
        assert!(message.contains(part), "{message}");
    }
    let message = load(&[("generation_config.json", r#"{"top_p": 2, "min_p": -1}"#)]).unwrap_err().to_string();
    assert!(["generation_config.json", "top_p", "min_p"].iter().all(|part| message.contains(part)), "{message}");
    for damaged in ["[]", "{"] {
        assert!(matches!(load(&[("generation_config.json", damaged)]), Err(GenerationError::Parse { .. })));
    }
}

#[test]
fn requests_override_the_package() {
    let config = r#"{"eos_token_id": 7, "temperature": 0.5, "max_new_tokens": 9, "stop_strings": "END"}"#;
    let defaults = load(&[("generation_config.json", config)]).unwrap();
    let overrides = Overrides {
        temperature: Some(0.0),
        top_k: Some(3),
        seed: Some(11),
        stop: vec!["END".into(), "\n".into()],
        ..Overrides::default()
    };
    let generation = defaults.resolve(&overrides).unwrap();
    assert_eq!(generation.sampling, SamplingSettings { temperature: 0.0, top_k: 3, seed: 11, ..TRANSFORMERS });
    assert_eq!((generation.max_new_tokens, generation.stop), (Some(9), vec!["END".into(), "\n".into()]));

    let wrong = Overrides { temperature: Some(-1.0), top_p: Some(2.0), ..Overrides::default() };
    let message = defaults.resolve(&wrong).unwrap_err().to_string();
    assert!(message.contains("temperature") && message.contains("top_p"), "{message}");
    let empty = Overrides { stop: vec![String::new()], ..Overrides::default() };
    assert!(matches!(defaults.resolve(&empty), Err(GenerationError::EmptyStop)));
    let none = Overrides { max_new_tokens: Some(0), ..Overrides::default() };
    assert!(matches!(defaults.resolve(&none), Err(GenerationError::NoNewTokens)));
}

#[test]
fn without_a_seed_every_answer_gets_its_own() {
    let defaults = load(&[("config.json", r#"{"eos_token_id": 7}"#)]).unwrap();
    let seeds: Vec<u64> = (0..4).map(|_| defaults.resolve(&Overrides::default()).unwrap().sampling.seed).collect();
    assert!(seeds.iter().all(|&seed| seed < 1 << 32));
    assert!(seeds.windows(2).any(|pair| pair[0] != pair[1]), "{seeds:?}");
}

#[test]
fn tokens_beyond_the_vocabulary_are_wrong_and_their_file_is_named() {
    let config = ("config.json", r#"{"vocab_size": 10, "eos_token_id": [7, 10]}"#);
    for files in [&[config][..], &[("generation_config.json", r#"{"eos_token_id": 11}"#), config][..]] {
        let message = load(files).unwrap_err().to_string();
        assert!(message.contains(files[0].0) && message.contains("only 10 tokens"), "{message}");
    }
    assert_eq!(load(&[("generation_config.json", r#"{"eos_token_id": 9}"#), config]).unwrap().eos, [9]);
    let message = load(&[("generation_config.json", r#"{"eos_token_id": 9, "max_new_tokens": 0}"#)]).unwrap_err();
    assert!(message.to_string().contains("generation_config.json: max_new_tokens is 0"), "{message}");
}

#[test]
fn keys_without_effect_are_known() {
    let all = serde_json::json!({
        "suppress_tokens": [3], "begin_suppress_tokens": [3], "bad_words_ids": [[3]], "forced_eos_token_id": 3,
        "max_length": 100, "sequence_bias": [[[3], -1.0]], "exponential_decay_length_penalty": [1, 1.1],
        "watermarking_config": {"bias": 1}, "num_beams": 2, "something_new": 1, "max_time": 2.0,
    });
    let keys: Vec<String> = all.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys::without_effect(&all), keys);
    let harmless = serde_json::json!({
        "_from_model_config": true, "bos_token_id": 1, "eos_token_id": 7, "pad_token_id": 0, "do_sample": true,
        "temperature": 0.3, "min_p": 0.15, "repetition_penalty": 1.05, "transformers_version": "4.55.0",
        "max_length": 20, "num_beams": 1, "length_penalty": 1.0, "suppress_tokens": null, "bad_words_ids": [],
        "early_stopping": false, "something_new": null, "use_cache": true, "return_dict_in_generate": true,
    });
    assert!(keys::without_effect(&harmless).is_empty());
}
