//! How a package wants text to be generated, and what a request changes about it.

mod keys;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;
use serde::Serialize;
use serde_json::Value;

use crate::sampler::{SamplingError, SamplingSettings};
use crate::text::{TextError, Tokenizer, special_token};

/// The generation settings of a package.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationDefaults {
    /// How tokens are chosen; the seed has no meaning here.
    pub sampling: SamplingSettings,
    /// Longest answer, in tokens; `None` is up to the context limit.
    pub max_new_tokens: Option<usize>,
    /// Tokens that end an answer; at least one.
    pub eos: Vec<u32>,
    /// Strings that end an answer.
    pub stop: Vec<String>,
}

/// What a request sets itself. The names and meanings are those of [`SamplingSettings`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Divides the scores; 0 takes the best token always.
    pub temperature: Option<f32>,
    /// Number of best tokens to choose from; 0 is off.
    pub top_k: Option<usize>,
    /// Share of the probability to choose from; 1 is off.
    pub top_p: Option<f32>,
    /// Least probability, relative to the best token; 0 is off.
    pub min_p: Option<f32>,
    /// Makes tokens that occurred less likely; 1 is off.
    pub repetition_penalty: Option<f32>,
    /// Start of the random numbers. If there is none, every resolved request gets a random one.
    pub seed: Option<u64>,
    /// Longest answer, in tokens.
    pub max_new_tokens: Option<usize>,
    /// Strings that end the answer, besides those of the package.
    pub stop: Vec<String>,
}

/// Everything that decides how one answer is generated. Serialised, it is what has to be given to get the answer again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generation {
    /// How tokens are chosen, with the seed.
    pub sampling: SamplingSettings,
    /// Longest answer, in tokens; `None` is up to the context limit.
    pub max_new_tokens: Option<usize>,
    /// Tokens that end the answer.
    pub eos: Vec<u32>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
}

/// What LFM2 was tuned for, according to its model cards: its checkpoints come without sampling settings.
const LFM2: SamplingSettings =
    SamplingSettings { temperature: 0.3, top_k: 0, top_p: 1.0, min_p: 0.15, repetition_penalty: 1.05, seed: 0 };

/// What transformers fills in where `generation_config.json` sets only some values.
const TRANSFORMERS: SamplingSettings =
    SamplingSettings { temperature: 1.0, top_k: 50, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };

impl GenerationDefaults {
    /// Reads the settings of the package in `folder`.
    ///
    /// Sampling: `generation_config.json`. `do_sample: false` there means greedy. If it sets any of temperature, top_k,
    /// top_p, min_p and repetition_penalty, transformers' defaults stand for the others; if it sets none, LFM2's own
    /// settings apply: temperature 0.3, min_p 0.15, repetition_penalty 1.05. Keys that the host cannot follow are logged
    /// as warnings.
    ///
    /// Tokens that end an answer: `eos_token_id`, a number or a list, of `generation_config.json`, else of `config.json`,
    /// else `eos_token` of `tokenizer_config.json`.
    ///
    /// # Errors
    /// A file that cannot be read or has values of the wrong kind, all named at once; values out of range; no token that
    /// ends an answer, or one that is not below `vocab_size` of `config.json`.
    pub fn load(folder: &Path) -> Result<Self, GenerationError> {
        let file = folder.join("generation_config.json");
        let mut reader = Reader { config: read_object(&file)?, problems: Vec::new() };
        let sampling = reader.sampling();
        let max_new_tokens = reader.whole("max_new_tokens");
        let stop = reader.strings("stop_strings");
        let eos = reader.tokens("eos_token_id");
        if max_new_tokens == Some(0) {
            reader.problems.push("max_new_tokens is 0 but has to be at least 1".into());
        }
        reader.check_eos(&eos, vocab_size(folder)?);
        if !reader.problems.is_empty() {
            return Err(GenerationError::Parse { file, message: reader.problems.join("; ") });
        }
        sampling.validate().map_err(|source| GenerationError::Settings { file: Some(file.clone()), source })?;
        for key in keys::without_effect(&reader.config) {
            tracing::warn!("{} sets {key}, which is not supported and has no effect", file.display());
        }
        let eos = if eos.is_empty() { eos_elsewhere(folder)? } else { eos };
        Ok(Self { sampling, max_new_tokens, eos, stop })
    }

