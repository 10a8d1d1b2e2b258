//! Steps through a pair of static graphs: one for chunks of prompts, one for single tokens.

mod graph;
mod numbers;
mod ranges;
mod state;

pub use ranges::RangeObserver;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lfm2_graphs::contract::{Contract, StateKind};
use ndarray::ArrayView1;
use ort::session::RunOptions;

use super::embedding::Embedding;
use super::{Decoder, DecoderError, DecoderSettings, Rewind, StateValues};
use crate::cancel::Cancel;
use crate::session::{Placement, Session};
use graph::{FixedGraph, Rotary};
use state::FixedState;

/// A rest of a prompt of at most one token in so many of a chunk goes through the graph for single tokens, one by one; a longer
/// one goes through the graph for chunks, with padding. Both are exact. A run for a single token reads all weights, and a run for a
/// chunk reads them once and computes more: on NPUs it takes as long as a few single tokens, on processors as long as many.
const SINGLES: usize = 16;

/// Two static graphs with the state of one sequence.
///
/// The host looks up the rows of the tokens, knows the positions, hides what a token may not see, and keeps the states; the graphs
/// return what they add. The parts of a prompt go through the graph for chunks; its last token, and every token of the answer, go
/// through the graph for single tokens, which alone has logits.
///
/// Everything is bound once, and a step allocates nothing of its own. Each of the two sessions has loaded the weights for itself:
/// from the one file that they share, but into memory of its own, except for what the runtime maps from the file.
pub struct FixedDecoder {
    chunk: FixedGraph,
    token: FixedGraph,
    state: FixedState,
    embedding: Embedding,
    rotary: Rotary,
    context_length: usize,
    cancel: Cancel,
    /// Stops the run that is under way.
    options: Arc<RunOptions>,
    run_time: Duration,
}

impl FixedDecoder {
    /// An empty sequence on the sessions of a [`Pair`](crate::package::Pair), whose graphs lie in `folder`, of at most `max_context`
    /// tokens if given (`--max-context`).
    pub fn new(
        chunk: Session,
        token: Session,
        folder: &Path,
        max_context: Option<usize>,
    ) -> Result<Self, DecoderError> {
        let available = token.contract().context_length;
        let context_length = max_context.unwrap_or(available);
        if context_length > available {
            return Err(DecoderError::ContextTooLong { asked: context_length, available, flag: "--static-context" });
        }
        Self::assemble(chunk, token, folder, context_length).map_err(failed_after(0))
    }

    fn assemble(
        chunk: Session,
        token: Session,
        folder: &Path,
        context_length: usize,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let contract = token.contract();
        contract.logits()?;
        let embedding = Embedding::open(folder, &contract.table)?;
        let (state, rotary) = (FixedState::new(&contract.states)?, Rotary::new(contract));
        Ok(Self {
            chunk: FixedGraph::new(chunk, &state)?,
            token: FixedGraph::new(token, &state)?,
            state,
            embedding,
            rotary,
            context_length,
            cancel: Cancel::new(),
            options: Arc::new(RunOptions::new()?),
            run_time: Duration::ZERO,
        })
    }

    /// Lets `cancel` stop long prompts: between two runs, and within one where the provider looks for it.
    pub fn set_cancel(&mut self, cancel: Cancel) {
        self.cancel = cancel;
    }

    /// Description of the graph for single tokens.
    pub fn contract(&self) -> &Contract {
        self.token.contract()
    }

    /// Which node runs where, of the graph for chunks and of that for single tokens.
    pub fn placements(&self) -> [&Placement; 2] {
        self.sessions().map(Session::placement)
    }

    /// The sessions of the graph for chunks and of that for single tokens.
    pub(super) fn sessions(&self) -> [&Session; 2] {
        [self.chunk.session(), self.token.session()]
    }

    /// How many tokens of a prompt are run at once.
    pub fn chunk(&self) -> usize {
        self.chunk.tokens()
    }

    /// Tokens of the shortest prompt of which a part goes through the graph for chunks: the last token never does.
    pub fn shortest_with_chunk(&self) -> usize {
        self.chunk() / SINGLES + 2
    }

    /// How this decoder computes.
    pub fn settings(&self) -> DecoderSettings {
        let contract = self.contract();
        let keys = contract.states.iter().find(|state| state.kind == StateKind::Key);
        DecoderSettings {
            chunk: self.chunk(),
            prefill: contract.formats(),
            speculate: 0,
            kv: keys.map_or("none", |state| state.past.dtype.name()).to_owned(),
        }
    }

    /// The states by name of their output, in layer order: convolution columns `[1, conv_L_cache - 1, hidden_size]`, keys
    /// `[kv_heads, head_dim, len]`, values `[kv_heads, len, head_dim]`.
    pub fn states(&self) -> Result<Vec<StateValues>, DecoderError> {
        self.state.values().map_err(failed_after(self.len()))
    }

