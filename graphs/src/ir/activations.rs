//! What happens to activations between operators: nothing, or they are observed, or they are stored as integers.
//!
//! This is a property of the graph, not of the model: blocks and lowerings are written for numbers, and every operator that they emit
//! passes through `Scope::settle`. An observed graph and one of integers that are built by the same dialect have the same names, so
//! that what the one tells of a value is found by its name for the other.

use super::encoding::{Encoding, Range};
use super::graph::{Attribute, Graph, Scope, Value, ValueId};
use super::initializer::Source;
use super::types::DType;
use super::weight::Weight;
use crate::contract::Port;
use crate::ops::{self, Op};

/// The range of every value by its name; `None` if it is not known.
pub type Ranges<'f> = dyn Fn(&str) -> Option<Range> + 'f;

/// How activations are treated.
#[derive(Default)]
pub(super) enum Activations<'f> {
    /// They stay what they are.
    #[default]
    Plain,
    /// The least and the largest number of each is noted down.
    Observed,
    /// They are 16-bit integers over these ranges.
    Encoded(Box<Ranges<'f>>),
}

/// A value that was noted down.
#[derive(Debug)]
pub(super) struct Observation {
    name: String,
    /// The least and the largest number, each `[1]`.
    bounds: [ValueId; 2],
}

/// A value that is stored as integers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    encoding: Encoding,
    /// The integers.
    integers: ValueId,
}

impl<'f> Graph<'f> {
    /// Notes down the range of every activation, for [`Scope::observations`] to return.
    pub fn observing(mut self) -> Self {
        self.treatment = Activations::Observed;
        self
    }

    /// Stores activations as integers. States come out as int16 around zero, everything else as uint16.
    pub fn with_ranges(mut self, ranges: impl Fn(&str) -> Option<Range> + 'f) -> Self {
        self.treatment = Activations::Encoded(Box::new(ranges));
        self
    }

    /// Whether activations are stored as integers.
    pub fn is_encoded(&self) -> bool {
        matches!(self.treatment, Activations::Encoded(_))
    }

    /// The range of the value called `name`; none in a graph of plain numbers. One that should be known and is not is noted down.
    pub fn range_of(&self, name: &str) -> Option<Range> {
        let Activations::Encoded(ranges) = &self.treatment else { return None };
        let range = ranges(name);
        if range.is_none() {
            self.content_mut().unknown.push(name.to_owned());
        }
        range
    }

    /// The values whose ranges are missing.
    pub fn unknown_ranges(&self) -> Vec<String> {
        self.content().unknown.clone()
    }
}

impl<'g> Scope<'g> {
    /// Emits an operator whose result is stored in this way, if there is one and the graph stores integers.
    pub fn op_stored(
        self,
        op: &'static Op,
        inputs: &[Value<'g>],
        attributes: &[(&'static str, Attribute)],
        encoding: Option<Encoding>,
    ) -> Value<'g> {
        let ids: Vec<_> = inputs.iter().map(|value| Some(value.id())).collect();
        let emitted = self.graph().emit(op, ids.clone(), [true], attributes);
        let [value] = self.settle(op, &ids, emitted, encoding);
        value
    }

    /// Declares an input with activations, of the given range or of the one that is known by its name.
    pub fn activation_input(self, port: Port, range: Option<Range>) -> Value<'g> {
        let name = port.name.clone();
        let value = self.input(port);
        if !self.graph().is_encoded() {
            return value;
        }
        match range.or_else(|| self.graph().range_of(&name)) {
            Some(range) => self.stored(value.id(), Encoding::over(range)),
            None => value,
        }
    }

    /// Declares an input with integers.
    pub fn integer_input(self, port: Port, encoding: Encoding) -> Value<'g> {
        let name = port.name.clone();
        let value = self.input(port);
        self.numbers(&name, value.id(), encoding)
    }

