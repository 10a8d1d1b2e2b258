//! The graph that runs prompts in the place of the general one.

use std::error::Error;
use std::fmt;

use ort::session::IoBinding;
use ort::value::Tensor;

use super::graph::Graph;
use crate::package::Prefill;
use crate::session::{Session, SessionError};

/// Runs of at least this many tokens go through the companion once it is loaded: for fewer, the general graph is as fast.
pub const USED_FROM: usize = 16;

/// The first run of at least this many tokens loads a companion that is loaded when needed: for fewer, loading costs more time
/// than it saves.
pub const LOADED_FROM: usize = 256;

/// A graph for prompts that works on the state of the general one.
pub struct Companion {
    load: Box<dyn Fn() -> Result<Session, SessionError> + Send>,
    graph: Option<Graph>,
    used_from: usize,
    loaded_from: usize,
}

impl Companion {
    /// A companion that `load` loads when the first long prompt comes ([`LOADED_FROM`] tokens), so that short chats pay
    /// neither the time nor the memory.
    pub fn when_needed(load: impl Fn() -> Result<Session, SessionError> + Send + 'static) -> Self {
        Self { load: Box::new(load), graph: None, used_from: USED_FROM, loaded_from: LOADED_FROM }
    }

    /// A companion for the choice `wanted`: one that is insisted on takes every run but those of single tokens.
    pub fn new(wanted: Prefill, load: impl Fn() -> Result<Session, SessionError> + Send + 'static) -> Self {
        let companion = Self::when_needed(load);
        if wanted == Prefill::Int8 { companion.always_from(2) } else { companion }
    }

    /// Sets from how many tokens on a run goes through the companion; the first such run loads it. At least 2: decoding is for
    /// the general graph.
    pub fn always_from(mut self, tokens: usize) -> Self {
        self.used_from = tokens.max(2);
        self.loaded_from = self.used_from;
        self
    }

    /// Whether it is loaded.
    pub fn is_loaded(&self) -> bool {
        self.graph.is_some()
    }

    /// Loads the graph if a run of so many tokens is worth it. The logits of single tokens go to `logits`.
    pub(super) fn prepare(
        &mut self,
        tokens: usize,
        logits: &mut Tensor<f32>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        if self.graph.is_none() && tokens >= self.loaded_from {
            self.graph = Some(Graph::new((self.load)()?, 1, logits)?);
            tracing::info!("the graph for prompts is loaded");
        }
        Ok(())
    }

    /// The graph, if it is loaded and worth it for so many tokens.
    pub(super) fn graph_for(&mut self, tokens: usize) -> Option<&mut Graph> {
        self.graph.as_mut().filter(|_| tokens >= self.used_from)
    }

    /// What is bound to the graph, if it is loaded.
    pub(super) fn binding(&mut self) -> Option<&mut IoBinding> {
        self.graph.as_mut().map(Graph::binding)
    }
}

impl fmt::Debug for Companion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { used_from, loaded_from, .. } = self;
        write!(f, "Companion(used from {used_from}, loaded from {loaded_from}, loaded: {})", self.is_loaded())
    }
}
