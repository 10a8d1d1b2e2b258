//! One static graph with everything that is bound to it.

use std::error::Error;

use lfm2_graphs::contract::{AttentionInputs, Contract, Port, RowInputs};
use lfm2_graphs::format::{RopePart, rope_rows};
use ort::memory::Allocator;
use ort::session::{IoBinding, RunOptions};
use ort::value::{DynTensor, Tensor};

use super::numbers;
use super::state::FixedState;
use crate::decoder::embedding::Embedding;
use crate::session::Session;
use crate::state::StateError;

/// A session and its bindings. All shapes are fixed, so that everything is bound once and only the numbers change.
pub(super) struct FixedGraph {
    session: Session,
    binding: IoBinding,
    /// Tokens of a run.
    tokens: usize,
    hidden_size: usize,
    embeddings: DynTensor,
    attention: Option<AttentionTensors>,
    /// What a run adds to each state.
    returned: Vec<DynTensor>,
    /// Scores of the next token; graphs for chunks have none.
    logits: Option<Tensor<f32>>,
    /// What a graph for calibration tells of its values.
    ranges: Option<Tensor<f32>>,
}

/// What the attention layers are told about the tokens of a run.
struct AttentionTensors {
    cosines: DynTensor,
    sines: DynTensor,
    bias: DynTensor,
    hidden: f32,
    past: usize,
    /// Tokens of the past that `bias` shows.
    visible: usize,
}

impl FixedGraph {
    /// Binds everything, the inputs of `state` among it.
    pub(super) fn new(session: Session, state: &FixedState) -> Result<Self, StateError> {
        let contract = session.contract();
        let RowInputs { tokens, past, embeddings, attention } = contract.rows()?.clone();
        let mut binding = session.inner.create_binding()?;
        let input = |port, elements: usize, binding: &mut IoBinding| -> Result<DynTensor, StateError> {
            let (tensor, shape) = numbers::zeros(port)?;
            if shape.iter().product::<usize>() != elements {
                return Err(StateError::Shape { name: port.name.clone() });
            }
            binding.bind_input(&*port.name, &tensor)?;
            Ok(tensor)
        };
        let hidden_size = contract.hidden_size;
        let rows = input(&embeddings, tokens * hidden_size, &mut binding)?;
        let attention = match (attention, &contract.rope) {
            (Some(AttentionInputs { cosines, sines, bias, hidden }), Some(rope)) => {
                let rotary = tokens * (rope.head_dim / 2);
                let mut attention = AttentionTensors {
                    cosines: input(&cosines, rotary, &mut binding)?,
                    sines: input(&sines, rotary, &mut binding)?,
                    bias: input(&bias, tokens * (past + tokens), &mut binding)?,
                    hidden: hidden as f32,
                    past,
                    visible: 0,
                };
                attention.hide_all(tokens)?;
                Some(attention)
            }
            (None, _) => None,
            (Some(inputs), None) => return Err(StateError::Shape { name: inputs.cosines.name }),
        };
        state.bind(&mut binding)?;
        let mut returned = Vec::new();
        for state in &contract.states {
            let mut tensor = numbers::zeros(&state.present)?.0;
            binding.bind_output(&*state.present.name, &mut tensor)?;
            returned.push(tensor);
        }
        let mut floats = |port: &Port| -> Result<Tensor<f32>, StateError> {
            let shape: Vec<usize> = port.shape.iter().filter_map(|dim| dim.fixed()).collect();
            let mut tensor = Tensor::<f32>::new(&Allocator::default(), shape)?;
            binding.bind_output(&*port.name, &mut tensor)?;
            Ok(tensor)
        };
        let logits = contract.outputs.logits.as_ref().map(&mut floats).transpose()?;
        let ranges = contract.outputs.ranges.as_ref().map(|ranges| floats(&ranges.port)).transpose()?;
        Ok(Self { binding, tokens, hidden_size, embeddings: rows, attention, returned, logits, ranges, session })
    }

