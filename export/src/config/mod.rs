//! Reading `config.json`: every spelling of the hyper-parameters that LFM2 checkpoints have used.
//!
//! Absent keys take a meaning only where the `Lfm2Config` class of transformers defines one *and* a wrong guess could not
//! pass unnoticed, because the shapes and names of the tensors would contradict it:
//!
//! | absent | meaning |
//! |---|---|
//! | `tie_embedding`, `tie_word_embeddings` | the head is the token table (the first releases have no key for it) |
//! | `layer_types`, `full_attn_idxs` | every layer is an attention layer |
//! | `head_dim` | `hidden_size / num_attention_heads` |
//! | `vocab_size` | 65536 (some fine-tunes are saved without it) |
//! | `block_auto_adjust_ff_dim` | true |
//! | `block_ffn_dim_multiplier`, where the adjustment applies | 1.0; an explicit null means that nothing is rounded |
//! | `block_multiple_of`, where the adjustment applies | 256 |
//!
//! Everything else has to be there; above all `norm_eps`, the rotary base and `max_position_embeddings`, which no tensor
//! would contradict. `null` counts as absent unless the table says otherwise. Where two spellings of one thing are there,
//! they must agree, except that `block_ff_dim` replaces `intermediate_size`, as in transformers. Keys that transformers
//! ignores (`block_dim`, `num_heads`, `conv_dim`, `conv_dim_out`, `block_norm_eps`, `use_pos_enc` and more) are ignored.

mod family;
mod feed_forward;
mod layers;
mod reader;
mod rope;

use std::io;
use std::path::{Path, PathBuf};

use lfm2_graphs::lfm2::{Config, Mixer};
use serde_json::{Map, Value};

use crate::entries::Entries;
use crate::input::{SMALL, read_file};
use crate::problems::{Problems, lines};
use reader::{Reader, Reported};

/// Name of the file in a checkpoint.
pub const CONFIG_FILE: &str = "config.json";

/// What `Lfm2Config` takes for an absent `vocab_size`.
const DEFAULT_VOCAB_SIZE: usize = 65536;

/// Everything that is known about a model before its weights are read.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The hyper-parameters that shape the graph.
    pub graph: Config,
    /// Token ids that end an answer, if the config names any. `Lfm2Config`'s own default is wrong for every released
    /// checkpoint, so absence means that `generation_config.json` has to name them.
    pub eos: Vec<u32>,
    /// Token id that starts a text.
    pub bos: Option<u32>,
    /// Token id that fills up batches.
    pub pad: Option<u32>,
    /// The whole of `config.json`.
    pub json: Map<String, Value>,
    /// Sentences about keys that are absent although most checkpoints have them, for the user to see.
    pub notes: Vec<String>,
}

impl ModelConfig {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// If the file cannot be read, describes a model of another kind, or lacks or contradicts something; all problems
    /// are reported at once, each with its key.
    pub fn load(folder: &Path) -> Result<Self, ConfigError> {
        let path = folder.join(CONFIG_FILE);
        let text = read_file(&path, SMALL).map_err(|source| ConfigError::Io { path: path.clone(), source })?;
        let entries: Entries<Value> =
            serde_json::from_slice(&text).map_err(|source| ConfigError::Json { path: path.clone(), source })?;
        // Readers disagree about which of several equal keys counts.
        let mut problems = Problems::default();
        problems.extend(entries.duplicates().into_iter().map(|key| format!("{key} is there more than once")));
        if !problems.is_empty() {
            return Err(ConfigError::Invalid { path, problems: problems.into_list() });
        }
        Self::from_json(entries.0.into_iter().collect()).map_err(|problems| ConfigError::Invalid { path, problems })
    }

    /// The mixer of each layer in the words of `layer_types`: `full_attention` or `conv`.
    pub fn layer_types(&self) -> Vec<&'static str> {
        self.graph
            .layers
            .iter()
            .map(|mixer| match mixer {
                Mixer::Attention => layers::ATTENTION,
                Mixer::ShortConv => layers::CONV,
            })
            .collect()
    }

    /// Interprets the contents of a `config.json`; the error lists all problems.
    fn from_json(json: Map<String, Value>) -> Result<Self, Vec<String>> {
        family::check(&json)?;
        let mut reader = Reader::new(&json);
        let graph = graph(&mut reader);
        let eos = reader.token_ids("eos_token_id");
        let bos = reader.token_id("bos_token_id");
        let pad = reader.padding_id("pad_token_id");
        let (mut problems, notes) = reader.finish();
        match (graph, eos, bos, pad) {
            (Ok(graph), Ok(eos), Ok(bos), Ok(pad)) if problems.is_empty() => {
                for (key, id) in eos.iter().map(|&id| ("eos_token_id", id)).chain(bos.map(|id| ("bos_token_id", id))) {
                    if id as usize >= graph.vocab_size {
                        problems.add(format!("{key} is {id}, beyond the vocab_size of {}", graph.vocab_size));
                    }
                }
                problems.extend(graph.validate().err().map(|error| error.problems).unwrap_or_default());
                if problems.is_empty() {
                    Ok(Self { graph, eos, bos, pad, json, notes })
                } else {
                    Err(problems.into_list())
                }
            }
            _ => Err(problems.into_list()),
        }
    }
}

/// Reads the hyper-parameters of the graph. All keys are looked at before the first problem ends it.
fn graph(reader: &mut Reader<'_>) -> Result<Config, Reported> {
    let vocab_size = reader.optional("vocab_size").map(|size| {
        size.unwrap_or_else(|| {
            reader.note(format!("vocab_size is absent, which means {DEFAULT_VOCAB_SIZE}"));
            DEFAULT_VOCAB_SIZE
        })
    });
    let hidden_size = reader.required("hidden_size");
    let feed_forward_size = feed_forward::size(reader);
    let layers = layers::mixers(reader);
    let heads = reader.required("num_attention_heads");
    let kv_heads = reader.required("num_key_value_heads");
    let head_dim = reader.optional::<usize>("head_dim");
    let conv_width = reader.required("conv_L_cache");
    let conv_bias = reader.required("conv_bias");
    let norm_epsilon = reader.required("norm_eps");
    let rope_theta = rope::theta(reader);
    let tied = reader.agreeing("tie_embedding", "tie_word_embeddings");
    let context_length = reader.required("max_position_embeddings");

    let (hidden_size, heads): (usize, usize) = (hidden_size?, heads?);
    Ok(Config {
        vocab_size: vocab_size?,
        hidden_size,
        feed_forward_size: feed_forward_size?,
        layers: layers?,
        heads,
        kv_heads: kv_heads?,
        // Zero heads are reported by the validation of the whole.
        head_dim: head_dim?.unwrap_or_else(|| hidden_size.checked_div(heads).unwrap_or(0)),
        conv_width: conv_width?,
        conv_bias: conv_bias?,
        norm_epsilon: norm_epsilon?,
        rope_theta: rope_theta?,
        tied: tied?.unwrap_or(true),
        context_length: context_length?,
    })
}

/// Why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read {path}: {source}; a checkpoint is a folder with config.json and safetensors files", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a JSON object.
    #[error("{path} cannot be read as a JSON object: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the JSON reader said.
        source: serde_json::Error,
    },
    /// The contents describe no model that can be exported.
    #[error("{path} describes no model that can be exported:{list}", path = path.display(), list = lines(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// One sentence per problem.
        problems: Vec<String>,
    },
}

#[cfg(test)]
mod tests;
