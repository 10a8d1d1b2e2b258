//! Text to token ids and back: the tokenizer of a package, and decoding while tokens still arrive.

mod detokenizer;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

pub use detokenizer::Detokenizer;

/// The tokenizer of a package. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// `tokenizer.json`.
    file: Arc<Path>,
    /// What is added before every text and after it, in tokens.
    added: Arc<(Vec<u32>, usize)>,
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
        let tokenizer_file = folder.join("tokenizer.json");
        let bytes = read(&tokenizer_file)?;
        let parse_error = |message| TextError::Parse { file: tokenizer_file.clone(), message };
        let inner = guarded(|| prepared(&bytes)).map_err(|error| parse_error(error.to_string()))?;

        let file = folder.join("tokenizer_config.json");
        let config: Value = if file.exists() {
            serde_json::from_slice(&read(&file)?)
                .map_err(|error| TextError::Parse { file, message: error.to_string() })?
        } else {
            Value::Null
        };
        let special = |key: &str| special_token(&config[key]).map(str::to_string);
        let mut tokenizer = Self {
            inner: Arc::new(inner),
            file: tokenizer_file.into(),
            added: Arc::default(),
            bos_token: special("bos_token"),
            eos_token: special("eos_token"),
        };
        tokenizer.added = Arc::new(tokenizer.find_added()?);
        Ok(tokenizer)
    }

    /// Token ids of `text`. `add_special_tokens` adds what the tokenizer puts around every text: for LFM2 the BOS token.
    /// Special tokens that are spelled out in `text` become themselves either way.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let encoded = guarded(|| self.inner.encode_fast(text, add_special_tokens));
        Ok(encoded.map_err(|source| self.error("encode text", source))?.get_ids().to_vec())
    }

    /// Token ids of a prompt. Special tokens are added, unless the text starts with those that would be added before it:
    /// chat templates print BOS themselves, and a second one would be wrong.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let (before, after) = &*self.added;
        let mut tokens = self.encode(text, true)?;
        let doubled = tokens.get(before.len()..).is_some_and(|rest| rest.starts_with(before));
        if doubled && !before.is_empty() {
            tokens.truncate(tokens.len() - after);
            tokens.drain(..before.len());
        }
        Ok(tokens)
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

    /// The tokens that every text begins with: for LFM2 the BOS token.
    pub fn beginning(&self) -> &[u32] {
        &self.added.0
    }

    /// Whether both give every token the same id.
    pub fn has_vocabulary_of(&self, other: &Self) -> bool {
        self.inner.get_vocab(true) == other.inner.get_vocab(true)
    }

    /// Id of a token in its spelling in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Spelling of a token in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// For each of the ids below `vocab_size` the token that is the same text without the space before it; itself if there is
    /// none.
    pub fn unspaced(&self, vocab_size: usize) -> Vec<u32> {
        let without = |id: u32| {
            let spelling = self.id_to_token(id)?;
            let word = SPACES.iter().find_map(|space| spelling.strip_prefix(*space)).filter(|word| !word.is_empty())?;
            self.token_to_id(word)
        };
        (0..vocab_size as u32).map(|id| without(id).unwrap_or(id)).collect()
    }

    /// The token that every text starts with, if the package names one.
    pub fn bos_token(&self) -> Option<&str> {
        self.bos_token.as_deref()
    }

    /// The token that ends an answer, if the package names one.
    pub fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_deref()
    }

    /// Whether a token, by its spelling, is hidden from text.
    fn is_special(&self, spelling: &str) -> bool {
        self.inner.get_added_vocabulary().is_special_token(spelling)
    }

    fn decode_as(&self, tokens: &[u32], special: SpecialTokens) -> Result<String, TextError> {
        guarded(|| self.inner.decode(tokens, special == SpecialTokens::Hidden))
            .map_err(|source| self.error("decode tokens", source))
    }

    /// The tokens that are added before every text, and how many are added after it.
    fn find_added(&self) -> Result<(Vec<u32>, usize), TextError> {
        let plain = self.encode("a", false)?;
        let mut all = self.encode("a", true)?;
        let Some(count) = all.len().checked_sub(plain.len()) else { return Ok((Vec::new(), 0)) };
        let before = (0..=count).rev().find(|&before| all[before..].starts_with(&plain)).unwrap_or(0);
        all.truncate(before);
        Ok((all, count - before))
    }

    fn error(&self, action: &'static str, source: Source) -> TextError {
        TextError::Tokenizer { file: self.file.to_path_buf(), action, source }
    }
}

/// How vocabularies spell the space before a word: of bytes, and of SentencePiece.
const SPACES: [char; 2] = ['Ġ', '▁'];

/// What the tokenizers crate says.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// Runs code of the tokenizers crate, which panics on some files that it has accepted.
fn guarded<T>(work: impl FnOnce() -> Result<T, Source>) -> Result<T, Source> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("its settings make it fail: {}", message.unwrap_or("no reason is given")).into())
    })
}

/// A tokenizer whose model is known to be a byte-pair encoding, as those of LFM2 are. The crate reads one whose model may be of
/// any kind by way of a tree of JSON values, which takes most of the time and memory of loading.
type PairEncoding = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// The tokenizer in a file, without what is left over from training: a prompt must never be shortened in silence, and the
/// same text must always be the same tokens, which dropout would prevent.
fn prepared(bytes: &[u8]) -> Result<tokenizers::Tokenizer, Source> {
    let mut tokenizer = match serde_json::from_slice::<PairEncoding>(bytes) {
        Ok(tokenizer) => tokenizer.into(),
        // Another kind of model, or a mistake, which is to be told in the words of the general form.
        Err(_) => tokenizers::Tokenizer::from_bytes(bytes)?,
    };
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None)?;
    if let ModelWrapper::BPE(model) = tokenizer.get_model()
        && model.dropout.is_some()
    {
        let mut model = model.clone();
        model.dropout = None;
        tokenizer.with_model(model);
    }
    Ok(tokenizer)
}

/// Whether special tokens are part of decoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SpecialTokens {
    Hidden,
    Shown,
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
    #[error("{}: the tokenizer cannot {action}: {source}", file.display())]
    Tokenizer {
        /// `tokenizer.json`.
        file: PathBuf,
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