    /// Runs `tokens`, which are at most as many as the graph takes.
    fn run(&mut self, part: Part, tokens: &[u32]) -> Result<(), DecoderError> {
        let held = self.len();
        let graph = match part {
            Part::Chunk => &mut self.chunk,
            Part::Token => &mut self.token,
        };
        graph.prepare(tokens, held, &mut self.embedding, &self.rotary).map_err(failed_after(held))?;
        let start = Instant::now();
        self.options.unterminate().map_err(failed_after(held))?;
        // A single token is soon done.
        let stop = (part == Part::Chunk).then(|| {
            let options = self.options.clone();
            self.cancel.during(move || {
                if let Err(error) = options.terminate() {
                    tracing::warn!("the run cannot be stopped: {error}");
                }
            })
        });
        let result = graph.run(&self.options);
        drop(stop);
        self.run_time += start.elapsed();
        match result {
            // The states are the host's, and are as they were before.
            Err(_) if part == Part::Chunk && self.cancel.is_cancelled() => Err(DecoderError::Cancelled),
            result => {
                result.and_then(|()| self.state.advance(graph.returned(), tokens.len())).map_err(failed_after(held))
            }
        }
    }

    /// What must hold before anything is run.
    fn check(&self, tokens: &[u32]) -> Result<(), DecoderError> {
        let (held, vocab_size) = (self.len(), self.vocab_size());
        if tokens.is_empty() {
            return Err(DecoderError::NoTokens);
        }
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(DecoderError::UnknownToken { id, vocab_size });
        }
        if tokens.len() > self.context_length - held {
            return Err(DecoderError::ContextFull { held, given: tokens.len(), context_length: self.context_length });
        }
        Ok(())
    }
}

/// Which graph a part of a prompt goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Chunk,
    Token,
}

/// What the next run takes of `left` tokens before the last one of a prompt, with chunks of `chunk` tokens: the graph, and how many.
fn next_part(left: usize, chunk: usize) -> (Part, usize) {
    if left >= chunk || left > chunk / SINGLES { (Part::Chunk, left.min(chunk)) } else { (Part::Token, 1) }
}

impl Decoder for FixedDecoder {
    fn step(&mut self, tokens: &[u32]) -> Result<ArrayView1<'_, f32>, DecoderError> {
        self.check(tokens)?;
        let mut left = tokens;
        while !left.is_empty() {
            if left.len() < tokens.len() && self.cancel.is_cancelled() {
                return Err(DecoderError::Cancelled);
            }
            let (part, count) = match left.len() {
                1 => (Part::Token, 1),
                before => next_part(before - 1, self.chunk()),
            };
            let (part_tokens, behind) = left.split_at(count);
            self.run(part, part_tokens)?;
            left = behind;
        }
        Ok(ArrayView1::from(self.token.logits()))
    }

    fn steps_all_at_once(&self) -> bool {
        // The graph for chunks has no logits.
        false
    }

    fn reset(&mut self) {
        // Fails only if a tensor of this decoder is no tensor.
        if let Err(error) = self.state.reset() {
            tracing::error!("the state cannot be reset: {error}");
        }
    }

    fn len(&self) -> usize {
        self.state.len()
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocab_size(&self) -> usize {
        self.contract().vocab_size
    }

    fn run_time(&self) -> Duration {
        self.run_time
    }
}

impl Rewind for FixedDecoder {
    fn mark(&mut self) -> Result<(), DecoderError> {
        self.state.mark().map_err(failed_after(self.len()))
    }

    fn rewind(&mut self) -> Result<(), DecoderError> {
        let held = self.len();
        let marked = self.state.rewind().map_err(failed_after(held))?;
        if marked { Ok(()) } else { Err(DecoderError::NotMarked) }
    }
}

/// Wraps what went wrong in a run that began with `held` tokens.
fn failed_after<E: Into<Box<dyn Error + Send + Sync>>>(held: usize) -> impl Fn(E) -> DecoderError {
    move |source| DecoderError::Run { held, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_rests_go_token_by_token() {
        let parts = |mut left: usize, chunk: usize| {
            let mut parts = Vec::new();
            while left > 0 {
                let (part, count) = next_part(left, chunk);
                parts.push((part == Part::Chunk, count));
                left -= count;
            }
            parts
        };
        assert_eq!(parts(300, 128), [(true, 128), (true, 128), (true, 44)]);
        assert_eq!(parts(258, 128), [(true, 128), (true, 128), (false, 1), (false, 1)]);
        assert_eq!((parts(9, 128), parts(8, 128).len()), (vec![(true, 9)], 8));
        // Of small chunks every part takes one run.
        assert_eq!(parts(5, 4), [(true, 4), (true, 1)]);
        assert_eq!(parts(2, 1), [(true, 1), (true, 1)]);
    }
}