    /// The settings for one answer. Without a seed, a random one is chosen, and can be read from the result; it is below
    /// 2^32, so that every JSON reader and every person can repeat it.
    ///
    /// # Errors
    /// [`GenerationError::Settings`] naming all values that are out of range, [`GenerationError::EmptyStop`],
    /// [`GenerationError::NoNewTokens`], [`GenerationError::Seed`].
    pub fn resolve(&self, overrides: &Overrides) -> Result<Generation, GenerationError> {
        if overrides.stop.iter().any(String::is_empty) {
            return Err(GenerationError::EmptyStop);
        }
        let max_new_tokens = overrides.max_new_tokens.or(self.max_new_tokens);
        if max_new_tokens == Some(0) {
            return Err(GenerationError::NoNewTokens);
        }
        let sampling = SamplingSettings {
            temperature: overrides.temperature.unwrap_or(self.sampling.temperature),
            top_k: overrides.top_k.unwrap_or(self.sampling.top_k),
            top_p: overrides.top_p.unwrap_or(self.sampling.top_p),
            min_p: overrides.min_p.unwrap_or(self.sampling.min_p),
            repetition_penalty: overrides.repetition_penalty.unwrap_or(self.sampling.repetition_penalty),
            seed: overrides.seed.map_or_else(random_seed, Ok)?,
        };
        sampling.validate().map_err(|source| GenerationError::Settings { file: None, source })?;
        let mut stop = self.stop.clone();
        stop.extend(overrides.stop.iter().filter(|string| !self.stop.contains(string)).cloned());
        Ok(Generation { sampling, max_new_tokens, eos: self.eos.clone(), stop })
    }
}

/// Takes values out of a JSON object and collects what is wrong with them.
struct Reader {
    config: Value,
    problems: Vec<String>,
}

impl Reader {
    fn sampling(&mut self) -> SamplingSettings {
        let temperature = self.float("temperature");
        let top_k = self.whole("top_k");
        let top_p = self.float("top_p");
        let min_p = self.float("min_p");
        let repetition_penalty = self.float("repetition_penalty");
        let do_sample = self.take("do_sample", "true or false", Value::as_bool);
        let is_set = temperature.or(top_p).or(min_p).or(repetition_penalty).is_some() || top_k.is_some();
        let defaults = match (is_set, do_sample) {
            (true, _) | (false, Some(false)) => TRANSFORMERS,
            (false, _) => LFM2,
        };
        let temperature = if do_sample == Some(false) { Some(0.0) } else { temperature };
        SamplingSettings {
            temperature: temperature.unwrap_or(defaults.temperature),
            top_k: top_k.unwrap_or(defaults.top_k),
            top_p: top_p.unwrap_or(defaults.top_p),
            min_p: min_p.unwrap_or(defaults.min_p),
            repetition_penalty: repetition_penalty.unwrap_or(defaults.repetition_penalty),
            seed: 0,
        }
    }

    fn float(&mut self, key: &str) -> Option<f32> {
        self.take(key, "a number", |value| value.as_f64().map(|float| float as f32))
    }

    fn whole(&mut self, key: &str) -> Option<usize> {
        self.take(key, "a whole number", |value| value.as_u64().and_then(|whole| usize::try_from(whole).ok()))
    }

    fn tokens(&mut self, key: &str) -> Vec<u32> {
        let token = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        self.take(key, "a token id or a list of them", |value| one_or_more(value, token)).unwrap_or_default()
    }

