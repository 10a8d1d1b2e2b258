//! One package: contract, operators, formats and sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lfm2_graphs::contract::{Contract, Dim};
use serde::Serialize;

use super::OpenedGraph;
use crate::proto::{Model, Stored};

/// Tokens that the growth of the state is given for.
const TOKENS: u64 = 1000;

/// What an ONNX file holds and needs.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The ONNX file.
    pub path: String,
    /// The program that wrote it.
    pub producer: String,
    /// Version of each operator set; the standard one is called `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// The contract; absent in files of other exporters.
    pub contract: Option<Contract>,
    /// Inputs with types and shapes.
    pub inputs: Vec<(String, String)>,
    /// Outputs with types and shapes.
    pub outputs: Vec<(String, String)>,
    /// How often each operator is called.
    pub operators: BTreeMap<String, usize>,
    /// Tensors by element type.
    pub formats: BTreeMap<String, FormatUse>,
    /// Bytes of all weights, those that tensors share counted once.
    pub weight_bytes: u64,
    /// Files beside the ONNX file that hold weights.
    pub data_files: BTreeSet<String>,
    /// What a conversation needs; absent without a contract.
    pub state: Option<StateMemory>,
}

/// Tensors of one element type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FormatUse {
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements.
    pub elements: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// Memory of the state of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StateMemory {
    /// Bytes that do not depend on the length.
    pub fixed_bytes: u64,
    /// Bytes that every 1000 tokens add.
    pub bytes_per_1000_tokens: u64,
    /// Bytes at the full context length.
    pub bytes_at_full_context: u64,
}

/// Collects the facts of an opened graph.
pub fn inspect(opened: &OpenedGraph) -> Inspection {
    let Model { producer, opsets, inputs, outputs, nodes, tensors, .. } = opened.model.clone();
    let mut operators = BTreeMap::new();
    for node in nodes {
        *operators.entry(node.op).or_default() += 1;
    }
    let mut formats = BTreeMap::<String, FormatUse>::new();
    let mut shared = BTreeSet::new();
    let mut data_files = BTreeSet::new();
    let mut weight_bytes = 0;
    for tensor in tensors {
        let length = match tensor.stored {
            Stored::Inline { length } => length,
            Stored::External { file, offset, length } => {
                data_files.insert(file.clone());
                if shared.insert((file, offset)) { length } else { 0 }
            }
        };
        weight_bytes += length;
        let format = formats.entry(tensor.dtype).or_default();
        format.tensors += 1;
        format.elements += tensor.shape.iter().map(|&size| size.unsigned_abs()).product::<u64>();
        format.bytes += length;
    }
    let named =
        |(domain, version): (String, i64)| (if domain.is_empty() { "ai.onnx".to_owned() } else { domain }, version);
    Inspection {
        path: opened.path.display().to_string(),
        producer,
        opsets: opsets.into_iter().map(named).collect(),
        contract: opened.contract.clone(),
        inputs,
        outputs,
        operators,
        formats,
        weight_bytes,
        data_files,
        state: opened.contract.as_ref().map(state_memory),
    }
}

fn state_memory(contract: &Contract) -> StateMemory {
    let (mut fixed_bytes, mut per_token) = (0, 0);
    for state in &contract.states {
        let sizes = state.past.shape.iter().filter_map(|dim| match dim {
            Dim::Fixed(size) => Some(*size as u64),
            Dim::Symbol(_) => None,
        });
        let bytes = sizes.product::<u64>() * state.past.dtype.size() as u64;
        *(if state.kind.grows() { &mut per_token } else { &mut fixed_bytes }) += bytes;
    }
    StateMemory {
        fixed_bytes,
        bytes_per_1000_tokens: per_token * TOKENS,
        bytes_at_full_context: fixed_bytes + per_token * contract.context_length as u64,
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (written by {})", self.path, self.producer)?;
        let opsets: Vec<_> = self.opsets.iter().map(|(domain, version)| format!("{domain} {version}")).collect();
        writeln!(f, "operator sets: {}", opsets.join(", "))?;
        match &self.contract {
            Some(contract) => {
                writeln!(
                    f,
                    "contract: {} {}, {} dialect, ONNX Runtime 1.{} or newer, padding {:?}",
                    contract.family,
                    contract.precision,
                    contract.dialect,
                    contract.minimum_runtime_minor,
                    contract.padding
                )?;
                writeln!(
                    f,
                    "model: {} layers, hidden size {}, {} tokens in the vocabulary, context of {} tokens",
                    contract.layers, contract.hidden_size, contract.vocab_size, contract.context_length
                )?;
            }
            None => writeln!(f, "contract: none; lfm2-host cannot run this file")?,
        }
        for (title, ports) in [("inputs", &self.inputs), ("outputs", &self.outputs)] {
            writeln!(f, "\n{title}:")?;
            let width = ports.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            for (name, kind) in ports {
                writeln!(f, "  {name:width$}  {kind}")?;
            }
        }
        writeln!(f, "\noperators:")?;
        for (name, count) in &self.operators {
            writeln!(f, "  {count:5}  {name}")?;
        }
        writeln!(f, "\ntensors:")?;
        for (name, FormatUse { tensors, elements, bytes }) in &self.formats {
            writeln!(f, "  {tensors:5}  {name:8}  {elements:>13} elements  {:>10}", size(*bytes))?;
        }
        let files: Vec<_> = self.data_files.iter().map(String::as_str).collect();
        writeln!(f, "  {} in all, in {}", size(self.weight_bytes), files.join(", "))?;
        if let Some(state) = &self.state {
            writeln!(
                f,
                "\nstate of one sequence: {} and {} for every 1000 tokens; {} at full context",
                size(state.fixed_bytes),
                size(state.bytes_per_1000_tokens),
                size(state.bytes_at_full_context)
            )?;
        }
        Ok(())
    }
}

/// Bytes in the unit in which they are read most easily; powers of 1024.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.2} GiB")
}
