//! Graphs under construction: nodes, values and the scope stack that names both.
//!
//! A [`Value`] is a `Copy` handle on a graph with interior mutability, so that blocks read as expressions:
//! `c * conv(b * x)`. Building cannot fail: weights are declared, not read, and structure is checked by
//! [`verify`](super::verify::verify) afterwards.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::{HashMap, HashSet};
use std::fmt;

use super::activations::{Activations, Observation, Stored};
use super::initializer::{Initializer, Source};
use super::types::{DType, Shape};
use super::weight::{Format, Role, Weight};
use crate::contract::Port;
use crate::ops::Op;

/// Chooses the number format of each weight as it is declared.
pub type Formats<'f> = dyn Fn(&str, Role, &[usize]) -> Format + 'f;

/// The scales with which a cache is stored as int8, one for each channel `[kv_heads * head_dim]`, by the name of the output that
/// returns it; `None` keeps it in the activations' type.
pub type Caches<'f> = dyn Fn(&str) -> Option<Vec<f32>> + 'f;

/// A graph under construction.
pub struct Graph<'f> {
    formats: Box<Formats<'f>>,
    caches: Box<Caches<'f>>,
    activations: DType,
    /// What happens to activations between operators.
    pub(super) treatment: Activations<'f>,
    content: RefCell<Content>,
    path: RefCell<Vec<String>>,
}

/// What a graph consists of. Nodes are in an order in which every value is produced before it is used.
#[derive(Debug, Default)]
pub struct Content {
    /// Name of each value; [`ValueId`] is an index here.
    pub values: Vec<String>,
    /// Nodes in execution order.
    pub nodes: Vec<Node>,
    /// Initializers in the order of first use.
    pub initializers: Vec<(ValueId, Initializer)>,
    /// Graph inputs.
    pub inputs: Vec<(ValueId, Port)>,
    /// Graph outputs.
    pub outputs: Vec<(ValueId, Port)>,
    /// Values that are built once and found by name afterwards: initializers and what [`Scope::once`] built.
    shared: HashMap<String, ValueId>,
    /// What [`Scope::derived`] built, by the value that it follows from and its name.
    derived: HashMap<(ValueId, &'static str), Vec<ValueId>>,
    /// The scales of quantized inputs.
    scales: HashMap<ValueId, ValueId>,
    /// Values that are stored as integers.
    pub(super) stored: HashMap<ValueId, Stored>,
    /// Values whose ranges are noted down.
    pub(super) observed: Vec<Observation>,
    /// Values whose ranges should be known and are not.
    pub(super) unknown: Vec<String>,
    /// How often each node name was asked for.
    uses: HashMap<String, usize>,
}

/// Index of a value in [`Content::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ValueId(pub usize);

/// One operator call.
#[derive(Debug)]
pub struct Node {
    /// Unique name: the scope path and the operator.
    pub name: String,
    /// The operator.
    pub op: &'static Op,
    /// Inputs; `None` is an optional input left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs; `None` is an optional output not asked for.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes in the order given.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// A string.
    Text(&'static str),
    /// A list of integers.
    Ints(Vec<i64>),
}

impl<'f> Graph<'f> {
    /// An empty graph whose activations have the given type and whose weights get the formats that `formats` chooses.
    pub fn new(activations: DType, formats: impl Fn(&str, Role, &[usize]) -> Format + 'f) -> Self {
        let (formats, caches) = (Box::new(formats), Box::new(|_: &str| None));
        let (content, path) = (RefCell::default(), RefCell::default());
        Graph { formats, caches, activations, treatment: Activations::Plain, content, path }
    }

    /// Chooses how caches are stored.
    pub fn with_caches(self, caches: impl Fn(&str) -> Option<Vec<f32>> + 'f) -> Self {
        Graph { caches: Box::new(caches), ..self }
    }

    /// The scales of the cache that the output `present` returns, if it is stored as int8.
    pub fn cache_scales(&self, present: &str) -> Option<Vec<f32>> {
        (self.caches)(present)
    }

    /// The scope at the top of the module tree.
    pub fn root(&self) -> Scope<'_> {
        Scope { graph: self }
    }

    /// Element type of the activations: float32, float16 or bfloat16.
    pub fn activations(&self) -> DType {
        self.activations
    }

    /// What has been built so far.
    pub fn content(&self) -> Ref<'_, Content> {
        self.content.borrow()
    }

