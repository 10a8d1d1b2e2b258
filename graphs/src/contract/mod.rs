//! The contract of a graph: every port and state, as data.
//!
//! The exporter writes it as JSON into the `metadata_props` of the ONNX file, so that the file explains itself. The host
//! learns everything it needs from here and parses no tensor name.

mod calibration;
mod manifest;
mod precision;
mod target;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use calibration::{CALIBRATION_VERSION, Calibration};
pub(crate) use manifest::GPU_DIALECT;
pub use manifest::{
    MANIFEST_NAME, MANIFEST_VERSION, Manifest, ManifestFile, ManifestGraph, companion_names, general_name,
    is_reserved_name, prefill_name,
};
pub use precision::{PRECISIONS, preference};
pub use target::Target;

pub use crate::ir::types::{DType, Dim, Shape};

/// Key of the contract in the ONNX `metadata_props`.
pub const METADATA_KEY: &str = "lfm2.contract";

/// Version of this structure. A host refuses contracts of a version that it does not know.
pub const VERSION: u32 = 3;

/// The machine-readable description of one graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contract {
    /// [`VERSION`] at the time of writing.
    pub version: u32,
    /// Model family, as `model_type` in the checkpoint's config: `lfm2`.
    pub family: String,
    /// Name of the dialect that the graph was lowered with: `contrib`, `contrib-gpu`, `portable`, or that of the [`Target`] of a
    /// static graph.
    pub dialect: String,
    /// What the graph is for.
    pub purpose: Purpose,
    /// Whether hosts run the graph without being asked for it. False for a companion that computes less exactly than the graph that
    /// it goes with.
    pub preferred: bool,
    /// Name of the recipe for weights and activations: `fp32`, `fp16`, `q8`, `q4`, ...
    pub precision: String,
    /// Version of the default ONNX operator set.
    pub opset: u32,
    /// Lowest minor version of ONNX Runtime 1.x that has every operator and attribute used.
    pub minimum_runtime_minor: u32,
    /// Which padded batches the graph computes exactly.
    pub padding: Padding,
    /// Number of token ids, which is the last dimension of the logits.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of decoder layers, convolutions and attentions together.
    pub layers: usize,
    /// Largest total number of tokens that the graph accepts.
    pub context_length: usize,
    /// Rotary position embedding of the attention layers; absent if there are none.
    pub rope: Option<Rope>,
    /// Where the token table lies, for hosts that look rows up themselves.
    pub table: Table,
    /// Bytes of weights that every run reads whole: all but the rows of an embedding that is no head, and rotary tables.
    pub weight_bytes: u64,
    /// The graph's inputs other than states.
    pub inputs: Inputs,
    /// The graph's outputs other than states.
    pub outputs: Outputs,
    /// What is carried from one run to the next, in layer order.
    pub states: Vec<State>,
}

impl Contract {
    /// The JSON form stored in the ONNX file.
    pub fn to_json(&self) -> Result<String, ContractError> {
        serde_json::to_string(self).map_err(|source| ContractError::Json { source })
    }

    /// Reads the JSON form. The error says what is wrong and what to do.
    pub fn from_json(text: &str) -> Result<Self, ContractError> {
        versioned(text, VERSION)
    }

    /// The inputs of a graph that takes token ids.
    pub fn ids(&self) -> Result<&IdInputs, ContractError> {
        match &self.inputs {
            Inputs::Ids(inputs) => Ok(inputs),
            Inputs::Rows(_) => Err(ContractError::Static),
        }
    }

    /// The inputs of a graph that takes rows of the token table.
    pub fn rows(&self) -> Result<&RowInputs, ContractError> {
        match &self.inputs {
            Inputs::Ids(_) => Err(ContractError::Dynamic),
            Inputs::Rows(inputs) => Ok(inputs),
        }
    }

    /// Every input of the graph, those of states last.
    pub fn input_ports(&self) -> Vec<&Port> {
        let mut ports = match &self.inputs {
            Inputs::Ids(ids) => vec![&ids.input_ids, &ids.attention_mask, &ids.num_logits_to_keep],
            Inputs::Rows(rows) => {
                let attention = rows.attention.iter().flat_map(|it| [&it.cosines, &it.sines, &it.bias]);
                [&rows.embeddings].into_iter().chain(attention).collect()
            }
        };
        ports.extend(self.states.iter().map(|state| &state.past));
        ports
    }

