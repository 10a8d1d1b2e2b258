//! Steps through ONNX Runtime.

mod statistics;

use std::error::Error;
use std::time::{Duration, Instant};

use lfm2_graphs::contract::Contract;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use ort::memory::Allocator;
use std::sync::Arc;

use ort::session::RunOptions;
use ort::value::{DynValue, Tensor};

use super::companion::Companion;
use super::graph::{Graph, Logits};
use super::{Decoder, DecoderError, Rewind};
use crate::cancel::Cancel;
use crate::session::{Placement, Session};
use crate::state::{Growth, State, StateError, StateValues};
use statistics::Statistics;

/// Tokens of a long prompt that are run at once, unless set otherwise.
const CHUNK: usize = 512;

/// Tokens that caches grow by at least.
const BLOCK: usize = 512;

/// A graph with the state of one sequence.
///
/// Inputs, outputs and states are bound once. A decode step writes its token into the bound input and binds a longer mask;
/// caches are replaced only when they grow.
pub struct OrtDecoder {
    general: Graph,
    /// Runs prompts in the place of the general graph.
    companion: Option<Companion>,
    state: State,
    /// Logits of the last token.
    logits: Tensor<f32>,
    /// Logits of every token of the last verification, `[1, tokens, vocab_size]`.
    rows: Option<DynValue>,
    statistics: Statistics,
    context_length: usize,
    chunk: usize,
    cancel: Cancel,
    /// Stops the run that is under way.
    options: Arc<RunOptions>,
    run_time: Duration,
    /// Whether a run failed, after which the state is undefined.
    failed: bool,
}

impl OrtDecoder {
    /// An empty sequence on `session`, of at most `max_context` tokens if given (`--max-context`).
    pub fn new(session: Session, max_context: Option<usize>) -> Result<Self, DecoderError> {
        let available = session.contract().context_length;
        let context_length = max_context.unwrap_or(available);
        if context_length > available {
            return Err(DecoderError::ContextTooLong { asked: context_length, available, flag: "--max-context" });
        }
        Self::assemble(session, context_length).map_err(failed_after(0))
    }

    fn assemble(session: Session, context_length: usize) -> Result<Self, StateError> {
        let contract = session.contract();
        let growth = Growth { block: BLOCK, limit: context_length };
        let state = State::new(&contract.states, growth, session.memory())?;
        let mut logits = Tensor::new(&Allocator::default(), [1, 1, contract.vocab_size])?;
        let mut general = Graph::new(session, 0, &mut logits)?;
        Ok(Self {
            statistics: Statistics::new(&mut general)?,
            general,
            companion: None,
            state,
            logits,
            rows: None,
            context_length,
            chunk: CHUNK,
            cancel: Cancel::new(),
            options: Arc::new(RunOptions::new()?),
            run_time: Duration::ZERO,
            failed: false,
        })
    }

    /// Lets `companion` run prompts. It must be the companion of this graph: [`crate::package::Package::prefill`] has it.
    pub fn set_companion(&mut self, companion: Companion) {
        self.companion = Some(companion);
    }

    /// The graph that runs prompts in the place of the general one, if there is one.
    pub fn companion(&self) -> Option<&Companion> {
        self.companion.as_ref()
    }

    /// Sets how many tokens of a prompt are run at once: more are faster up to a point, and need more memory. The logits are
    /// the same but for rounding. At least 1.
    pub fn set_chunk(&mut self, tokens: usize) {
        self.chunk = tokens.max(1);
    }

    /// How many tokens of a prompt are run at once.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Lets `cancel` stop long prompts, between two operations of the graph.
    pub fn set_cancel(&mut self, cancel: Cancel) {
        self.cancel = cancel;
    }

    /// Description of the graph.
    pub fn contract(&self) -> &Contract {
        self.general.contract()
    }

    /// Which node of the graph runs where; the companion is not counted.
    pub fn placement(&self) -> &Placement {
        self.general.session().placement()
    }

    /// The session of the general graph, and that of the companion if it is loaded.
    pub(super) fn sessions(&self) -> Vec<&Session> {
        let companion = self.companion.as_ref().and_then(Companion::session);
        [self.general.session()].into_iter().chain(companion).collect()
    }

    /// The states by name of their output, in layer order: convolution columns `[1, hidden_size, conv_L_cache - 1]`, and rows
    /// of keys and values `[1, kv_heads, len, head_dim]`.
    pub fn states(&self) -> Result<Vec<StateValues>, DecoderError> {
        self.state.values().map_err(failed_after(self.len()))
    }
}

