//! One loaded graph with everything that is bound to it.

use lfm2_graphs::contract::Contract;
use ort::memory::Allocator;
use ort::session::{IoBinding, RunOptions, SessionOutputs};
use ort::value::{Shape, Tensor};

use crate::session::{Memory, Session};
use crate::state::{State, StateError};

/// A session and its bindings. Several graphs may work on one state, each in a place of its own.
pub(super) struct Graph {
    session: Session,
    binding: IoBinding,
    /// Place among the graphs that work on the state.
    place: usize,
    ports: Ports,
    ids: Tensor<i64>,
    logits_to_keep: Tensor<i64>,
    /// What the logits are bound for.
    bound: Logits,
}

/// Names of the ports that change from run to run.
struct Ports {
    input_ids: String,
    attention_mask: String,
    logits: String,
    logits_to_keep: String,
}

/// Which tokens of a run get logits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Logits {
    /// The last one.
    Last,
    /// All of them.
    All,
    /// All of them, and the state can be cut after each.
    Verified,
}

impl Graph {
    /// Binds everything but the states and the mask. The logits of single tokens go to `logits`.
    pub(super) fn new(session: Session, place: usize, logits: &mut Tensor<f32>) -> Result<Self, StateError> {
        let allocator = Allocator::default();
        let contract = session.contract();
        let (inputs, output) = (contract.ids()?.clone(), contract.logits()?.name.clone());
        let keep = inputs.num_logits_to_keep.name;
        let mut graph = Self {
            binding: session.inner.create_binding()?,
            place,
            ports: Ports {
                input_ids: inputs.input_ids.name,
                attention_mask: inputs.attention_mask.name,
                logits: output,
                logits_to_keep: keep,
            },
            ids: Tensor::new(&allocator, [1_usize, 1])?,
            logits_to_keep: Tensor::new(&allocator, Shape::default())?,
            bound: Logits::Last,
            session,
        };
        graph.logits_to_keep.extract_tensor_mut().1.fill(1);
        graph.binding.bind_input(&*graph.ports.input_ids, &graph.ids)?;
        graph.binding.bind_input(&*graph.ports.logits_to_keep, &graph.logits_to_keep)?;
        graph.binding.bind_output(&*graph.ports.logits, logits)?;
        Ok(graph)
    }

    /// Description of the graph.
    pub(super) fn contract(&self) -> &Contract {
        self.session.contract()
    }

    /// What it is a graph of.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// What is bound.
    pub(super) fn binding(&mut self) -> &mut IoBinding {
        &mut self.binding
    }

    /// Binds what a run of `tokens` behind those in `state` needs.
    pub(super) fn prepare(
        &mut self,
        tokens: &[u32],
        logits: Logits,
        last: &mut Tensor<f32>,
        state: &mut State,
    ) -> Result<(), StateError> {
        let Ports { input_ids, attention_mask, logits: output, .. } = &self.ports;
        let [input_ids, attention_mask, output] = [input_ids, attention_mask, output].map(|name| &**name);

        // Elsewhere than in the processor's memory, what is bound is a copy.
        let bound_for_good = self.session.memory() == Memory::Shared;
        let is_other_length = self.ids.shape()[1] as usize != tokens.len();
        if is_other_length {
            self.ids = Tensor::new(&Allocator::default(), [1, tokens.len()])?;
        }
        for (slot, &id) in self.ids.extract_tensor_mut().1.iter_mut().zip(tokens) {
            *slot = i64::from(id);
        }
        if is_other_length || !bound_for_good {
            self.binding.bind_input(input_ids, &self.ids)?;
        }

        if self.bound != logits {
            if self.bound == Logits::Verified {
                // What is not bound is not kept: ordinary runs, long ones above all, do without the columns.
                self.binding.clear_outputs();
                state.unbind(self.place);
            }
            let keep = match logits {
                Logits::Last => {
                    self.binding.bind_output(output, last)?;
                    1
                }
                Logits::All | Logits::Verified => 0,
            };
            self.logits_to_keep.extract_tensor_mut().1.fill(keep);
            if !bound_for_good {
                self.binding.bind_input(&*self.ports.logits_to_keep, &self.logits_to_keep)?;
            }
            self.bound = logits;
        }
        if logits != Logits::Last {
            // The output is declared with one row. A buffer for more is refused, and one that the runtime allocates is not. It
            // comes from the runtime's arena, which hands out the same memory again and again.
            self.binding.bind_output_to_device(output, &Memory::Shared.info()?)?;
        }

        // Its length is the number of tokens, so that it cannot be the same tensor for two steps.
        let total = state.len() + tokens.len();
        let mask = Tensor::from_array(([1, total], vec![1_i64; total]))?;
        self.binding.bind_input(attention_mask, &mask)?;
        if logits == Logits::Verified {
            state.remember(&mut self.binding)?;
        }
        state.bind(self.place, &mut self.binding)
    }

    /// Runs what was prepared. Returns the name of the logits and all outputs.
    pub(super) fn run(&mut self, options: &RunOptions) -> Result<(&str, SessionOutputs<'_>), StateError> {
        Ok((&self.ports.logits, self.session.inner.run_binding_with_options(&self.binding, options)?))
    }
}