    fn strings(&mut self, key: &str) -> Vec<String> {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_string);
        self.take(key, "a string or a list of them, none empty", |value| one_or_more(value, text)).unwrap_or_default()
    }

    /// A token that the model cannot choose would never end an answer.
    fn check_eos(&mut self, eos: &[u32], vocab_size: Option<u64>) {
        let Some(vocab_size) = vocab_size else { return };
        let unknown = eos.iter().filter(|&&token| u64::from(token) >= vocab_size);
        self.problems.extend(unknown.map(|token| {
            format!("eos_token_id is {token}, but the model has only {vocab_size} tokens, according to config.json")
        }));
    }

    fn take<T>(&mut self, key: &str, kind: &str, convert: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = self.config.get(key).filter(|value| !value.is_null())?;
        let converted = convert(value);
        if converted.is_none() {
            self.problems.push(format!("{key} is {value} but has to be {kind}"));
        }
        converted
    }
}

fn one_or_more<T>(value: &Value, convert: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    match value.as_array() {
        Some(values) => values.iter().map(convert).collect(),
        None => convert(value).map(|value| vec![value]),
    }
}

/// Number of tokens of the model, if `config.json` tells.
fn vocab_size(folder: &Path) -> Result<Option<u64>, GenerationError> {
    Ok(read_object(&folder.join("config.json"))?["vocab_size"].as_u64())
}

/// The tokens that end an answer, if `generation_config.json` names none.
fn eos_elsewhere(folder: &Path) -> Result<Vec<u32>, GenerationError> {
    let file = folder.join("config.json");
    let mut reader = Reader { config: read_object(&file)?, problems: Vec::new() };
    let eos = reader.tokens("eos_token_id");
    let vocab_size = reader.config["vocab_size"].as_u64();
    reader.check_eos(&eos, vocab_size);
    if !reader.problems.is_empty() {
        return Err(GenerationError::Parse { file, message: reader.problems.join("; ") });
    }
    if !eos.is_empty() {
        return Ok(eos);
    }
    let missing = || GenerationError::NoEos { folder: folder.to_path_buf() };
    let config = read_object(&folder.join("tokenizer_config.json"))?;
    let spelling = special_token(&config["eos_token"]).ok_or_else(missing)?;
    let token = Tokenizer::load(folder)?.token_to_id(spelling).ok_or_else(missing)?;
    Ok(vec![token])
}

/// The object in a file; an empty one if there is no such file.
fn read_object(file: &Path) -> Result<Value, GenerationError> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Object(serde_json::Map::new())),
        Err(source) => return Err(GenerationError::Read { file: file.to_path_buf(), source }),
    };
    let parsed = serde_json::from_slice(&bytes).map_err(|error| error.to_string());
    let object =
        parsed.and_then(|value: Value| if value.is_object() { Ok(value) } else { Err("not an object".into()) });
    object.map_err(|message| GenerationError::Parse { file: file.to_path_buf(), message })
}

fn random_seed() -> Result<u64, GenerationError> {
    SysRng.try_next_u32().map(u64::from).map_err(|error| GenerationError::Seed { message: error.to_string() })
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
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
        /// What is wrong, everything at once.
        message: String,
    },
    /// Values out of range.
    #[error("{}{source}", file.as_ref().map_or_else(String::new, |file| format!("{}: ", file.display())))]
    Settings {
        /// The file that has them; `None` if the request has.
        file: Option<PathBuf>,
        /// What is wrong, everything at once.
        source: SamplingError,
    },
    /// No token ends an answer.
    #[error(
        "{} does not say which token ends an answer: set eos_token_id in its generation_config.json or config.json",
        folder.display()
    )]
    NoEos {
        /// The package.
        folder: PathBuf,
    },
    /// The tokenizer, which is asked for the id of the token that ends an answer, cannot be loaded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A stop string that would stop everything.
    #[error("a stop string is empty")]
    EmptyStop,
    /// An answer without tokens.
    #[error("the number of new tokens is 0 but has to be at least 1")]
    NoNewTokens,
    /// No random numbers.
    #[error("the system gives no random number for the seed: {message}; set a seed")]
    Seed {
        /// What the system says.
        message: String,
    },
}
