//! Text to token ids and back: the tokenizer of a package, and decoding while tokens still arrive.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

/// The tokenizer of a package. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` from `folder`, and the names of the special tokens from `tokenizer_config.json` if there is
    /// one.
    ///
    /// # Errors
    /// [`TextError::Read`] or [`TextError::Parse`], with the file.
    pub fn load(folder: &Path) -> Result<Self, TextError> {
        let file = folder.join("tokenizer.json");
        let mut inner = tokenizers::Tokenizer::from_bytes(read(&file)?)
            .map_err(|error| TextError::Parse { file, message: error.to_string() })?;
        // Left over from training in some files; a prompt must never be shortened in silence.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|source| TextError::Tokenizer { action: "prepare", source })?;

        let file = folder.join("tokenizer_config.json");
        let config: Value = if file.exists() {
            serde_json::from_slice(&read(&file)?)
                .map_err(|error| TextError::Parse { file, message: error.to_string() })?
        } else {
            Value::Null
        };
        let special = |key: &str| special_token(&config[key]).map(str::to_string);
        Ok(Self { inner: Arc::new(inner), bos_token: special("bos_token"), eos_token: special("eos_token") })
    }

    /// Token ids of `text`. `add_special_tokens` adds what the tokenizer puts around every text: for LFM2 the BOS token.
    /// Special tokens that are spelled out in `text` become themselves either way.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self
            .inner
            .encode_fast(text, add_special_tokens)
            .map_err(|source| TextError::Tokenizer { action: "encode text", source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of a prompt. Special tokens are added, unless the text starts with the BOS token: chat templates print
    /// that themselves, and a second one would be wrong.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let starts_with_bos = self.bos_token.as_ref().is_some_and(|bos| !bos.is_empty() && text.starts_with(bos));
        self.encode(text, !starts_with_bos)
    }

    /// Text of `tokens`, without special tokens. Bytes that form no character become U+FFFD. Ids that the tokenizer does
    /// not know have no text: the vocabulary of LFM2 models is larger than that of their tokenizers.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if the tokenizer cannot decode them.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TextError> {
        self.decode_as(tokens, SpecialTokens::Hidden)
    }

    /// Text of `tokens`, with special tokens as they are spelled, such as `<|tool_call_start|>`.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn decode_with_special_tokens(&self, tokens: &[u32]) -> Result<String, TextError> {
        self.decode_as(tokens, SpecialTokens::Shown)
    }

    /// Id of a token in its spelling in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Spelling of a token in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token that every text starts with, if the package names one.
    pub fn bos_token(&self) -> Option<&str> {
        self.bos_token.as_deref()
    }

    /// The token that ends an answer, if the package names one.
    pub fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_deref()
    }

    fn decode_as(&self, tokens: &[u32], special: SpecialTokens) -> Result<String, TextError> {
        self.inner
            .decode(tokens, special == SpecialTokens::Hidden)
            .map_err(|source| TextError::Tokenizer { action: "decode tokens", source })
    }
}

/// Whether special tokens are part of decoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SpecialTokens {
    Hidden,
    Shown,
}

/// Turns tokens into text as they arrive. Tokens are pieces of bytes, so a character may need several of them: its text
/// comes with the last one. All pieces together are what [`Tokenizer::decode`] makes of all tokens.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    special: SpecialTokens,
    /// The tokens that are decoded together: those that gave the last text, which the next may depend on, for instance for
    /// a space between words, and all after them.
    window: Vec<u32>,
    /// Number of tokens in `window` that gave the last text.
    context: usize,
    /// Number of bytes of the text of `window` that have been given out.
    emitted: usize,
    warned: bool,
}

impl Detokenizer {
    /// For a new text, with special tokens hidden.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self {
            tokenizer: tokenizer.clone(),
            special: SpecialTokens::Hidden,
            window: Vec::new(),
            context: 0,
            emitted: 0,
            warned: false,
        }
    }

    /// For a new text in which special tokens appear as they are spelled, for programs that look for them.
    pub fn with_special_tokens(tokenizer: &Tokenizer) -> Self {
        Self { special: SpecialTokens::Shown, ..Self::new(tokenizer) }
    }

    /// Takes the next token and returns the text that is complete with it, often a word, possibly nothing.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if the tokenizer cannot decode it; [`TextError::Unstable`] if it takes back earlier text.
    pub fn push(&mut self, token: u32) -> Result<String, TextError> {
        if !self.warned && self.tokenizer.inner.id_to_token(token).is_none() {
            tracing::warn!(token, "the model chose a token that its tokenizer does not know; it has no text");
            self.warned = true;
        }
        self.window.push(token);
        let text = self.tokenizer.decode_as(&self.window, self.special)?;
        // The beginning of a character looks like a wrong one until the rest has come.
        let complete = text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        let new = self.emit(&text, complete)?;
        if complete == text.len() && !new.is_empty() {
            self.window.drain(..self.context);
            self.context = self.window.len();
            self.emitted = self.tokenizer.decode_as(&self.window, self.special)?.len();
        }
        Ok(new)
    }

    /// Ends the text and returns the rest of it: U+FFFD for the bytes of a character that was never completed. The
    /// detokenizer is then ready for a new text.
    ///
    /// # Errors
    /// Those of [`Detokenizer::push`].
    pub fn finish(&mut self) -> Result<String, TextError> {
        let text = self.tokenizer.decode_as(&self.window, self.special)?;
        let rest = self.emit(&text, text.len())?;
        self.window.clear();
        self.context = 0;
        self.emitted = 0;
        Ok(rest)
    }

    /// What of `text`, up to `end`, is new.
    fn emit(&mut self, text: &str, end: usize) -> Result<String, TextError> {
        if end <= self.emitted {
            return Ok(String::new());
        }
        let new = text.get(self.emitted..end).ok_or(TextError::Unstable)?.to_string();
        self.emitted = end;
        Ok(new)
    }
}

/// Why text or tokens could not be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; a package has the tokenizer of its checkpoint beside the graph", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {message}", file.display())]
    Parse {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The tokenizer refuses.
    #[error("the tokenizer cannot {action}: {source}")]
    Tokenizer {
        /// What it was to do.
        action: &'static str,
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The text of tokens changes with the tokens after them.
    #[error("the tokenizer changes text that it has decoded already, so its text cannot be streamed")]
    Unstable,
}

fn read(file: &Path) -> Result<Vec<u8>, TextError> {
    std::fs::read(file).map_err(|source| TextError::Read { file: file.to_path_buf(), source })
}

/// The spelling of a special token in `tokenizer_config.json`, where it is a string or an object.
pub(crate) fn special_token(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            [0x41_u8, 0x20, 0x80, 0xBF, 0xC3, 0xA9, 0xE3, 0x81, 0x82, 0xF0, 0x9F, 0x98, 0xEF, 0xBD, 0xFF].as_slice()), 0..24)
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
}
