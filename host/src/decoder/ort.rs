//! Steps through ONNX Runtime.

use std::error::Error;
use std::time::{Duration, Instant};

use lfm2_graphs::contract::Contract;
use ndarray::{Array2, ArrayView1};
use ort::memory::Allocator;
use std::sync::Arc;

use ort::session::{IoBinding, RunOptions};
use ort::value::{DynValue, Shape, Tensor};

use super::{Decoder, DecoderError, Rewind};
use crate::cancel::Cancel;
use crate::session::Session;
use crate::state::{Growth, State, StateError, StateValues, cpu};

/// Tokens of a long prompt that are run at once, unless set otherwise.
const CHUNK: usize = 512;

/// Tokens that caches grow by at least.
const BLOCK: usize = 512;

/// A graph with the state of one sequence.
///
/// Inputs, outputs and states are bound once. A decode step writes its token into the bound input and binds a longer mask;
/// caches are replaced only when they grow.
pub struct OrtDecoder {
    session: Session,
    binding: IoBinding,
    state: State,
    ids: Tensor<i64>,
    logits_to_keep: Tensor<i64>,
    /// Logits of the last token.
    logits: Tensor<f32>,
    /// What the logits are bound for.
    bound: Logits,
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
            return Err(DecoderError::ContextTooLong { asked: context_length, available });
        }
        Self::assemble(session, context_length).map_err(failed_after(0))
    }

    fn assemble(session: Session, context_length: usize) -> Result<Self, StateError> {
        let contract = session.contract();
        let allocator = Allocator::default();
        let growth = Growth { block: BLOCK, limit: context_length };
        let mut decoder = Self {
            binding: session.inner.create_binding()?,
            state: State::new(&contract.states, growth)?,
            ids: Tensor::new(&allocator, [1_usize, 1])?,
            logits_to_keep: Tensor::new(&allocator, Shape::default())?,
            logits: Tensor::new(&allocator, [1, 1, contract.vocab_size])?,
            bound: Logits::Last,
            context_length,
            chunk: CHUNK,
            cancel: Cancel::new(),
            options: Arc::new(RunOptions::new()?),
            run_time: Duration::ZERO,
            failed: false,
            session,
        };
        decoder.logits_to_keep.extract_tensor_mut().1.fill(1);
        let contract = decoder.session.contract();
        decoder.binding.bind_input(&*contract.inputs.input_ids.name, &decoder.ids)?;
        decoder.binding.bind_input(&*contract.inputs.num_logits_to_keep.name, &decoder.logits_to_keep)?;
        decoder.binding.bind_output(&*contract.outputs.logits.name, &mut decoder.logits)?;
        Ok(decoder)
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
        self.session.contract()
    }

    /// As [`Decoder::step`], but returns the logits of every token: `[tokens, vocab_size]`. They need memory accordingly.
    pub fn step_all(&mut self, tokens: &[u32]) -> Result<Array2<f32>, DecoderError> {
        self.run(tokens, Logits::All)
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
        self.session.contract().vocab_size
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

/// Which tokens of a run get logits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Logits {
    /// The last one.
    Last,
    /// All of them.
    All,
}

impl OrtDecoder {
    /// Runs `tokens` in chunks. Returns the logits of all if asked for; otherwise those of the last are in `self.logits`.
    fn run(&mut self, tokens: &[u32], logits: Logits) -> Result<Array2<f32>, DecoderError> {
        self.check(tokens)?;
        let held = self.len();
        // Until it is known that all went well, the states may be half grown or half updated.
        self.failed = true;
        self.state.reserve(held + tokens.len(), &mut self.binding).map_err(failed_after(held))?;
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

    /// Runs `tokens` at once. Returns the logits of all if asked for; otherwise those of the last are in `self.logits`.
    fn run_chunk(&mut self, tokens: &[u32], logits: Logits) -> Result<Option<DynValue>, StateError> {
        let contract = &self.session.contract;
        let names = [&contract.inputs.input_ids, &contract.inputs.attention_mask, &contract.outputs.logits]
            .map(|port| &*port.name);
        let [input_ids, attention_mask, output] = names;

        if self.ids.shape()[1] as usize != tokens.len() {
            self.ids = Tensor::new(&Allocator::default(), [1, tokens.len()])?;
            self.binding.bind_input(input_ids, &self.ids)?;
        }
        for (slot, &id) in self.ids.extract_tensor_mut().1.iter_mut().zip(tokens) {
            *slot = i64::from(id);
        }

        if self.bound != logits {
            let keep = match logits {
                Logits::Last => {
                    self.binding.bind_output(output, &mut self.logits)?;
                    1
                }
                Logits::All => 0,
            };
            self.logits_to_keep.extract_tensor_mut().1.fill(keep);
            self.bound = logits;
        }
        if logits == Logits::All {
            // The output is declared with one row. A buffer for more is refused, and one that the runtime allocates is not.
            self.binding.bind_output_to_device(output, &cpu()?)?;
        }

        // Its length is the number of tokens, so that it cannot be the same tensor for two steps.
        let total = self.state.len() + tokens.len();
        let mask = Tensor::from_array(([1, total], vec![1_i64; total]))?;
        self.binding.bind_input(attention_mask, &mask)?;

        self.state.bind(&mut self.binding)?;
        let start = Instant::now();
        self.options.unterminate()?;
        // A single token is soon done, and a stopped run costs the state.
        let stop = (tokens.len() > 1).then(|| {
            let options = self.options.clone();
            self.cancel.during(move || {
                if let Err(error) = options.terminate() {
                    tracing::warn!("the run cannot be stopped: {error}");
                }
            })
        });
        let mut outputs = self.session.inner.run_binding_with_options(&self.binding, &self.options)?;
        drop(stop);
        self.run_time += start.elapsed();
        self.state.advance(&mut outputs, tokens.len())?;
        Ok(if logits == Logits::All { outputs.remove(output) } else { None })
    }
}

/// Wraps what went wrong in a run that began with `held` tokens.
fn failed_after<E: Into<Box<dyn Error + Send + Sync>>>(held: usize) -> impl Fn(E) -> DecoderError {
    move |source| DecoderError::Run { held, source: source.into() }
}
