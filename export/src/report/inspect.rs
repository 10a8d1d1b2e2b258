//! One graph: contract, operators, number formats and sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Component, Path};

use lfm2_graphs::contract::{Contract, Dim, Purpose};
use serde::Serialize;

use super::{OpenedGraph, ReportError, numbers};
use crate::proto::{Port, Stored, Tensor};

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
    pub inputs: Vec<Port>,
    /// Outputs with types and shapes.
    pub outputs: Vec<Port>,
    /// How often each operator is called.
    pub operators: BTreeMap<String, usize>,
    /// Tensors by number format.
    pub formats: BTreeMap<String, FormatUse>,
    /// Bytes of all tensors, those that several share counted once.
    pub weight_bytes: u64,
    /// Files beside the ONNX file that hold weights.
    pub data_files: BTreeSet<String>,
    /// What a conversation needs; absent without a contract.
    pub state: Option<StateMemory>,
    /// Why the package cannot be run: files that are missing or too short.
    pub problems: Vec<String>,
}

/// Tensors of one number format.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FormatUse {
    /// Number of tensors. Those that share their bytes count once here and below.
    pub tensors: usize,
    /// Number of values; of packed tensors, what the bytes stand for.
    pub values: u64,
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

/// Collects the facts of an opened graph. Fails if it names sizes that cannot be.
pub fn inspect(opened: &OpenedGraph) -> Result<Inspection, ReportError> {
    let model = &opened.model;
    let mut operators = BTreeMap::new();
    for node in &model.nodes {
        *operators.entry(node.op.clone()).or_default() += 1;
    }
    let sizes = |what: &str| ReportError::Sizes { path: opened.path.clone(), what: what.to_owned() };
    let packed = numbers::packed(model);
    let mut formats = BTreeMap::<String, FormatUse>::new();
    let mut shared = BTreeSet::new();
    let mut ends = BTreeMap::<&str, u64>::new();
    let mut weight_bytes = 0_u64;
    for tensor in &model.tensors {
        let refused = || sizes(&tensor.name);
        if let Stored::External { file, offset } = &tensor.stored {
            let end = offset.checked_add(tensor.bytes).ok_or_else(refused)?;
            let known = ends.entry(file).or_default();
            *known = end.max(*known);
            if !shared.insert((file, offset)) {
                continue;
            }
        }
        let (format, values) = format(tensor, packed.get(tensor.name.as_str()).copied()).ok_or_else(refused)?;
        weight_bytes = weight_bytes.checked_add(tensor.bytes).ok_or_else(refused)?;
        let format = formats.entry(format).or_default();
        format.tensors += 1;
        format.values = format.values.checked_add(values).ok_or_else(refused)?;
        // Not more than all bytes together.
        format.bytes += tensor.bytes;
    }
    let state = opened.contract.as_ref().map(|contract| state_memory(contract).ok_or_else(|| sizes("the state")));
    let domain = |domain: &str| if domain.is_empty() { "ai.onnx".to_owned() } else { domain.to_owned() };
    Ok(Inspection {
        path: opened.path.display().to_string(),
        producer: model.producer.clone(),
        opsets: model.opsets.iter().map(|(name, version)| (domain(name), *version)).collect(),
        contract: opened.contract.clone(),
        inputs: model.inputs.clone(),
        outputs: model.outputs.clone(),
        operators,
        formats,
        weight_bytes,
        data_files: ends.keys().map(|&file| file.to_owned()).collect(),
        state: state.transpose()?,
        problems: ends.iter().filter_map(|(file, end)| data_problem(&opened.path, file, *end)).collect(),
    })
}

/// Name of the number format and number of values. `None` if the sizes cannot be.
fn format(tensor: &Tensor, packed: Option<(u64, u64)>) -> Option<(String, u64)> {
    match packed {
        Some((bits, block_size)) => {
            Some((format!("{bits}-bit blocks of {block_size}"), tensor.bytes.checked_mul(8)? / bits))
        }
        None => {
            let mut sizes = tensor.shape.iter().map(|&size| u64::try_from(size).ok());
            Some((tensor.dtype.clone(), sizes.try_fold(1_u64, |product, size| product.checked_mul(size?))?))
        }
    }
}