    /// Every output of the graph.
    pub fn output_ports(&self) -> Vec<&Port> {
        let states = self.states.iter().flat_map(|state| [Some(&state.present), state.columns.as_ref()]).flatten();
        let statistics = self.outputs.statistics.iter().map(|statistic| &statistic.port);
        let ranges = self.outputs.ranges.iter().map(|ranges| &ranges.port);
        self.outputs.logits.iter().chain(states).chain(statistics).chain(ranges).collect()
    }

    /// The number formats for people: [`Contract::precision`], with that of the token table if it is another one.
    pub fn formats(&self) -> String {
        match &self.table.precision {
            None => self.precision.clone(),
            Some(table) => format!("{}, table {table}", self.precision),
        }
    }

    /// The output with the logits.
    pub fn logits(&self) -> Result<&Port, ContractError> {
        self.outputs.logits.as_ref().ok_or(ContractError::NoLogits)
    }
}

/// Reads JSON whose `version` must be `expected` before anything else is looked at.
fn versioned<T: DeserializeOwned>(text: &str, expected: u32) -> Result<T, ContractError> {
    /// The one field that must be readable in every version.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_str(text).map_err(|source| ContractError::Json { source })?;
    if version != expected {
        return Err(ContractError::Version { found: version, expected });
    }
    serde_json::from_str(text).map_err(|source| ContractError::Json { source })
}

/// Why a contract or a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContractError {
    /// Not the JSON that this version writes.
    #[error("the description of the package cannot be read: {source}; export the model again")]
    Json {
        /// What the JSON reader said.
        source: serde_json::Error,
    },
    /// Written by a newer or older exporter.
    #[error(
        "the package was described in version {found}, this program reads version {expected}; export the model again, or use the matching host"
    )]
    Version {
        /// The version in the file.
        found: u32,
        /// The version that this program reads.
        expected: u32,
    },
    /// A static graph where one for any number of tokens was expected.
    #[error(
        "the graph has fixed shapes and takes rows of the token table; a graph that takes token ids is needed here"
    )]
    Static,
    /// A dynamic graph where a static one was expected.
    #[error("the graph takes token ids; one with fixed shapes is needed here")]
    Dynamic,
    /// A graph for chunks, which returns states only.
    #[error("the graph returns no logits: it is for parts of prompts")]
    NoLogits,
}

/// One input or output of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, as declared in the graph.
    pub shape: Shape,
}

/// Inputs other than states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Inputs {
    /// Dynamic graphs take token ids, any number of them.
    Ids(IdInputs),
    /// Static graphs take rows of the token table, always as many.
    Rows(RowInputs),
}

/// Inputs of graphs that take any number of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdInputs {
    /// Token ids, int64 `[batch_size, sequence_length]`.
    pub input_ids: Port,
    /// 1 for real tokens and 0 for padding, int64 `[batch_size, total_sequence_length]`.
    pub attention_mask: Port,
    /// How many last positions get logits: int64 scalar, 0 for all. Optional to feed; its default is 1.
    pub num_logits_to_keep: Port,
}

/// Inputs of graphs whose shapes are all fixed. What NPUs do not compute well, the host does: it looks the rows up, and it
/// knows the positions. Shapes are those of rank 3; graphs of rank 2 have no leading 1 in front of `tokens`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowInputs {
    /// Tokens of every run. A run with fewer has padding at its end, whose results the host drops.
    pub tokens: usize,
    /// Rows of keys and values that every run is given, in use or not.
    pub past: usize,
    /// Rows of the token table, `[1, tokens, hidden_size]`.
    pub embeddings: Port,
    /// What the attention layers need; absent if there are none.
    pub attention: Option<AttentionInputs>,
}

/// What static graphs need to know for their attention layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionInputs {
    /// Cosines of the rotary angles of the tokens' positions, `[1, tokens, head_dim / 2]`.
    pub cosines: Port,
    /// Sines of the same angles.
    pub sines: Port,
    /// Added to the scores, `[1, tokens, past + tokens]`: 0 where a token may look, `hidden` elsewhere. The last `tokens` columns
    /// are the tokens of the run themselves.
    pub bias: Port,
    /// What hides a position: finite, so that a token that may look nowhere still gets finite scores.
    pub hidden: f64,
}

/// Outputs other than states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// Scores of the next token, float32 `[batch_size, positions, vocab_size]`, `positions` being 1 by default. Graphs for chunks
    /// have none: the last token of a prompt goes through the graph for single tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logits: Option<Port>,
    /// What graphs for calibration tell about the inputs of weights; empty in others.
    pub statistics: Vec<Statistic>,
    /// What graphs for calibration tell about their values; absent in others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Ranges>,
}