    /// Description of the graph.
    pub(super) fn contract(&self) -> &Contract {
        self.session.contract()
    }

    /// Which of its nodes runs where.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Tokens of a run.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Writes what a run of `tokens` behind `len` tokens needs. Where the graph takes more tokens than there are, the last rows
    /// stay what they were: such tokens come last, so that no real one sees them.
    pub(super) fn prepare(
        &mut self,
        tokens: &[u32],
        len: usize,
        embedding: &mut Embedding,
        rotary: &Rotary,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        for (place, &token) in tokens.iter().enumerate() {
            let row = embedding.row(token)?;
            numbers::write(&mut self.embeddings, place * self.hidden_size, row)?;
        }
        if let Some(attention) = &mut self.attention {
            let rows = tokens.len();
            numbers::write(&mut attention.cosines, 0, rotary.cosines(len, rows))?;
            numbers::write(&mut attention.sines, 0, rotary.sines(len, rows))?;
            attention.show(len, self.tokens)?;
        }
        Ok(())
    }

    /// Runs what was prepared.
    pub(super) fn run(&mut self, options: &RunOptions) -> Result<(), StateError> {
        // The outputs are tensors of this graph already.
        drop(self.session.inner.run_binding_with_options(&self.binding, options)?);
        Ok(())
    }

    /// What the last run adds to each state.
    pub(super) fn returned(&self) -> &[DynTensor] {
        &self.returned
    }

    /// The least and the largest number of each value during the last run; empty if the graph does not tell them.
    pub(super) fn ranges(&self) -> &[f32] {
        self.ranges.as_ref().map_or(&[], |ranges| ranges.extract_tensor().1)
    }

    /// Scores of the token after the last run, `[vocab_size]`; empty if the graph has none.
    pub(super) fn logits(&self) -> &[f32] {
        self.logits.as_ref().map_or(&[], |logits| logits.extract_tensor().1)
    }
}

impl AttentionTensors {
    /// Hides all of the past, and from each token of the run those behind it, for good.
    fn hide_all(&mut self, tokens: usize) -> Result<(), StateError> {
        let width = self.past + tokens;
        numbers::fill(&mut self.bias, 0, tokens * width, self.hidden)?;
        for token in 0..tokens {
            numbers::fill(&mut self.bias, token * width + self.past, token + 1, 0.0)?;
        }
        self.visible = 0;
        Ok(())
    }

    /// Shows the first `len` tokens of the past. From one step to the next, that is a number or two.
    fn show(&mut self, len: usize, tokens: usize) -> Result<(), StateError> {
        let (from, to) = (self.visible.min(len), self.visible.max(len));
        let number = if len > self.visible { 0.0 } else { self.hidden };
        for token in 0..tokens {
            numbers::fill(&mut self.bias, token * (self.past + tokens) + from, to - from, number)?;
        }
        self.visible = len;
        Ok(())
    }
}

/// The rotary tables of every position that there can be.
pub(super) struct Rotary {
    cosines: Vec<f32>,
    sines: Vec<f32>,
    /// Values of a position.
    width: usize,
}

impl Rotary {
    /// The tables of `contract`; empty if it has no attention.
    pub(super) fn new(contract: &Contract) -> Self {
        let table = |part| match &contract.rope {
            Some(rope) => rope_rows(part, rope.theta, rope.head_dim, 0, contract.context_length),
            None => Vec::new(),
        };
        let width = contract.rope.as_ref().map_or(0, |rope| rope.head_dim / 2);
        Self { cosines: table(RopePart::Cos), sines: table(RopePart::Sin), width }
    }

    fn cosines(&self, start: usize, rows: usize) -> &[f32] {
        &self.cosines[start * self.width..][..rows * self.width]
    }

    fn sines(&self, start: usize, rows: usize) -> &[f32] {
        &self.sines[start * self.width..][..rows * self.width]
    }
}