/// Why a file with weights cannot be used of which the first `end` bytes are needed.
fn data_problem(graph: &Path, file: &str, end: u64) -> Option<String> {
    let inside = !file.is_empty() && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Some(format!("{file:?} is no file beside the graph"));
    }
    match fs::metadata(graph.with_file_name(file)) {
        Ok(metadata) if metadata.is_file() && metadata.len() >= end => None,
        Ok(metadata) if metadata.is_file() => {
            Some(format!("{file} has {} bytes, and the graph needs {end}", metadata.len()))
        }
        Ok(_) => Some(format!("{file} is not a file")),
        Err(error) => Some(format!("{file} cannot be read: {error}")),
    }
}

/// `None` if the sizes cannot be.
fn state_memory(contract: &Contract) -> Option<StateMemory> {
    let (mut fixed_bytes, mut per_token) = (0_u64, 0_u64);
    for state in &contract.states {
        // Static graphs have a number where others have the length.
        let per_entry = |(i, _): &(usize, &Dim)| !(state.kind.grows() && *i == state.axis);
        let dims = state.past.shape.iter().enumerate().filter(per_entry);
        let mut sizes = dims.filter_map(|(_, dim)| dim.fixed()).map(|size| size as u64);
        let element = state.past.dtype.size() as u64;
        let bytes = sizes.try_fold(element, |product, size| product.checked_mul(size))?;
        let sum = if state.kind.grows() { &mut per_token } else { &mut fixed_bytes };
        *sum = sum.checked_add(bytes)?;
    }
    Some(StateMemory {
        fixed_bytes,
        bytes_per_1000_tokens: per_token.checked_mul(TOKENS)?,
        bytes_at_full_context: per_token.checked_mul(contract.context_length as u64)?.checked_add(fixed_bytes)?,
    })
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
                    "contract: {} {}{}, {} dialect, ONNX Runtime 1.{} or newer, padding {:?}",
                    contract.family,
                    contract.formats(),
                    purpose(contract.purpose),
                    contract.dialect,
                    contract.minimum_runtime_minor,
                    contract.padding
                )?;
                writeln!(
                    f,
                    "model: {} layers, hidden size {}, {} tokens in the vocabulary, context of {} tokens",
                    contract.layers, contract.hidden_size, contract.vocab_size, contract.context_length
                )?;
                let rolls_back = contract.states.iter().any(|state| state.columns.is_some());
                if rolls_back {
                    writeln!(f, "rollback: the state can be cut after any token of a run (lfm2-host --speculate)")?;
                }
            }
            None => writeln!(f, "contract: none; lfm2-host cannot run this file")?,
        }
        for (title, ports) in [("inputs", &self.inputs), ("outputs", &self.outputs)] {
            writeln!(f, "\n{title}:")?;
            let width = ports.iter().map(|port| port.name.len()).max().unwrap_or(0);
            for port in ports {
                writeln!(f, "  {:width$}  {}", port.name, port.kind())?;
            }
        }
        writeln!(f, "\noperators:")?;
        for (name, count) in &self.operators {
            writeln!(f, "  {count:5}  {name}")?;
        }
        writeln!(f, "\ntensors:")?;
        let width = self.formats.keys().map(String::len).max().unwrap_or(0);
        for (name, FormatUse { tensors, values, bytes }) in &self.formats {
            writeln!(f, "  {tensors:5}  {name:width$}  {values:>13} values  {:>10}", size(*bytes))?;
        }
        let files: Vec<_> = self.data_files.iter().map(String::as_str).collect();
        let files = if files.is_empty() { "the ONNX file".to_owned() } else { files.join(", ") };
        writeln!(f, "  {} in all, in {files}", size(self.weight_bytes))?;
        if let Some(state) = &self.state {
            writeln!(
                f,
                "\nstate of one sequence: {} and {} for every 1000 tokens; {} at full context",
                size(state.fixed_bytes),
                size(state.bytes_per_1000_tokens),
                size(state.bytes_at_full_context)
            )?;
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "\nproblem: {problem}"))
    }
}

/// What a graph is for, if not for running the model.
fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::General => "",
        Purpose::Prefill => " for prompts",
        Purpose::Calibrate => " for calibration",
        Purpose::Chunk => " for chunks of prompts",
        Purpose::Token => " for single tokens",
    }
}

/// Bytes in the unit in which they are read most easily; powers of 1024.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.2} GiB")
}
