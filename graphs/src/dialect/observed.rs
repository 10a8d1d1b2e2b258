//! Any dialect, with outputs that tell what products are taken of.

use std::cell::RefCell;

use super::{AddNorm, Attended, Attention, CausalConv, Convolved, Dialect, Heads, Window};
use crate::contract::{Contract, Padding, Purpose, Statistic, Update};
use crate::ir::graph::port;
use crate::ir::{DType, Scope, Value, ValueId, Weight};
use crate::lower;

/// Writes every operation as another dialect does, and for the input of every product an output with the sum of the squares
/// of each column, over batch and sequence. Products of one input share an output.
///
/// The sums are over the positions that a product is taken of: the head's are those that get logits. Graphs have float32
/// activations, because the sums leave the range of float16.
pub struct Observed<'d> {
    inner: &'d dyn Dialect,
    seen: RefCell<Vec<(ValueId, Statistic)>>,
}

impl<'d> Observed<'d> {
    /// Observes a graph that is about to be built with `inner`.
    pub fn new(inner: &'d dyn Dialect) -> Self {
        Self { inner, seen: RefCell::default() }
    }

    /// Puts what the graph tells now into its contract.
    pub fn describe(self, contract: &mut Contract) {
        contract.purpose = Purpose::Calibrate;
        contract.outputs.statistics = self.seen.into_inner().into_iter().map(|(_, statistic)| statistic).collect();
    }

    /// Adds the output for `x`, unless there is one, and `weight` to those that meet it.
    fn observe<'g>(&self, at: Scope<'g>, x: Value<'g>, weight: &Weight) {
        let mut seen = self.seen.borrow_mut();
        if let Some((_, statistic)) = seen.iter_mut().find(|(id, _)| *id == x.id()) {
            statistic.weights.push(weight.name.clone());
            return;
        }
        let name = format!("input_squares.{}", weight.name);
        let port = port(name, DType::Float32, vec![weight.columns().into()]);
        at.output(lower::observe::sum_of_squares(at, x), port.clone());
        seen.push((x.id(), Statistic { port, weights: vec![weight.name.clone()] }));
    }
}

impl Dialect for Observed<'_> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn minimum_runtime_minor(&self) -> u32 {
        self.inner.minimum_runtime_minor()
    }

    fn update(&self) -> Update {
        self.inner.update()
    }

    fn padding(&self) -> Padding {
        self.inner.padding()
    }

    fn window(&self) -> Option<Window> {
        self.inner.window()
    }

    fn refuse(&self, heads: &Heads) -> Option<String> {
        self.inner.refuse(heads)
    }

    fn embed<'g>(&self, at: Scope<'g>, table: &Weight, given: Value<'g>) -> Value<'g> {
        self.inner.embed(at, table, given)
    }

    fn norm<'g>(&self, at: Scope<'g>, x: Value<'g>, scale: &Weight, epsilon: f64) -> Value<'g> {
        self.inner.norm(at, x, scale, epsilon)
    }

    fn add_norm<'g>(&self, at: Scope<'g>, op: AddNorm<'g, '_>) -> (Value<'g>, Value<'g>) {
        self.inner.add_norm(at, op)
    }

    fn linear<'g>(&self, at: Scope<'g>, x: Value<'g>, weight: &Weight, bias: Option<&Weight>) -> Value<'g> {
        self.observe(at, x, weight);
        self.inner.linear(at, x, weight, bias)
    }

    fn attention<'g>(&self, at: Scope<'g>, op: Attention<'g, '_>) -> Attended<'g> {
        self.inner.attention(at, op)
    }

    fn causal_conv<'g>(&self, at: Scope<'g>, op: CausalConv<'g, '_>) -> Convolved<'g> {
        self.inner.causal_conv(at, op)
    }
}