    /// Takes out the nodes and constants that no output depends on. Nothing may be built afterwards.
    pub fn prune(&self) {
        let mut content = self.content.borrow_mut();
        let mut needed: HashSet<ValueId> = content.outputs.iter().map(|(id, _)| *id).collect();
        // Nodes come in the order of their data, so that one pass from the end sees every use before the producer.
        let mut kept: Vec<Node> = Vec::with_capacity(content.nodes.len());
        for node in content.nodes.drain(..).rev() {
            if node.outputs.iter().flatten().any(|id| needed.contains(id)) {
                needed.extend(node.inputs.iter().flatten());
                kept.push(node);
            }
        }
        kept.reverse();
        content.nodes = kept;
        content.initializers.retain(|(id, _)| needed.contains(id));
    }

    pub(super) fn content_mut(&self) -> RefMut<'_, Content> {
        self.content.borrow_mut()
    }

    /// The handle on a value.
    pub(super) fn value(&self, id: ValueId) -> Value<'_> {
        Value { graph: self, id }
    }

    fn path(&self, separator: &str) -> String {
        self.path.borrow().join(separator)
    }

    /// Appends a node. Outputs that are not wanted get an index, so that the caller's array stays whole, but no producer:
    /// using one is what `verify` reports.
    pub(super) fn emit<const N: usize>(
        &self,
        op: &'static Op,
        inputs: Vec<Option<ValueId>>,
        wanted: [bool; N],
        attributes: &[(&'static str, Attribute)],
    ) -> [ValueId; N] {
        let path = self.path("/");
        let base = if path.is_empty() { op.name.to_owned() } else { format!("{path}/{}", op.name) };
        self.append(base, op, inputs, wanted, attributes)
    }

    /// Appends a node that is named after a value, and not after where it is emitted.
    pub(super) fn emit_as<const N: usize>(
        &self,
        name: String,
        op: &'static Op,
        inputs: &[Option<ValueId>],
        attributes: &[(&'static str, Attribute)],
    ) -> [ValueId; N] {
        self.append(name, op, inputs.to_vec(), [true; N], attributes)
    }

    fn append<const N: usize>(
        &self,
        base: String,
        op: &'static Op,
        inputs: Vec<Option<ValueId>>,
        wanted: [bool; N],
        attributes: &[(&'static str, Attribute)],
    ) -> [ValueId; N] {
        let mut content = self.content.borrow_mut();
        let name = content.unique(base);
        let ids = std::array::from_fn(|i| content.value(if N == 1 { name.clone() } else { format!("{name}.{i}") }));
        let outputs = ids.iter().zip(wanted).map(|(&id, wanted)| wanted.then_some(id)).collect();
        content.nodes.push(Node { name, op, inputs, outputs, attributes: attributes.to_vec() });
        ids
    }
}

impl fmt::Debug for Graph<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("activations", &self.activations).field("content", &self.content).finish()
    }
}

impl Content {
    /// Name of a value.
    pub fn name(&self, id: ValueId) -> &str {
        &self.values[id.0]
    }

    /// What [`Scope::once`] or [`Scope::initializer`] calls by this name.
    pub(super) fn known(&self, name: &str) -> Option<ValueId> {
        self.shared.get(name).copied()
    }

    /// Lets a value be found by a name.
    pub(super) fn share(&mut self, name: String, id: ValueId) {
        self.shared.insert(name, id);
    }

    fn value(&mut self, name: String) -> ValueId {
        self.values.push(name);
        ValueId(self.values.len() - 1)
    }

    fn unique(&mut self, base: String) -> String {
        let uses = self.uses.entry(base.clone()).or_default();
        *uses += 1;
        if *uses == 1 { base } else { format!("{base}_{}", *uses - 1) }
    }
}

/// Where we are in the module tree. One path names nodes (with slashes) and finds weights (with dots).
#[derive(Clone, Copy)]
pub struct Scope<'g> {
    graph: &'g Graph<'g>,
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({})", self.graph.path("/"))
    }
}

impl<'g> Scope<'g> {
    /// The graph being built.
    pub fn graph(self) -> &'g Graph<'g> {
        self.graph
    }

    /// Element type of the activations.
    pub fn activations(self) -> DType {
        self.graph.activations
    }

    /// Runs `build` one level down; everything it emits, operators included, is named there.
    pub fn within<T>(self, name: impl fmt::Display, build: impl FnOnce(Self) -> T) -> T {
        self.graph.path.borrow_mut().push(name.to_string());
        let built = build(self);
        self.graph.path.borrow_mut().pop();
        built
    }

    /// Returns the value called `name`, building it at the top of the module tree when it is first asked for.
    ///
    /// For what does not depend on the layer that happens to need it first: lengths, masks, rotary rows.
    pub fn once(self, name: &str, build: impl FnOnce(Self) -> Value<'g>) -> Value<'g> {
        let known = self.graph.content.borrow().shared.get(name).copied();
        if let Some(id) = known {
            return Value { graph: self.graph, id };
        }
        let outer = std::mem::replace(&mut *self.graph.path.borrow_mut(), vec![name.to_owned()]);
        let value = build(self);
        *self.graph.path.borrow_mut() = outer;
        self.graph.content.borrow_mut().shared.insert(name.to_owned(), value.id);
        value
    }

    /// Returns what is called `name` and follows from `value` alone, building it one level down when it is first asked for.
    ///
    /// For what several operations need of one input, such as its quantized form.
    pub fn derived<const N: usize>(
        self,
        value: Value<'g>,
        name: &'static str,
        build: impl FnOnce(Self) -> [Value<'g>; N],
    ) -> [Value<'g>; N] {
        let known = self.graph.content.borrow().derived.get(&(value.id, name)).cloned();
        if let Some(known) = known.and_then(|ids| <[ValueId; N]>::try_from(ids).ok()) {
            return known.map(|id| Value { graph: self.graph, id });
        }
        let built = self.within(name, build);
        self.graph.content.borrow_mut().derived.insert((value.id, name), built.map(|value| value.id).into());
        built
    }

    /// Declares the weight `{path}.weight`.
    pub fn weight(self, role: Role, shape: &[usize]) -> Weight {
        self.parameter("weight", role, shape)
    }

    /// Declares the bias `{path}.bias`.
    pub fn bias(self, length: usize) -> Weight {
        self.parameter("bias", Role::Vector, &[length])
    }

    fn parameter(self, leaf: &str, role: Role, shape: &[usize]) -> Weight {
        let name = format!("{}.{leaf}", self.graph.path("."));
        let format = (self.graph.formats)(&name, role, shape);
        Weight { name, shape: shape.to_vec(), role, format }
    }

    /// Declares an input of the graph.
    pub fn input(self, port: Port) -> Value<'g> {
        let mut content = self.graph.content.borrow_mut();
        let id = content.value(port.name.clone());
        content.inputs.push((id, port));
        Value { graph: self.graph, id }
    }

    /// Declares an input of the graph that holds quantized numbers, with the scales that they are to be multiplied with.
    pub fn quantized_input(self, port: Port, scales: Vec<f32>, shape: &[usize]) -> Value<'g> {
        let name = format!("{}.scales", port.name);
        let value = self.input(port);
        let scales = self.initializer(&name, DType::Float32, shape, Source::Floats(scales));
        self.graph.content.borrow_mut().scales.insert(value.id, scales.id);
        value
    }

    /// Declares an input of the graph that need not be fed: an int64 scalar with a default.
    pub fn default_input(self, port: Port, default: i64) -> Value<'g> {
        let value = self.input(port);
        let initializer = Initializer { dtype: DType::Int64, shape: vec![], source: Source::Ints(vec![default]) };
        self.graph.content.borrow_mut().initializers.push((value.id, initializer));
        value
    }

    /// Makes `value` an output of the graph; the value takes the port's name.
    ///
    /// A port of int16 returns the integers that the value is stored as.
    pub fn output(self, value: Value<'g>, port: Port) {
        let id = if port.dtype == DType::Int16 { value.integers().unwrap_or(value.id) } else { value.id };
        let mut content = self.graph.content.borrow_mut();
        content.values[id.0].clone_from(&port.name);
        content.outputs.push((id, port));
    }

    /// The initializer `name`, added when it is first asked for.
    pub fn initializer(self, name: &str, dtype: DType, shape: &[usize], source: Source) -> Value<'g> {
        let mut content = self.graph.content.borrow_mut();
        let id = match content.shared.get(name) {
            Some(&id) => id,
            None => {
                let id = content.value(name.to_owned());
                content.shared.insert(name.to_owned(), id);
                content.initializers.push((id, Initializer { dtype, shape: shape.to_vec(), source }));
                id
            }
        };
        Value { graph: self.graph, id }
    }

    /// The plain numbers of a dense weight, in the checkpoint's shape and in the type of its format.
    pub fn dense(self, weight: &Weight) -> Value<'g> {
        let dtype = match weight.format {
            Format::Dense(dtype) => dtype,
            // Only tables and matrices are ever given blocks; for the rest the activations' type is the format.
            Format::Blocks(_) | Format::Channels | Format::Rows { .. } => self.graph.activations,
        };
        self.constant(&weight.name, dtype, &weight.shape, Source::Dense { weight: weight.clone() })
    }

    /// A constant list of integers, int64 `[values.len()]`.
    pub fn ints(self, values: &[i64]) -> Value<'g> {
        let name = format!("ints{values:?}").replace(' ', "");
        self.initializer(&name, DType::Int64, &[values.len()], Source::Ints(values.to_vec()))
    }

    /// A constant integer, int64 scalar.
    pub fn int(self, value: i64) -> Value<'g> {
        self.initializer(&format!("int[{value}]"), DType::Int64, &[], Source::Ints(vec![value]))
    }

    /// A constant byte, uint8 scalar.
    pub fn byte(self, value: u8) -> Value<'g> {
        let source = Source::Ints(vec![i64::from(value)]);
        self.initializer(&format!("byte[{value}]"), DType::Uint8, &[], source)
    }

    /// A constant number of the given float type, scalar.
    pub fn float(self, value: f64, dtype: DType) -> Value<'g> {
        self.initializer(&format!("{dtype}[{value:e}]"), dtype, &[], Source::Float(value))
    }

    /// A constant number of the given float type as a list of one, for runtimes whose operators take no scalars.
    pub fn single(self, value: f64, dtype: DType) -> Value<'g> {
        self.constant(&format!("{dtype}s[{value:e}]"), dtype, &[1], Source::Float(value))
    }

    /// One column of a dense weight seen as a matrix, `[rows]`.
    pub fn column(self, weight: &Weight, column: usize) -> Value<'g> {
        let name = format!("{}.column{column}", weight.name);
        let source = Source::Column { weight: weight.clone(), column };
        self.constant(&name, self.graph.activations, &[weight.rows()], source)
    }

    /// Emits an operator with one output.
    pub fn op(self, op: &'static Op, inputs: &[Value<'g>], attributes: &[(&'static str, Attribute)]) -> Value<'g> {
        let inputs: Vec<_> = inputs.iter().map(|&value| Some(value)).collect();
        let [value] = self.call(op, &inputs, attributes);
        value
    }

    /// Emits an operator with `N` outputs and optional inputs.
    pub fn call<const N: usize>(
        self,
        op: &'static Op,
        inputs: &[Option<Value<'g>>],
        attributes: &[(&'static str, Attribute)],
    ) -> [Value<'g>; N] {
        self.call_some(op, inputs, [true; N], attributes)
    }

    /// Emits an operator of which only the outputs marked `true` exist; the others must not be used.
    pub fn call_some<const N: usize>(
        self,
        op: &'static Op,
        inputs: &[Option<Value<'g>>],
        wanted: [bool; N],
        attributes: &[(&'static str, Attribute)],
    ) -> [Value<'g>; N] {
        let inputs: Vec<_> = inputs.iter().map(|input| input.map(|value| value.id)).collect();
        let emitted = self.graph.emit(op, inputs.clone(), wanted, attributes);
        self.settle(op, &inputs, emitted, None)
    }
}

/// A tensor in the graph.
#[derive(Clone, Copy)]
pub struct Value<'g> {
    graph: &'g Graph<'g>,
    id: ValueId,
}

impl<'g> Value<'g> {
    /// Index of the value in the graph.
    pub fn id(self) -> ValueId {
        self.id
    }

    /// The scales of a quantized input.
    pub fn scales(self) -> Option<Self> {
        let id = self.graph.content.borrow().scales.get(&self.id).copied()?;
        Some(Self { id, ..self })
    }

    /// The scope in which an operator applied to this value is named.
    pub fn here(self) -> Scope<'g> {
        self.graph.root()
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.graph.content.try_borrow() {
            Ok(content) => write!(f, "Value({})", content.name(self.id)),
            Err(_) => write!(f, "Value({})", self.id.0),
        }
    }
}

/// A port of the given name, type and shape.
pub fn port(name: impl Into<String>, dtype: DType, shape: Shape) -> Port {
    Port { name: name.into(), dtype, shape }
}