    /// Notes down the range of `value` under a name of its own, in a graph that observes.
    pub fn observe(self, name: &str, value: Value<'g>) {
        if matches!(self.graph().treatment, Activations::Observed) {
            self.note(name.to_owned(), value.id());
        }
    }

    /// Everything that was noted down, float32 `[2 * names]`: the least and the largest number of each value, and their names. None in
    /// graphs that do not observe.
    pub fn observations(self) -> Option<(Value<'g>, Vec<String>)> {
        let graph = self.graph();
        let observed = std::mem::take(&mut graph.content_mut().observed);
        if observed.is_empty() {
            return None;
        }
        let bounds = observed.iter().flat_map(|it| it.bounds).map(Some).collect();
        let [all] = graph.emit(&ops::CONCAT, bounds, [true], &[("axis", Attribute::Int(0))]);
        Some((graph.value(all), observed.into_iter().map(|it| it.name).collect()))
    }

    /// A constant as operators on activations take it.
    pub(super) fn constant(self, name: &str, dtype: DType, shape: &[usize], source: Source) -> Value<'g> {
        if !self.graph().is_encoded() {
            return self.initializer(name, dtype, shape, source);
        }
        let integers = Source::Encoded(Box::new(source.clone()));
        let integers = self.initializer(&format!("{name}.int16"), DType::Int16, shape, integers);
        let scale = Source::EncodedScale(Box::new(source));
        let scale = self.initializer(&format!("{name}.int16_scale"), DType::Float32, &[], scale);
        self.dequantized(name, &[integers, scale, self.zero_point(DType::Int16, 0)], &[])
    }

    /// A matrix with a scale for each row, `[rows, columns]`.
    pub fn rows(self, weight: &Weight, bits: usize) -> Value<'g> {
        let dtype = if bits == 4 { DType::Int4 } else { DType::Int8 };
        let name = &weight.name;
        let numbers = Source::Rows { weight: weight.clone() };
        let numbers = self.initializer(&format!("{name}.{dtype}"), dtype, &weight.shape, numbers);
        let scales = Source::RowScales { weight: weight.clone() };
        let scales = self.initializer(&format!("{name}.row_scales"), DType::Float32, &[weight.rows()], scales);
        // Without them, Qualcomm's compiler takes weights of 4 bits for others.
        let zeros = Source::Ints(vec![0; weight.rows()]);
        let zeros = self.initializer(&format!("{dtype}[0;{}]", weight.rows()), dtype, &[weight.rows()], zeros);
        self.dequantized(name, &[numbers, scales, zeros], &[("axis", Attribute::Int(0))])
    }

    /// What operators see of what another one returned.
    pub(super) fn settle<const N: usize>(
        self,
        op: &'static Op,
        inputs: &[Option<ValueId>],
        outputs: [ValueId; N],
        encoding: Option<Encoding>,
    ) -> [Value<'g>; N] {
        let graph = self.graph();
        match &graph.treatment {
            Activations::Plain => outputs.map(|id| graph.value(id)),
            Activations::Observed => outputs.map(|id| {
                if !ops::moves(op) && !ops::is_fraction(op) {
                    let name = graph.content().name(id).to_owned();
                    self.note(name, id);
                }
                graph.value(id)
            }),
            Activations::Encoded(_) => outputs.map(|id| {
                let name = graph.content().name(id).to_owned();
                let known = encoding.or_else(|| self.follows(op, inputs));
                let known = known.or_else(|| graph.range_of(&name).map(Encoding::over));
                known.map_or_else(|| graph.value(id), |encoding| self.stored(id, encoding))
            }),
        }
    }

    /// The encoding that follows from the operator and its inputs.
    fn follows(self, op: &Op, inputs: &[Option<ValueId>]) -> Option<Encoding> {
        let content = self.graph().content();
        let mut encodings = inputs.iter().flatten().map(|id| content.stored.get(id).map(|it| it.encoding));
        if ops::is_fraction(op) {
            return Some(Encoding::FRACTION);
        }
        let first = encodings.next()??;
        let is_kept = ops::moves(op) || (op == &ops::CONCAT && encodings.all(|it| it == Some(first)));
        is_kept.then_some(first)
    }

    fn note(self, name: String, id: ValueId) {
        let bounds = [&ops::REDUCE_MIN, &ops::REDUCE_MAX].map(|op| {
            let [bound] = self.graph().emit(op, vec![Some(id)], [true], &[("keepdims", Attribute::Int(0))]);
            let shape = self.ints(&[1]).id();
            let [bound] = self.graph().emit(&ops::RESHAPE, vec![Some(bound), Some(shape)], [true], &[]);
            bound
        });
        self.graph().content_mut().observed.push(Observation { name, bounds });
    }

    /// Stores a value, and what operators see of it.
    fn stored(self, id: ValueId, encoding: Encoding) -> Value<'g> {
        let graph = self.graph();
        let name = graph.content().name(id).to_owned();
        let inputs = [Some(id), Some(self.scale(&name, encoding)), Some(self.zero_point_of(encoding))];
        let [integers] = graph.emit_as(format!("{name}/QuantizeLinear"), &ops::QUANTIZE_LINEAR, &inputs, &[]);
        self.numbers(&name, integers, encoding)
    }

    /// The numbers that the integers of the value called `name` stand for.
    fn numbers(self, name: &str, integers: ValueId, encoding: Encoding) -> Value<'g> {
        let graph = self.graph();
        let inputs = [Some(integers), Some(self.scale(name, encoding)), Some(self.zero_point_of(encoding))];
        let [id] = graph.emit_as(format!("{name}/DequantizeLinear"), &ops::DEQUANTIZE_LINEAR, &inputs, &[]);
        graph.content_mut().stored.insert(id, Stored { encoding, integers });
        graph.value(id)
    }

    /// Constants as numbers, once for each.
    fn dequantized(self, name: &str, inputs: &[Value<'g>], attributes: &[(&'static str, Attribute)]) -> Value<'g> {
        let graph = self.graph();
        let name = format!("{name}/DequantizeLinear");
        if let Some(known) = graph.content().known(&name) {
            return graph.value(known);
        }
        let inputs: Vec<_> = inputs.iter().map(|value| Some(value.id())).collect();
        let [id] = graph.emit_as(name.clone(), &ops::DEQUANTIZE_LINEAR, &inputs, attributes);
        graph.content_mut().share(name, id);
        graph.value(id)
    }

    fn scale(self, name: &str, encoding: Encoding) -> ValueId {
        let source = Source::Float(f64::from(encoding.scale));
        self.initializer(&format!("{name}.scale"), DType::Float32, &[], source).id()
    }

    fn zero_point_of(self, encoding: Encoding) -> ValueId {
        self.zero_point(encoding.dtype, encoding.zero_point).id()
    }

    fn zero_point(self, dtype: DType, number: u16) -> Value<'g> {
        self.initializer(&format!("{dtype}[{number}]"), dtype, &[], Source::Ints(vec![i64::from(number)]))
    }
}

impl<'g> Value<'g> {
    /// How the value is stored, if it is stored as integers.
    pub fn encoding(self) -> Option<Encoding> {
        self.here().graph().content().stored.get(&self.id()).map(|it| it.encoding)
    }

    /// The value, stored as `other` is, so that the two can be joined as they are.
    pub fn stored_as(self, other: Self) -> Self {
        match other.encoding() {
            Some(encoding) if self.encoding() != Some(encoding) => self.here().stored(self.id(), encoding),
            _ => self,
        }
    }

    /// The integers that the value is stored as, if it is.
    pub(super) fn integers(self) -> Option<ValueId> {
        self.here().graph().content().stored.get(&self.id()).map(|it| it.integers)
    }
}