impl Decoder for OrtDecoder {
    fn step(&mut self, tokens: &[u32]) -> Result<ArrayView1<'_, f32>, DecoderError> {
        self.run(tokens, Logits::Last)?;
        Ok(ArrayView1::from(self.logits.extract_tensor().1))
    }

    fn step_all(&mut self, tokens: &[u32]) -> Result<Array2<f32>, DecoderError> {
        self.run(tokens, Logits::All)
    }

    fn can_rollback(&self) -> bool {
        self.state.can_cut()
    }

    fn verify(&mut self, tokens: &[u32]) -> Result<ArrayView2<'_, f32>, DecoderError> {
        if !self.can_rollback() {
            return Err(DecoderError::NoRollback);
        }
        self.check(tokens)?;
        let held = self.len();
        self.failed = true;
        // Before the run, so that it can have the memory.
        self.rows = None;
        self.reserve(held + tokens.len()).map_err(failed_after(held))?;
        self.rows = self.run_chunk(tokens, Logits::Verified).map_err(failed_after(held))?;
        self.failed = false;
        let rows = self.rows.as_ref().ok_or_else(|| failed_after(held)("the run returned no logits"))?;
        let rows = rows.try_extract_array().map_err(failed_after(held))?.index_axis_move(Axis(0), 0);
        rows.into_dimensionality().map_err(failed_after(held))
    }

    fn truncate(&mut self, len: usize) -> Result<(), DecoderError> {
        let (held, least) = (self.len(), self.state.cuttable_from());
        if !(least..=held).contains(&len) {
            return Err(DecoderError::NotCuttable { held, asked: len, least });
        }
        if len < held {
            self.failed = true;
            self.state.cut(len).map_err(failed_after(held))?;
            self.failed = false;
        }
        Ok(())
    }

    fn reset(&mut self) {
        // What cannot be reset must not be used.
        self.failed = match self.state.reset() {
            Ok(()) => false,
            Err(error) => {
                tracing::error!("the state cannot be reset: {error}");
                true
            }
        };
    }

    fn len(&self) -> usize {
        self.state.len()
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocab_size(&self) -> usize {
        self.general.contract().vocab_size
    }

    fn run_time(&self) -> Duration {
        self.run_time
    }
}

impl Rewind for OrtDecoder {
    fn mark(&mut self) -> Result<(), DecoderError> {
        self.check_state()?;
        self.state.mark().map_err(failed_after(self.len()))
    }

    fn rewind(&mut self) -> Result<(), DecoderError> {
        self.check_state()?;
        let held = self.len();
        self.failed = true;
        let marked = self.state.rewind().map_err(failed_after(held))?;
        self.failed = false;
        if marked { Ok(()) } else { Err(DecoderError::NotMarked) }
    }
}

impl OrtDecoder {
    /// Runs `tokens` in chunks. Returns the logits of all if asked for; otherwise those of the last are in `self.logits`.
    fn run(&mut self, tokens: &[u32], logits: Logits) -> Result<Array2<f32>, DecoderError> {
        self.check(tokens)?;
        let held = self.len();
        if let Some(companion) = &mut self.companion {
            // Nothing has been run: the state is as before if this fails.
            companion.prepare(tokens.len(), self.chunk, &mut self.logits).map_err(failed_after(held))?;
        }
        // Until it is known that all went well, the states may be half grown or half updated.
        self.failed = true;
        self.reserve(held + tokens.len()).map_err(failed_after(held))?;
        self.failed = false;
        let mut all = Vec::new();
        for (index, chunk) in tokens.chunks(self.chunk).enumerate() {
            if index > 0 && self.cancel.is_cancelled() {
                return Err(DecoderError::Cancelled);
            }
            let held = self.len();
            self.failed = true;
            let rows = match self.run_chunk(chunk, logits) {
                // What the run had done by then cannot be told.
                Err(_) if chunk.len() > 1 && self.cancel.is_cancelled() => {
                    self.reset();
                    return Err(DecoderError::Cancelled);
                }
                rows => rows.map_err(failed_after(held))?,
            };
            if let Some(rows) = rows {
                all.extend_from_slice(rows.try_extract_tensor().map_err(failed_after(held))?.1);
            }
            self.failed = false;
        }
        let rows = all.len() / self.vocab_size().max(1);
        Array2::from_shape_vec((rows, self.vocab_size()), all).map_err(|error| failed_after(held)(error))
    }

    /// Makes room for `total` tokens in the state, for all graphs that work on it.
    fn reserve(&mut self, total: usize) -> Result<(), StateError> {
        let companion = self.companion.as_mut().and_then(Companion::binding);
        self.state.reserve(total, [Some(self.general.binding()), companion])
    }

    /// Fails if a failed run has left the state undefined.
    fn check_state(&self) -> Result<(), DecoderError> {
        if self.failed {
            return Err(failed_after(self.len())("the state is undefined after a failed run; reset it"));
        }
        Ok(())
    }

    /// What must hold before anything is run.
    fn check(&self, tokens: &[u32]) -> Result<(), DecoderError> {
        self.check_state()?;
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

    /// Runs `tokens` at once, on the companion if it is there and worth it. Returns the logits of all if asked for; otherwise
    /// those of the last are in `self.logits`.
    fn run_chunk(&mut self, tokens: &[u32], logits: Logits) -> Result<Option<DynValue>, StateError> {
        let verified = logits == Logits::Verified;
        // Verified tokens are decoded ones: they go through the graph that decodes.
        let companion = self.companion.as_mut().filter(|_| !verified);
        let companion = companion.and_then(|companion| companion.graph_for(tokens.len()));
        let graph = companion.unwrap_or(&mut self.general);
        graph.prepare(tokens, logits, &mut self.logits, &mut self.state)?;

        let start = Instant::now();
        self.options.unterminate()?;
        // A few tokens are soon done, and a stopped run costs the state.
        let stop = (tokens.len() > 1 && !verified).then(|| {
            let options = self.options.clone();
            self.cancel.during(move || {
                if let Err(error) = options.terminate() {
                    tracing::warn!("the run cannot be stopped: {error}");
                }
            })
        });
        let (output, mut outputs) = graph.run(&self.options)?;
        drop(stop);
        self.run_time += start.elapsed();
        self.state.advance(&mut outputs, tokens.len(), verified)?;
        Ok(if logits != Logits::Last { outputs.remove(output) } else { None })
    }
}

/// Wraps what went wrong in a run that began with `held` tokens.
fn failed_after<E: Into<Box<dyn Error + Send + Sync>>>(held: usize) -> impl Fn(E) -> DecoderError {
    move |source| DecoderError::Run { held, source: source.into() }
}
