use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// The tokenizer of a changed file, alone in its folder.
fn changed(change: impl FnOnce(&mut Value)) -> Result<Tokenizer, TextError> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-chat/tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    change(&mut json);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    Tokenizer::load(folder.path())
}

fn tiny_chat() -> Tokenizer {
    Tokenizer::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-chat")).unwrap()
}

fn stream(mut detokenizer: Detokenizer, tokens: &[u32]) -> Vec<String> {
    let mut pieces: Vec<String> = tokens.iter().map(|&token| detokenizer.push(token).unwrap()).collect();
    pieces.push(detokenizer.finish().unwrap());
    pieces
}

#[test]
fn bos_is_added_once() {
    let tokenizer = tiny_chat();
    assert_eq!(tokenizer.bos_token(), Some("<|startoftext|>"));
    assert_eq!(tokenizer.eos_token(), Some("<|im_end|>"));
    let plain = tokenizer.encode("hello", false).unwrap();
    let bos = tokenizer.token_to_id("<|startoftext|>").unwrap();
    let with_bos = [&[bos], plain.as_slice()].concat();
    assert_eq!(tokenizer.encode("hello", true).unwrap(), with_bos);
    assert_eq!(tokenizer.encode_prompt("hello").unwrap(), with_bos);
    assert_eq!(tokenizer.encode_prompt("<|startoftext|>hello").unwrap(), with_bos);
}

#[test]
fn bos_is_added_once_without_names() {
    let tokenizer = changed(|_| ()).unwrap();
    assert_eq!(tokenizer.bos_token(), None);
    assert_eq!(tokenizer.encode_prompt("<|startoftext|>hi").unwrap(), tokenizer.encode("hi", true).unwrap());
    assert_eq!(tokenizer.encode_prompt("hi").unwrap(), tokenizer.encode("hi", true).unwrap());
    assert_eq!(tokenizer.encode_prompt("").unwrap(), [tokenizer.token_to_id("<|startoftext|>").unwrap()]);
}

#[test]
fn settings_that_make_the_tokenizer_fail_are_errors_with_the_file() {
    use serde_json::json;
    let pre = json!({"type": "FixedLength", "length": 0});
    let replace = json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"});
    let charsmap = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
    for (key, value) in [("pre_tokenizer", pre), ("normalizer", replace), ("normalizer", charsmap)] {
        let result = changed(|json| json[key] = value.clone()).and_then(|tokenizer| tokenizer.encode("hi there", true));
        if let Err(error) = result {
            assert!(error.to_string().contains("tokenizer.json"), "{value}: {error}");
        }
    }
}

#[test]
fn a_panic_of_the_tokenizer_is_an_error() {
    let error = guarded::<()>(|| panic!("index {}", 3)).unwrap_err();
    assert!(error.to_string().contains("index 3"), "{error}");
}

#[test]
fn every_kind_of_model_is_read_as_the_crate_reads_it() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-chat/tokenizer.json");
    let bytes = std::fs::read(file).unwrap();
    assert!(serde_json::from_slice::<PairEncoding>(&bytes).is_ok(), "the fast way is not taken");
    let mut words: Value = serde_json::from_slice(&bytes).unwrap();
    words["model"] = serde_json::json!({"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"});
    let mut untyped: Value = serde_json::from_slice(&bytes).unwrap();
    untyped["model"].as_object_mut().unwrap().remove("type");
    for json in [bytes, words.to_string().into_bytes(), untyped.to_string().into_bytes()] {
        let expected = tokenizers::Tokenizer::from_bytes(&json).unwrap().to_string(false).unwrap();
        assert_eq!(prepared(&json).unwrap().to_string(false).unwrap(), expected);
    }
}

#[test]
fn dropout_is_off() {
    let tokenizer = changed(|json| json["model"]["dropout"] = 0.9.into()).unwrap();
    let text = "the same text is always the same tokens";
    let expected = tiny_chat().encode(text, true).unwrap();
    assert!((0..20).all(|_| tokenizer.encode(text, true).unwrap() == expected));
}

