//! Whether nodes keep to what rules ask of them.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::Need;
use super::shapes::Known;
use crate::proto::{Model, Node, Stored, Tensor};

/// A graph as the rules look at it.
pub(super) struct Facts<'m> {
    pub(super) known: BTreeMap<&'m str, Known>,
    /// The files of the constants that lie beside the graph.
    pub(super) external: BTreeMap<&'m str, &'m str>,
    constants: BTreeSet<&'m str>,
    producers: BTreeMap<&'m str, &'m Node>,
}

impl<'m> Facts<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        let outputs = |node: &'m Node| node.outputs.iter().map(move |output| (output.as_str(), node));
        let mut constants: BTreeSet<&str> = model.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        // The runtime converts constants before providers see the graph, and providers know constants that are dequantized.
        for node in model.nodes.iter().filter(|node| ["Cast", "DequantizeLinear"].contains(&node.op.as_str())) {
            if given(node, 0).is_some_and(|input| constants.contains(input)) {
                constants.extend(node.outputs.iter().map(String::as_str));
            }
        }
        let file = |tensor: &'m Tensor| match &tensor.stored {
            Stored::External { file, .. } => Some((tensor.name.as_str(), file.as_str())),
            Stored::Inline => None,
        };
        Self {
            external: model.tensors.iter().filter_map(file).collect(),
            known: super::shapes::infer(model),
            constants,
            producers: model.nodes.iter().flat_map(outputs).collect(),
        }
    }

    pub(super) fn is_constant(&self, name: &str) -> bool {
        self.constants.contains(name)
    }

    /// What a node does that it must not, if anything.
    pub(super) fn breach(&self, node: &Node, need: Need) -> Option<String> {
        match need {
            Need::Constant(i) => {
                let input = given(node, i)?;
                (!self.is_constant(input)).then(|| format!("input {i}, {input}, is not a constant"))
            }
            Need::Without(i) => given(node, i).map(|input| format!("input {i}, {input}, is given")),
            Need::Given(i) => given(node, i).is_none().then(|| format!("input {i} is left out")),
            Need::Type(types) => {
                let dtype = &self.known.get(given(node, 0)?)?.dtype;
                (!types.contains(&dtype.as_str())).then(|| format!("the input is {dtype}"))
            }
            Need::Rank(fewest, most) => {
                let shape = self.shape(node, 0)?;
                let dimensions = shape.len();
                (dimensions < fewest || dimensions > most).then(|| format!("the input is {shape:?}"))
            }
            Need::Attribute(name, values) => match node.attributes.get(name) {
                None => Some(format!("it has no {name}")),
                Some(value) => (!values.contains(&value.as_str())).then(|| format!("{name} is {value}")),
            },
            Need::Unless(name, values) => {
                let value = node.attributes.get(name)?;
                (!values.contains(&value.as_str())).then(|| format!("{name} is {value}"))
            }
            Need::LastAxis => match node.attributes.get("axis") {
                None => Some("it leaves out its axis".to_owned()),
                Some(axis) => {
                    let last = self.shape(node, 0)?.len().to_string();
                    let is_last =
                        axis == "-1" || axis.parse::<usize>().is_ok_and(|axis| (axis + 1).to_string() == last);
                    (!is_last).then(|| format!("axis is {axis}"))
                }
            },
            Need::EqualParts => {
                let shapes: Vec<_> =
                    node.outputs.iter().filter_map(|name| self.known.get(name.as_str())?.shape.clone()).collect();
                shapes.windows(2).any(|pair| pair[0] != pair[1]).then(|| format!("the parts are {shapes:?}"))
            }
            Need::OneDimensionOfRows => {
                let shape = self.shape(node, 0)?;
                let rows = shape.iter().rev().skip(1).filter(|size| **size != 1).count();
                (rows > 1).then(|| format!("the input is {shape:?}"))
            }
            Need::NoRowsCutFromNorm => {
                let cut = self.producer(node, 0, &["Slice", "Gather"])?;
                let norm = self.producer(cut, 0, &["SimplifiedLayerNormalization", "RMSNormalization"])?;
                (node.attributes.get("bits").is_some_and(|bits| bits == "4"))
                    .then(|| format!("{} cuts its input out of {}", cut.name, norm.name))
            }
            Need::MatrixOrEqualStacks => {
                let [a, b] = [self.shape(node, 0)?, self.shape(node, 1)?];
                let matrices = a.len() == 2 && b.len() == 2 && given(node, 1).is_some_and(|b| self.is_constant(b));
                let stacks = a.len() >= 3 && a.len() == b.len() && a[..a.len() - 2] == b[..b.len() - 2];
                (!matrices && !stacks).then(|| format!("the inputs are {a:?} and {b:?}"))
            }
            Need::NotTwoUnsigned => {
                let unsigned = |i| {
                    let integers = given(self.producer(node, i, &["DequantizeLinear"])?, 0)?;
                    let is_unsigned = self.known.get(integers)?.dtype == "uint16" && !self.is_constant(integers);
                    is_unsigned.then_some(integers)
                };
                let (first, second) = (unsigned(0)?, unsigned(1)?);
                Some(format!("{first} and {second} are both uint16"))
            }
            Need::NoSumOfMatrices => {
                let [a, b] = [0, 1].map(|i| {
                    self.producer(node, i, &["MatMul"])
                        .filter(|_| self.shape(node, i).is_some_and(|shape| shape.len() == 2))
                });
                let other = if a.is_some() { given(node, 1)? } else { given(node, 0)? };
                let product = a.or(b)?;
                (!self.is_constant(other)).then(|| format!("it is fused with {} to a Gemm", product.name))
            }
        }
    }

    fn shape(&self, node: &Node, i: usize) -> Option<&[usize]> {
        self.known.get(given(node, i)?)?.shape.as_deref()
    }

    /// What produces an input, if it is one of these operators.
    fn producer(&self, node: &Node, i: usize, operators: &[&str]) -> Option<&'m Node> {
        let producer = self.producers.get(given(node, i)?)?;
        operators.contains(&producer.op.as_str()).then_some(*producer)
    }
}

/// The name of an input that is not left out.
fn given(node: &Node, i: usize) -> Option<&str> {
    node.inputs.get(i).map(String::as_str).filter(|name| !name.is_empty())
}
