//! The graph that runs prompts in the place of the general one.

use std::error::Error;
use std::fmt;

use ort::session::IoBinding;
use ort::value::Tensor;

use super::graph::Graph;
use crate::package::Prefill;
use crate::session::{Session, SessionError};

/// Runs of at least this many tokens go through the companion once it is loaded: for fewer, the general graph is as fast.
const USED_FROM: usize = 16;

/// The first run of at least this many tokens loads a companion that is loaded when needed: for fewer, loading costs more time
/// than it saves.
const LOADED_FROM: usize = 256;

/// A graph for prompts that works on the state of the general one.
pub struct Companion {
    load: Box<dyn Fn() -> Result<Session, SessionError> + Send>,
    graph: Option<Graph>,
    lengths: Lengths,
}

/// How long runs are that go through a companion, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lengths {
    /// Of runs that go through it once it is loaded.
    used_from: usize,
    /// Of prompts that load it.
    loaded_from: usize,
}

impl Lengths {
    const WHEN_NEEDED: Self = Self { used_from: USED_FROM, loaded_from: LOADED_FROM };

    /// For decoding there is the general graph.
    const ALWAYS: Self = Self { used_from: 2, loaded_from: 2 };

    fn of(wanted: Prefill) -> Self {
        if wanted == Prefill::Int8 { Self::ALWAYS } else { Self::WHEN_NEEDED }
    }

    /// Whether a prompt of so many tokens, which runs in chunks of `chunk`, loads the companion: one that would run none of the chunks is not
    /// loaded.
    fn are_reached(self, tokens: usize, chunk: usize) -> bool {
        tokens >= self.loaded_from && tokens.min(chunk) >= self.used_from
    }
}

/// Whether a companion, if there is one and the choice is `wanted`, takes part in the run of a prompt of `tokens` tokens in chunks of `chunk`
/// that is the longest of its process.
pub fn takes_part(wanted: Prefill, tokens: usize, chunk: usize) -> bool {
    wanted != Prefill::Same && Lengths::of(wanted).are_reached(tokens, chunk)
}

impl Companion {
    /// A companion that `load` loads when the first long prompt comes (256 tokens), so that short chats pay
    /// neither the time nor the memory.
    pub fn when_needed(load: impl Fn() -> Result<Session, SessionError> + Send + 'static) -> Self {
        Self { load: Box::new(load), graph: None, lengths: Lengths::WHEN_NEEDED }
    }

    /// A companion for the choice `wanted`: one that is insisted on takes every run but those of single tokens.
    pub fn new(wanted: Prefill, load: impl Fn() -> Result<Session, SessionError> + Send + 'static) -> Self {
        Self { lengths: Lengths::of(wanted), ..Self::when_needed(load) }
    }

    /// Sets from how many tokens on a run goes through the companion; the first such run loads it. At least 2: decoding is for
    /// the general graph.
    pub fn always_from(mut self, tokens: usize) -> Self {
        let tokens = tokens.max(Lengths::ALWAYS.used_from);
        self.lengths = Lengths { used_from: tokens, loaded_from: tokens };
        self
    }

    /// Whether it is loaded, which is when a run goes through it for the first time.
    pub fn is_loaded(&self) -> bool {
        self.graph.is_some()
    }

    /// Its session, if it is loaded.
    pub(super) fn session(&self) -> Option<&Session> {
        self.graph.as_ref().map(Graph::session)
    }

    /// Loads the graph if a run of so many tokens in chunks of `chunk` is worth it. The logits of single tokens go to `logits`.
    pub(super) fn prepare(
        &mut self,
        tokens: usize,
        chunk: usize,
        logits: &mut Tensor<f32>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        if self.graph.is_none() && self.lengths.are_reached(tokens, chunk) {
            self.graph = Some(Graph::new((self.load)()?, 1, logits)?);
            tracing::info!("the graph for prompts is loaded");
        }
        Ok(())
    }

    /// The graph, if it is loaded and worth it for so many tokens.
    pub(super) fn graph_for(&mut self, tokens: usize) -> Option<&mut Graph> {
        self.graph.as_mut().filter(|_| tokens >= self.lengths.used_from)
    }

    /// What is bound to the graph, if it is loaded.
    pub(super) fn binding(&mut self) -> Option<&mut IoBinding> {
        self.graph.as_mut().map(Graph::binding)
    }
}

impl fmt::Debug for Companion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lengths { used_from, loaded_from } = self.lengths;
        write!(f, "Companion(used from {used_from}, loaded from {loaded_from}, loaded: {})", self.is_loaded())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_companion_takes_part_where_it_is_worth_it() {
        assert!(!takes_part(Prefill::Auto, LOADED_FROM - 1, 512) && takes_part(Prefill::Auto, LOADED_FROM, 512));
        assert!(!takes_part(Prefill::Auto, 512, USED_FROM - 1) && takes_part(Prefill::Auto, 512, USED_FROM));
        assert!(takes_part(Prefill::Int8, 2, 512) && !takes_part(Prefill::Int8, 1, 512));
        assert!(!takes_part(Prefill::Int8, 512, 1), "single tokens are for the general graph");
        assert!(!takes_part(Prefill::Same, 512, 512));
    }
}