/// What a graph is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Prompts and single tokens.
    #[default]
    General,
    /// Prompts only: the companion of a general graph with the same ports, which computes many tokens faster.
    Prefill,
    /// Statistics for quantization: a general graph, and a static one that tells ranges.
    Calibrate,
    /// A static graph for a part of a prompt: states, no logits.
    Chunk,
    /// A static graph for one token.
    Token,
}

/// An output that sums up what a product's input was during a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistic {
    /// float32 `[inputs]`: for each column of the weights, the sum of the squares of the values that met it.
    pub port: Port,
    /// The weights whose input it is, by their names in the checkpoint.
    pub weights: Vec<String>,
}

/// An output that tells between which bounds values were during a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// float32 `[2 * values]`: the least and the largest number of each value.
    pub port: Port,
    /// The values, by names that the graph for running has too.
    pub values: Vec<String>,
}

/// One tensor carried from run to run. All states start as zeros.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Index of the layer in the whole stack.
    pub layer: usize,
    /// What the tensor holds.
    pub kind: StateKind,
    /// How `present` follows from `past`.
    pub update: Update,
    /// The input.
    pub past: Port,
    /// The output.
    pub present: Port,
    /// What the numbers of an int16 state are multiples of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    /// The dimension of both that counts tokens.
    pub axis: usize,
    /// Of a convolution in a graph that can be rolled back: every column of B*x of the run,
    /// `[batch_size, sequence_length, hidden_size]`, so that the state after any token of the run can be made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Port>,
}

/// What a state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateKind {
    /// The last columns of B*x: `[batch_size, hidden_size, conv_L_cache - 1]`, in static graphs `[1, conv_L_cache - 1, hidden_size]`.
    Conv,
    /// Rotated keys: `[batch_size, kv_heads, sequence, head_dim]`, in static graphs `[kv_heads, head_dim, sequence]`.
    Key,
    /// Values: `[batch_size, kv_heads, sequence, head_dim]`, in static graphs `[kv_heads, sequence, head_dim]`.
    Value,
}

impl StateKind {
    /// Whether the tensor has an entry for every token.
    pub fn grows(self) -> bool {
        matches!(self, StateKind::Key | StateKind::Value)
    }
}

/// How a state is updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// One buffer may be bound as past and present. Growing states take a buffer of any capacity that holds the total
    /// length; the valid length comes from the attention mask.
    InPlace,
    /// The output is a new tensor that becomes the next input; its length is exactly the number of tokens seen.
    Appended,
    /// The output has the entries of the tokens of this run only. The host puts them into the input: behind those of the tokens
    /// before, or, of a convolution, so that the last ones stay.
    ByHost,
}

/// Which padded batches are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// None: every row of a prefill has the same length. Decode rows may have different lengths.
    None,
    /// Left padding: the attention mask marks the padded positions with 0.
    Left,
}

/// Rotary position embedding: half-rotation of the first and second half of each head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Base of the frequencies: `theta^(-2i / head_dim)`.
    pub theta: f64,
    /// Elements of one head.
    pub head_dim: usize,
}

/// The token table, shared by embedding and head if the model ties them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Number of rows: the vocabulary.
    pub rows: usize,
    /// Values per row: the hidden size.
    pub columns: usize,
    /// Number format of the rows.
    pub format: TableFormat,
    /// Initializer holding the values, or the packed bytes of a quantized table.
    pub values: Location,
    /// Initializer holding one scale per block, if quantized.
    pub scales: Option<Location>,
    /// Initializer holding one packed zero point per block, if quantized with zero points.
    pub zero_points: Option<Location>,
    /// Name of the recipe of its numbers, if they have fewer bits than those that the graph computes with: the table is that of another
    /// graph then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
}

/// Number format of the token table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TableFormat {
    /// Plain numbers, row after row.
    Dense {
        /// Element type.
        dtype: DType,
    },
    /// Blocks of unsigned `bits`-bit numbers, low bits first. The zero point is `2^(bits-1)` unless the table has zero points.
    Blocks {
        /// 4 or 8.
        bits: usize,
        /// Values sharing one scale.
        block_size: usize,
        /// Element type of the scales.
        scales: DType,
    },
}

/// Where an initializer's bytes lie in the package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Name of the initializer in the graph.
    pub name: String,
    /// The file, relative to the ONNX file: one with external data, or an ONNX file that has its weights in itself.
    pub file: String,
    /// First byte in that file.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}
