//! The graphs of a package for a provider other than the processor.

use lfm2_graphs::contract::{Contract, Purpose, RowInputs, Target};

use super::again::Again;
use super::{Lacking, Package, PackageError, contract_of, files};

/// Two static graphs over the same states.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Runs parts of prompts.
    pub chunk: Package,
    /// Runs one token, and is the one that has logits.
    pub token: Package,
}

impl Pair {
    /// Compares the files of both graphs with the manifest, as [`Package::verify`] does.
    pub fn verify(&self) -> Result<(), PackageError> {
        [&self.chunk, &self.token].into_iter().try_for_each(Package::verify)
    }
}

impl Package {
    /// The graph that runs prompts and single tokens on `target`, which takes graphs of any shape: this one for the processor,
    /// another one beside it for GPUs.
    ///
    /// # Errors
    /// If there is none, or it is not complete or not of this package.
    pub fn dynamic(&self, target: Target) -> Result<Self, PackageError> {
        if target == Target::Cpu {
            return Ok(self.clone());
        }
        let found = self.beside(target, Purpose::General)?;
        self.refuse_strangers(target, general_problems(&self.contract, &found.contract))?;
        Ok(found)
    }

    /// The pair of static graphs for `target`.
    ///
    /// # Errors
    /// If there is none, or it is not complete, or its graphs do not belong to each other and to this one.
    pub fn pair(&self, target: Target) -> Result<Pair, PackageError> {
        let [chunk, token] = [Purpose::Chunk, Purpose::Token].map(|purpose| self.beside(target, purpose));
        let pair = Pair { chunk: chunk?, token: token? };
        let mut problems = general_problems(&self.contract, &pair.token.contract);
        problems.extend(pair_problems(&pair.chunk.contract, &pair.token.contract));
        self.refuse_strangers(target, problems)?;
        Ok(pair)
    }

    /// The static graph that tells ranges of values, beside a graph for calibration; none where no graphs of integers can be made.
    ///
    /// # Errors
    /// If it is not complete or not of this package.
    pub fn ranges(&self) -> Result<Option<Self>, PackageError> {
        let target = Target::Qnn;
        match self.beside(target, Purpose::Calibrate) {
            Err(PackageError::NoTarget { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(found) => {
                let mut problems = general_problems(&self.contract, &found.contract);
                problems.extend(ranges_problems(&found.contract));
                if problems.is_empty() {
                    return Ok(Some(found));
                }
                Err(PackageError::Ranges { graph: found.graph, problems })
            }
        }
    }

    /// The graph for `purpose` on `target` in the package of this one.
    fn beside(&self, target: Target, purpose: Purpose) -> Result<Self, PackageError> {
        let missing = || {
            let Again { command, notes } = self.again(Lacking::Graphs(target));
            PackageError::NoTarget { graph: self.graph.clone(), target, command, notes }
        };
        let name = self.graph.file_name().and_then(|name| name.to_str()).ok_or_else(missing)?;
        let graph = self.graph.with_file_name(target.graph_name(name, purpose).ok_or_else(missing)?);
        if let Some((manifest, name)) = self.listed() {
            let name = target.graph_name(&name, purpose).ok_or_else(missing)?;
            if !manifest.graphs.iter().any(|graph| graph.file == name && graph.purpose == purpose) {
                return Err(missing());
            }
            files::check_sizes(&self.folder, manifest, &name)?;
        } else if !graph.is_file() {
            return Err(missing());
        }
        let contract = contract_of(&graph)?;
        let found = Self { graph, contract, ..self.clone() };
        found.require(purpose)?;
        Ok(found)
    }

    fn refuse_strangers(&self, target: Target, problems: Vec<String>) -> Result<(), PackageError> {
        if problems.is_empty() {
            return Ok(());
        }
        let Again { command, .. } = self.again(Lacking::Graphs(target));
        Err(PackageError::Pair { graph: self.graph.clone(), target, command, problems })
    }
}

/// What tells `found` from a graph of the model that `general` is a graph of.
fn general_problems(general: &Contract, found: &Contract) -> Vec<String> {
    let mut problems = Vec::new();
    let mut compare = |what: &str, is_equal: bool| {
        if !is_equal {
            problems.push(format!("another {what} than the general graph"));
        }
    };
    compare("family", general.family == found.family);
    compare("vocabulary", general.vocab_size == found.vocab_size);
    compare("width", general.hidden_size == found.hidden_size);
    compare("number of layers", general.layers == found.layers);
    compare("rotary embedding", general.rope == found.rope);
    let kinds = |contract: &Contract| contract.states.iter().map(|it| (it.layer, it.kind)).collect::<Vec<_>>();
    compare("order of layers", kinds(general) == kinds(found));
    problems
}

/// Why two static graphs cannot work on one state.
fn pair_problems(chunk: &Contract, token: &Contract) -> Vec<String> {
    let mut problems = Vec::new();
    let (Ok(chunk_inputs), Ok(token_inputs)) = (chunk.rows(), token.rows()) else {
        return vec!["graphs that take token ids".to_owned()];
    };
    let mut compare = |what: &str, is_equal: bool| {
        if !is_equal {
            problems.push(format!("{what} differ between the two graphs"));
        }
    };
    compare("precision and dialect", (&chunk.precision, &chunk.dialect) == (&token.precision, &token.dialect));
    compare("vocabulary and width", (chunk.vocab_size, chunk.hidden_size) == (token.vocab_size, token.hidden_size));
    compare("rotary embeddings", chunk.rope == token.rope);
    compare("rows of the past", chunk_inputs.past == token_inputs.past);
    compare("context lengths", chunk.context_length == token.context_length);
    compare("tables", (chunk.table.rows, chunk.table.columns) == (token.table.rows, token.table.columns));
    let states = |contract: &Contract| {
        let states = contract.states.iter();
        states
            .map(|it| (it.layer, it.kind, it.update, it.axis, it.past.dtype, it.past.shape.clone(), it.scale))
            .collect::<Vec<_>>()
    };
    compare("states", states(chunk) == states(token));
    if token_inputs.tokens != 1 || token.outputs.logits.is_none() {
        problems.push("the graph for single tokens takes more than one, or has no logits".to_owned());
    }
    if chunk_inputs.tokens == 0 {
        problems.push("the graph for chunks takes no tokens".to_owned());
    }
    for (contract, inputs) in [(chunk, chunk_inputs), (token, token_inputs)] {
        if contradicts_itself(contract, inputs) {
            problems.push(format!("the {:?} graph contradicts itself", contract.purpose).to_lowercase());
        }
    }
    problems
}

/// Why nothing can be observed with a static graph.
fn ranges_problems(contract: &Contract) -> Vec<String> {
    let Ok(inputs) = contract.rows() else { return vec!["a graph that takes token ids".to_owned()] };
    let mut problems = Vec::new();
    match &contract.outputs.ranges {
        None => problems.push("no output with ranges".to_owned()),
        Some(ranges) if ranges.port.shape != [(2 * ranges.values.len()).into()] => {
            problems.push("an output with ranges of another number of values than it names".to_owned());
        }
        Some(_) => {}
    }
    if contradicts_itself(contract, inputs) || !(1..=contract.context_length).contains(&inputs.tokens) {
        problems.push("sizes that contradict each other".to_owned());
    }
    problems
}

/// Whether the sizes of a static graph cannot be true at once.
fn contradicts_itself(contract: &Contract, inputs: &RowInputs) -> bool {
    let fits = contract.context_length <= inputs.past || contract.rope.is_none();
    !fits || contract.table.rows != contract.vocab_size || contract.table.columns != contract.hidden_size
}