#[test]
fn long_texts_without_text_take_no_long_time_and_wrong_bytes_are_shown() {
    let tokenizer = tiny_chat();
    let start = Instant::now();
    for token in ["<|im_end|>".to_string(), spelling(0xFF)] {
        let token = tokenizer.token_to_id(&token).unwrap();
        let mut detokenizer = Detokenizer::new(&tokenizer);
        let shown: String = (0..8000).map(|_| detokenizer.push(token).unwrap()).collect();
        let whole = tokenizer.decode(&vec![token; 8000]).unwrap();
        assert!(whole.len() - shown.len() <= 9, "{}", shown.len());
        assert_eq!(shown + &detokenizer.finish().unwrap(), whole);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn characters_arrive_whole() {
    let tokenizer = tiny_chat();
    for text in
        ["👋🏽😀 ok", "مرحبا بالعالم", "こんにちは、世界。", "e\u{301} naïve", " leading", "a  b\n\n c", "👩‍👩‍👧‍👦", "�"]
    {
        let tokens = tokenizer.encode(text, true).unwrap();
        let pieces = stream(Detokenizer::new(&tokenizer), &tokens);
        assert_eq!(pieces.concat(), text);
        assert!(text == "�" || pieces.iter().all(|piece| !piece.contains('�')), "{pieces:?}");
    }
}

#[test]
fn text_before_an_incomplete_character_is_not_held_back() {
    let tokenizer = tiny_chat();
    let tokens = tokenizer.encode("hi 😀", false).unwrap();
    let pieces = stream(Detokenizer::new(&tokenizer), &tokens);
    assert!(tokens.len() > 2 && pieces[0].starts_with('h'), "{pieces:?}");
}

#[test]
fn special_tokens_are_hidden_unless_asked_for() {
    let tokenizer = tiny_chat();
    let text = "<|tool_call_start|>[f()]<|tool_call_end|> done<|im_end|>";
    let tokens = tokenizer.encode(text, false).unwrap();
    assert_eq!(stream(Detokenizer::new(&tokenizer), &tokens).concat(), "[f()] done");
    assert_eq!(stream(Detokenizer::with_special_tokens(&tokenizer), &tokens).concat(), text);
    assert_eq!(tokenizer.decode(&tokens).unwrap(), "[f()] done");
    assert_eq!(tokenizer.decode_with_special_tokens(&tokens).unwrap(), text);
}

#[test]
fn spaces_between_words_survive_other_decoders() {
    // The kind of tokenizer where the first word loses its space and the others keep it.
    let json = r#"{"version": "1.0", "added_tokens": [{"id": 3, "content": "<s>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}]},
        "model": {"type": "BPE", "byte_fallback": true, "merges": [],
        "vocab": {"▁one": 0, "▁two": 1, "s": 2, "<s>": 3, "<0xC3>": 4, "<0xA9>": 5}}}"#;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json).unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(tokenizer.bos_token(), None);
    let pieces = stream(Detokenizer::new(&tokenizer), &[3, 0, 3, 1, 2, 4, 5, 1]);
    assert_eq!(pieces, ["", "one", "", " two", "s", "", "é", " two", ""]);
}

#[test]
fn a_file_that_is_missing_or_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = Tokenizer::load(folder.path()).unwrap_err().to_string();
    assert!(message.contains("tokenizer.json"), "{message}");
    std::fs::write(folder.path().join("tokenizer.json"), "{").unwrap();
    let message = Tokenizer::load(folder.path()).unwrap_err().to_string();
    assert!(message.contains("tokenizer.json"), "{message}");
}

