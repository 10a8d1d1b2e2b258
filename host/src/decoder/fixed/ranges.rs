//! Runs a text through the static graph that tells between which bounds its values lie.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use ort::session::RunOptions;

use super::graph::{FixedGraph, Rotary};
use super::state::FixedState;
use super::{DecoderError, failed_after};
use crate::cancel::Cancel;
use crate::decoder::embedding::Embedding;
use crate::session::Session;

/// The graph with its state, and what it has told so far.
pub struct RangeObserver {
    graph: FixedGraph,
    state: FixedState,
    embedding: Embedding,
    rotary: Rotary,
    context_length: usize,
    names: Vec<String>,
    bounds: Vec<[f32; 2]>,
}

impl RangeObserver {
    /// Nothing told yet. The graph of `session`, which [`Package::ranges`](crate::package::Package::ranges) found, lies in `folder`.
    pub fn new(session: Session, folder: &Path) -> Result<Self, DecoderError> {
        Self::assemble(session, folder).map_err(failed_after(0))
    }

    fn assemble(session: Session, folder: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let contract = session.contract();
        let names = contract.outputs.ranges.as_ref().map(|ranges| ranges.values.clone()).unwrap_or_default();
        let embedding = Embedding::open(folder, &contract.table)?;
        let (state, rotary) = (FixedState::new(&contract.states)?, Rotary::new(contract));
        let context_length = contract.context_length;
        let bounds = vec![[f32::INFINITY, f32::NEG_INFINITY]; names.len()];
        let graph = FixedGraph::new(session, &state)?;
        Ok(Self { graph, state, embedding, rotary, context_length, names, bounds })
    }

    /// Runs `tokens` from an empty state, or in as many parts from empty states as the graph's context asks for.
    ///
    /// A run takes a fixed number of tokens. Where fewer are left, the text begins again behind them, as another turn does in a
    /// conversation: every position that is observed has a real token.
    ///
    /// `cancel` is looked at before every run.
    pub fn observe(&mut self, tokens: &[u32], cancel: &Cancel) -> Result<(), DecoderError> {
        let run = self.graph.tokens();
        let longest = self.context_length - self.context_length % run.max(1);
        for part in tokens.chunks(longest.max(1)) {
            self.state.reset().map_err(failed_after(0))?;
            for (index, chunk) in part.chunks(run).enumerate() {
                if cancel.is_cancelled() {
                    return Err(DecoderError::Cancelled);
                }
                let fill = part.iter().cycle().take(run - chunk.len());
                let filled: Vec<u32> = chunk.iter().chain(fill).copied().collect();
                self.run(&filled).map_err(failed_after(index * run))?;
            }
        }
        Ok(())
    }

    fn run(&mut self, tokens: &[u32]) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.graph.prepare(tokens, self.state.len(), &mut self.embedding, &self.rotary)?;
        self.graph.run(&RunOptions::new()?)?;
        self.state.advance(self.graph.returned(), tokens.len())?;
        let (told, _) = self.graph.ranges().as_chunks::<2>();
        for ([least, largest], [low, high]) in self.bounds.iter_mut().zip(told) {
            // What is not a number stays so, to be reported.
            *least = if low < least || low.is_nan() { *low } else { *least };
            *largest = if high > largest || high.is_nan() { *high } else { *largest };
        }
        Ok(())
    }

    /// The least and the largest number of each value over everything that was run, by the value's name.
    pub fn ranges(&self) -> BTreeMap<String, [f32; 2]> {
        self.names.iter().cloned().zip(self.bounds.iter().copied()).collect()
    }
}