/// Puts `new` where the `at`-th value of the small parts of the file is: not into the vocabulary and the merges.
fn replace(json: &mut Value, at: &mut usize, new: &Value) -> bool {
    if *at == 0 {
        *json = new.clone();
        return true;
    }
    *at -= 1;
    match json {
        Value::Object(fields) => fields
            .iter_mut()
            .filter(|(key, _)| !["vocab", "merges"].contains(&key.as_str()))
            .any(|(_, value)| replace(value, at, new)),
        Value::Array(items) => items.iter_mut().any(|item| replace(item, at, new)),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_edits_of_the_file_never_panic(
        at in 1_usize..260,
        new in prop::sample::select(vec![
            Value::Null, true.into(), 0.into(), (-1).into(), u64::MAX.into(), 0.5.into(), "".into(), "(".into(), "é".into(),
            Value::Array(Vec::new()), serde_json::json!({}), serde_json::json!({"String": ""}), serde_json::json!({"Regex": ""}),
            serde_json::json!({"type": "FixedLength", "length": 0}), serde_json::json!({"type": "Strip", "strip_left": true}),
            serde_json::json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"}),
            serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        ]),
        text in "\\PC{0,12}",
    ) {
        let mut at = at;
        if let Ok(tokenizer) = changed(|json| { replace(json, &mut at, &new); }) {
            // Results and errors are both fine.
            let tokens = tokenizer.encode_prompt(&text).unwrap_or_default();
            let mut detokenizer = Detokenizer::new(&tokenizer);
            for token in tokens.into_iter().chain([0, 7, 300]) {
                drop(detokenizer.push(token));
            }
        }
    }
}

proptest! {
    #[test]
    fn pieces_are_the_whole(tokens in prop::collection::vec(0_u32..1030, 0..40)) {
        let tokenizer = tiny_chat();
        let whole = tokenizer.decode(&tokens).unwrap();
        prop_assert_eq!(stream(Detokenizer::new(&tokenizer), &tokens).concat(), whole);
        let whole = tokenizer.decode_with_special_tokens(&tokens).unwrap();
        prop_assert_eq!(stream(Detokenizer::with_special_tokens(&tokenizer), &tokens).concat(), whole);
    }

    #[test]
    fn single_bytes_are_the_whole(bytes in prop::collection::vec(prop::sample::select(
        [0x41_u8, 0x20, 0x80, 0xBF, 0xC3, 0xA9, 0xE3, 0x81, 0x82, 0xF0, 0x9F, 0x98, 0xEF, 0xBD, 0xFF].as_slice()), 0..90)
    ) {
        let tokenizer = tiny_chat();
        // One token per byte, found by its place in the vocabulary of byte-level tokenizers.
        let tokens: Vec<u32> = bytes.iter().map(|&byte| tokenizer.token_to_id(&spelling(byte)).unwrap()).collect();
        let whole = String::from_utf8_lossy(&bytes).into_owned();
        prop_assert_eq!(stream(Detokenizer::new(&tokenizer), &tokens).concat(), whole);
    }

    #[test]
    fn valid_text_has_no_replacement_character_in_any_piece(text in "\\PC{0,20}") {
        prop_assume!(!text.contains('�'));
        let tokenizer = tiny_chat();
        let tokens = tokenizer.encode(&text, false).unwrap();
        let pieces = stream(Detokenizer::new(&tokenizer), &tokens);
        prop_assert!(pieces.iter().all(|piece| !piece.contains('�')), "{:?}", pieces);
        prop_assert_eq!(pieces.concat(), text);
    }
}

/// How byte-level vocabularies spell a byte: printable ones as themselves, the others from U+0100 on.
fn spelling(byte: u8) -> String {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let shifted = (0..byte).filter(|other| !printable(other)).count() as u32;
    let code = if printable(&byte) { u32::from(byte) } else { 0x100 + shifted };
    char::from_u32(code).unwrap().to_string()
}

#[test]
fn words_are_the_same_tokens_without_their_space_where_there_are_such() {
    let tokenizer = tiny_chat();
    let unspaced = tokenizer.unspaced(1200);
    assert_eq!(unspaced.len(), 1200, "also the ids that the tokenizer does not know");
    let id = |spelling: &str| tokenizer.token_to_id(spelling).unwrap();
    let word = |spelling: &str| tokenizer.id_to_token(unspaced[id(spelling) as usize]).unwrap();
    assert_eq!((word("Ġstone"), word("stone"), word("Ġ\"")), ("stone".into(), "stone".into(), "\"".into()));
    // The space alone, a word that is none without it, and what is no text.
    assert_eq!((word("Ġ"), word("ĠFrance"), word("<|im_end|>")), ("Ġ".into(), "ĠFrance".into(), "<|im_end|>".into()));
    assert_eq!(unspaced[1100], 1100);
}
